"""Makes attacked copies of photos: untargeted L-infinity PGD (Madry et al. 2018) against zero-shot classification.

    models/.venv/bin/python models/attack.py --bundle models/demo/bundle --checkpoint models/runs/demo.pt \
        --photos DATA/caltech101/test --out OUT --eps 4 --steps 40

PHOTOS has one folder a class. By default the photo itself is attacked at its own resolution, through a differentiable
version of the preprocessing (antialiased bicubic resize, central crop, normalisation); with `--at-model-resolution`
the preprocessed R×R image is. The results are rounded to bytes and written as PNG, so what is measured afterwards is
a file, not a tensor. The attacker knows the model but not the views that rtpt will draw; one who differentiates
through the views as well is stronger, and R-TPT does not claim to resist that.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from data_sets import CALTECH_NAMES, list_folder
from demo_model import clip_crop, clip_size, load_checkpoint, normalize, open_rgb, preprocess_u8


def load_classes(bundle):
    """The bundle's default labels and their unit embeddings `[C, D]`, its resolution and its logit scale."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    with safe_open(bundle / "classes.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
        table = file.get_tensor("embeddings")
    labels = (bundle / "labels.txt").read_text().splitlines()
    rows = [names.index(label) for label in labels]
    return labels, table[rows], manifest["image"]["resolution"], manifest["logit_scale"]


def differentiable_view(photo, resolution):
    """`[3, H, W]` in 0–1 to the clean view `[3, R, R]`, with a gradient."""
    width, height = clip_size(photo.shape[2], photo.shape[1], resolution)
    if (height, width) != tuple(photo.shape[1:]):
        photo = F.interpolate(photo[None], (height, width), mode="bicubic", antialias=True)[0]
    left, top = clip_crop(width, height, resolution)
    return normalize(photo[:, top : top + resolution, left : left + resolution])


def pgd(tower, table, scale, photos, targets, resolution, eps, steps):
    """Attacked versions of `photos` (a list of `[3, H, W]` in 0–1) that raise the loss of `targets`."""
    step_size = eps / 4
    attacked = [(photo + torch.empty_like(photo).uniform_(-eps, eps)).clamp(0, 1) for photo in photos]
    for _ in range(steps):
        attacked = [photo.detach().requires_grad_() for photo in attacked]
        views = torch.stack([differentiable_view(photo, resolution) for photo in attacked])
        logits = scale * F.normalize(tower(views), dim=1) @ table.T
        gradients = torch.autograd.grad(F.cross_entropy(logits, targets, reduction="sum"), attacked)
        moved = [photo.detach() + step_size * gradient.sign() for photo, gradient in zip(attacked, gradients)]
        attacked = [
            torch.minimum(torch.maximum(photo, clean - eps), clean + eps).clamp(0, 1)
            for photo, clean in zip(moved, photos)
        ]
    return attacked


def to_image(pixels):
    return Image.fromarray((pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def to_unit(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def zero_shot(tower, table, images, resolution):
    views = normalize(torch.stack([preprocess_u8(image, resolution) for image in images]).float() / 255)
    with torch.no_grad():
        return (F.normalize(tower(views), dim=1) @ table.T).argmax(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with one folder of photos per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--eps", type=float, default=4, help="largest change of a value, in levels of 255")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--at-model-resolution", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photo")
    parser.add_argument("--first", type=int, default=0, help="begin with this one, counted from 0")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(0)
    labels, table, resolution, scale = load_classes(args.bundle)
    model, *_ = load_checkpoint(args.checkpoint)
    tower = model.image.requires_grad_(False)
    items = list_folder(args.photos, CALTECH_NAMES)[args.first :: args.every]
    right_before = right_after = 0
    for start in range(0, len(items), args.batch):
        part = items[start : start + args.batch]
        images = [open_rgb(path) for path, _ in part]
        if args.at_model_resolution:
            images = [Image.fromarray(preprocess_u8(i, resolution).permute(1, 2, 0).numpy()) for i in images]
        targets = torch.tensor([labels.index(name) for _, name in part])
        photos = [to_unit(image) for image in images]
        attacked = pgd(tower, table, scale, photos, targets, resolution, args.eps / 255, args.steps)
        attacked = [to_image(pixels) for pixels in attacked]
        right_before += (zero_shot(tower, table, images, resolution) == targets).sum().item()
        right_after += (zero_shot(tower, table, attacked, resolution) == targets).sum().item()
        for (path, _), image in zip(part, attacked):
            target = args.out / path.parent.name / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target, optimize=True)
        done = start + len(part)
        print(f"{done}/{len(items)}: zero-shot right {right_before / done:.1%} clean, {right_after / done:.1%} attacked",
              flush=True)


if __name__ == "__main__":
    main()
