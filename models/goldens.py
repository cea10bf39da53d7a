"""Writes the goldens the Rust tests compare with: Pillow's pixels and PyTorch's mathematics.

    models/.venv/bin/python models/goldens.py

Everything is seeded; running it again with the pinned versions writes the same values to tests/golden/.
"""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
import torchvision
import transformers
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.numpy import save_file
from torchvision.transforms.v2.functional import InterpolationMode, pil_to_tensor, resize
from transformers import CLIPImageProcessorFast, SiglipImageProcessorFast

import methods
from demo_model import clip_crop, clip_size, preprocess_u8

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def test_image(width, height, seed):
    """Smooth colour with edges and noise, so that every filter tap and rounding matters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / (5 + 3 * c) + c) * np.cos(y / (7 + 2 * c)) for c in range(3)]
    pixels = np.stack(waves, 2) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 90)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pillow():
    tensors = {}
    keep = lambda name, image: tensors.__setitem__(name, np.array(image))
    wide, tall, tiny = test_image(97, 61, 1), test_image(53, 90, 2), test_image(7, 11, 3)
    for name, image in {"wide": wide, "tall": tall, "tiny": tiny}.items():
        keep(f"{name}.input", image)
        for width, height in [(32, 32), (97, 20), (20, 61), (103, 67), (53, 90), (1, 1), (120, 13)]:
            keep(f"{name}.bicubic.{width}x{height}", image.resize((width, height), Image.BICUBIC))
            keep(f"{name}.bilinear.{width}x{height}", image.resize((width, height), Image.BILINEAR))
        for resolution in (16, 33, 64):
            keep(f"{name}.clip.{resolution}", preprocess_u8(image, resolution).permute(1, 2, 0).numpy())
            for kind, filter in {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR}.items():
                keep(f"{name}.squash-{kind}.{resolution}", image.resize((resolution, resolution), filter))
            size, corner = clip_size(*image.size, resolution), clip_crop(*clip_size(*image.size, resolution), resolution)
            cropped = image.resize(size, Image.BILINEAR).crop((*corner, corner[0] + resolution, corner[1] + resolution))
            keep(f"{name}.clip-bilinear.{resolution}", cropped)
    crop = wide.crop((11, 7, 11 + 58, 7 + 41))
    keep("wide.crop.bilinear.32x32", crop.resize((32, 32), Image.BILINEAR))
    keep("wide.flip", wide.transpose(Image.FLIP_LEFT_RIGHT))
    square = test_image(40, 40, 4)
    flat = Image.fromarray(np.full((9, 13, 3), (7, 130, 255), np.uint8))
    dark = Image.fromarray((np.array(wide.crop((0, 0, 48, 31))) // 5 + 30).astype(np.uint8))
    few = Image.fromarray(np.where(np.array(tall.crop((0, 0, 31, 48))) > 128, 200, 40).astype(np.uint8))
    for name, image in {"wide": wide, "square": square, "flat": flat, "dark": dark, "few": few, "tiny": tiny}.items():
        keep(f"{name}.input", image)
        keep(f"{name}.autocontrast", ImageOps.autocontrast(image))
        keep(f"{name}.equalize", ImageOps.equalize(image))
        for bits in (1, 4, 8):
            keep(f"{name}.posterize.{bits}", ImageOps.posterize(image, bits))
        for threshold in (0, 128, 231, 254, 256):
            keep(f"{name}.solarize.{threshold}", ImageOps.solarize(image, threshold))
        for degrees in (-2, -1, 1, 2, 30, 90, 180):
            keep(f"{name}.rotate.{degrees}", image.rotate(degrees, resample=Image.BILINEAR))
        affine = lambda *map: image.transform(image.size, Image.AFFINE, map, resample=Image.BILINEAR)
        for factor in (-0.029, 0.013, 0.3):
            keep(f"{name}.shear-x.{factor}", affine(1, factor, 0, 0, 1, 0))
            keep(f"{name}.shear-y.{factor}", affine(1, 0, 0, factor, 1, 0))
        for shift in (-7, 3):
            keep(f"{name}.translate-x.{shift}", affine(1, 0, shift, 0, 1, 0))
            keep(f"{name}.translate-y.{shift}", affine(1, 0, 0, 0, 1, shift))
    metadata = {"made_by": f"models/goldens.py, Pillow {PIL.__version__}"}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, GOLDEN / "pillow.safetensors", metadata)
    print(len(tensors), "Pillow goldens")


def tensors_of_bytes():
    """What torchvision makes of tensors of bytes, as newer processors of `transformers` do."""
    tensors = {}
    keep = lambda name, tensor: tensors.__setitem__(name, tensor.permute(1, 2, 0).contiguous().numpy())
    filters = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
    for name, image in {"wide": test_image(97, 61, 1), "tall": test_image(53, 90, 2), "tiny": test_image(7, 11, 3)}.items():
        keep(f"{name}.input", pil_to_tensor(image))
        for kind, mode in filters.items():
            for width, height in [(32, 32), (97, 20), (20, 61), (103, 67), (53, 90), (1, 1), (120, 13)]:
                keep(f"{name}.{kind}.{width}x{height}", resize(pil_to_tensor(image), [height, width], mode, antialias=True))
            for resolution in (16, 33, 64):
                square = {"height": resolution, "width": resolution}
                cropped = CLIPImageProcessorFast(size={"shortest_edge": resolution}, crop_size=square, resample=mode)
                squashed = SiglipImageProcessorFast(size=square, resample=mode)
                for way, processor in {"clip": cropped, "squash": squashed}.items():
                    plain = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
                    keep(f"{name}.{way}-{kind}.{resolution}", plain.to(torch.uint8))
    metadata = {"made_by": f"models/goldens.py, torchvision {torchvision.__version__}, transformers {transformers.__version__}"}
    save_file(tensors, GOLDEN / "torchvision.safetensors", metadata)
    print(len(tensors), "torchvision goldens")


def encoded(image, format, **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def decoding():
    """Whole files of every format beside the pixels Pillow reads from them."""
    image = test_image(37, 23, 5)
    grey = image.convert("L")
    alpha = image.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(np.array(grey).astype(np.uint16) * 257 ^ 0x55)
    exif = lambda orientation: {"exif": (lambda e: (e.__setitem__(0x0112, orientation), e)[1])(Image.Exif())}
    files = {
        "rgb.png": (encoded(image, "PNG"), image),
        "grey.png": (encoded(grey, "PNG"), image.convert("L").convert("RGB")),
        "grey-alpha.png": (encoded(alpha.convert("LA"), "PNG"), alpha.convert("LA").convert("RGB")),
        "alpha.png": (encoded(alpha, "PNG"), alpha.convert("RGB")),
        "palette.png": (encoded(image.quantize(32), "PNG"), image.quantize(32).convert("RGB")),
        "deep-grey.png": (encoded(deep, "PNG"), Image.fromarray((np.array(deep) >> 8).astype(np.uint8)).convert("RGB")),
        "rgb.bmp": (encoded(image, "BMP"), image),
        "lossless.webp": (encoded(image, "WEBP", lossless=True), image),
        "alpha.webp": (encoded(alpha, "WEBP", lossless=True, exact=True), alpha.convert("RGB")),
        "rgb.jpg": (encoded(image, "JPEG", quality=92), None),
        "grey.jpg": (encoded(grey, "JPEG", quality=92), None),
        "progressive.jpg": (encoded(image, "JPEG", quality=85, progressive=True), None),
    }
    for orientation in range(1, 9):
        files[f"orientation-{orientation}.jpg"] = (encoded(image, "JPEG", quality=92, **exif(orientation)), None)
    tensors = {}
    for name, (content, pixels) in files.items():
        if pixels is None:
            pixels = ImageOps.exif_transpose(Image.open(BytesIO(content.tobytes()))).convert("RGB")
        tensors[f"{name}.file"] = content
        tensors[f"{name}.pixels"] = np.array(pixels)
    save_file(tensors, GOLDEN / "decoding.safetensors", {"made_by": f"models/goldens.py, Pillow {PIL.__version__}"})
    print(len(files), "decoding goldens")


def episode(features, classes, scale, steps):
    """R-TPT over class-shift with torch's own autograd and AdamW, and its first gradient."""
    settings = methods.Settings(steps=steps)
    result = methods.run("class-shift", features, classes, scale, settings)
    shift = torch.zeros_like(classes, requires_grad=True)
    logits = scale * features[result.selected] @ F.normalize(classes + shift, dim=1).T
    (gradient,) = torch.autograd.grad(methods.entropy(logits).mean(), shift)
    return {
        "logits": result.logits,
        "selected": result.selected,
        "gradient": gradient,
        "losses": torch.tensor(result.losses, dtype=features.dtype),
        "tuned": result.tuned,
        "weights": result.weights,
        "prediction": result.prediction,
    }


def mathematics():
    """Episodes in double precision on random features that cluster by class, as views of one image do."""
    tensors, cases = {}, []
    sizes = [(64, 10, 16), (64, 100, 32), (30, 7, 24), (9, 3, 8), (2, 2, 4), (3, 40, 16)]
    for number, (views, classes, width) in enumerate(sizes):
        for steps in (1, 3):
            torch.manual_seed(100 + number)
            table = F.normalize(torch.randn(classes, width, dtype=torch.float64), dim=1)
            features = F.normalize(table[0] + 0.6 * torch.randn(views, width, dtype=torch.float64), dim=1)
            case = f"v{views}-c{classes}-d{width}-s{steps}"
            cases.append({"name": case, "steps": steps, "scale": 20.0})
            results = {"features": features, "classes": table, **episode(features, table, 20.0, steps)}
            tensors |= {f"{case}.{name}": value.numpy() for name, value in results.items()}
    metadata = {"made_by": f"models/goldens.py, PyTorch {torch.__version__}", "cases": json.dumps(cases)}
    save_file(tensors, GOLDEN / "episodes.safetensors", metadata)
    print(len(cases), "episode goldens")


def other_methods():
    """The methods that tune no classes, on the features of the episodes in `episodes.safetensors`."""
    tensors, cases = {}, []
    with safe_open(GOLDEN / "episodes.safetensors", "pt") as file:
        for case in json.loads(file.metadata()["cases"]):
            features, table = (file.get_tensor(f"{case['name']}.{part}") for part in ("features", "classes"))
            for method in ("view-shift", "mta", "zero", "dbd"):
                if case["steps"] > 1 and method != "view-shift":
                    continue
                settings = methods.Settings.of(method)
                settings.steps = case["steps"]
                result = methods.run(method, features, table, case["scale"], settings)
                name = f"{method}.{case['name']}"
                cases.append(case | {"name": name, "episode": case["name"], "method": method})
                parts = {"weights": result.weights, "prediction": result.prediction}
                if method == "view-shift":
                    parts["losses"] = torch.tensor(result.losses, dtype=features.dtype)
                if method == "dbd":
                    parts["agreement"] = result.theta[None]
                tensors |= {f"{name}.{part}": value.contiguous().numpy() for part, value in parts.items()}
    metadata = {"made_by": f"models/goldens.py, PyTorch {torch.__version__}", "cases": json.dumps(cases)}
    save_file(tensors, GOLDEN / "methods.safetensors", metadata)
    print(len(cases), "goldens of other methods")


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    pillow()
    tensors_of_bytes()
    decoding()
    mathematics()
    other_methods()
