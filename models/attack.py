"""White-box attacks against zero-shot classification and against the views: copies of photos that mislead.

    models/.venv/bin/python models/attack.py --bundle models/demo/bundle --photos DATA/caltech101/test \
        --class-names models/demo/caltech101-folders.tsv --out OUT --attack pgd --eps 4 --steps 100 --at-model-resolution

PHOTOS has one folder a class. All attacks are untargeted, within an L-infinity ball of `--eps` levels of 255:

- `pgd`: projected gradient descent on the clean view's cross-entropy (Madry et al. 2018);
- `apgd`: Auto-PGD with cross-entropy, then with the ratio of logit differences where that did not succeed (Croce and
  Hein 2020, the two untargeted parts of AutoAttack);
- `eot`: PGD on the expectation over random crops and mirrorings, redrawn in each step (Athalye et al. 2018): the attacker
  knows how views are drawn, though not which ones will be.

By default the photo itself is attacked at its own resolution, through a differentiable version of the preprocessing
(antialiased bicubic resize, central crop, normalisation); with `--at-model-resolution` the preprocessed R×R image is, as
in the papers. The results are rounded to bytes and written as PNG, so what is measured afterwards is a file, not a
tensor. The model is the bundle's own ONNX file, so any bundle can be attacked whose operators `onnx2torch` knows; weights
in int8 are the same numbers in floats here.

With `--pseudo-labels` what is to be misled is the model's own answer for the clean photo, right or wrong: the attacker has
no truth, as in R-TPT's test-time setting.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx2torch import convert
from PIL import Image
from safetensors import safe_open

from data_sets import list_folder, read_class_names
from demo_model import clip_crop, clip_size, open_rgb, preprocess_u8
from text_tower import TextTower


def in_floats(model):
    """The ONNX model with its int8 weights, one scale a row, as floats: what DequantizeLinear makes of them."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        rows, scales = (onnx.numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input[:2])
        weights = rows * scales.reshape(-1, *[1] * (rows.ndim - 1))
        graph.initializer.append(onnx.numpy_helper.from_array(weights, node.output[0]))
        graph.node.remove(node)
    return model


class Target:
    """A bundle as the attacker sees it: `[N, 3, R, R]` pixels in 0–1 to logits `[N, C]`, with a gradient.

    The labels are the bundle's if those have all of `names`, else `names`, embedded by its text tower.
    """

    def __init__(self, bundle, names=()):
        manifest = json.loads((bundle / "manifest.json").read_text())
        image = manifest["image"]
        if image.get("projection") or image.get("output"):
            raise SystemExit(f"{bundle}: export the model with `models/export.py`; an imported projection is not handled here")
        with safe_open(bundle / manifest["classes"]["file"], "pt") as file:
            known = json.loads(file.metadata()["names"])
            table = F.normalize(file.get_tensor("embeddings").float(), dim=1)
        lines = (bundle / manifest["classes"]["default_labels"]).read_text().splitlines()
        # What stands before a tab on several lines is a group; of the bundles that this is for, none has identifiers.
        pairs = [(line.split("\t")[0], line.split("\t")[-1]) for line in lines]
        self.labels = list(dict.fromkeys(label for label, _ in pairs))
        if all(name in self.labels for name in names):
            self.table = table[[known.index(member) for _, member in pairs]]
            self.of = torch.tensor([self.labels.index(label) for label, _ in pairs])
        else:
            self.labels = list(names)
            self.table = TextTower(bundle, manifest).classes([f"{manifest['prompt']['context']} {{}}."], self.labels)
            self.of = torch.arange(len(names))
        self.resolution, self.scale = image["resolution"], manifest["logit_scale"]
        self.mean, self.std = (torch.tensor(image[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.tower = convert(in_floats(onnx.load(bundle / image["file"]))).eval().requires_grad_(False)

    def logits(self, pixels):
        features = self.tower((pixels - self.mean) / self.std)
        logits = self.scale * F.normalize(features, dim=1) @ self.table.T
        # A group's probability is the sum of its members'.
        largest = logits.amax(1, keepdim=True).detach()
        sums = torch.zeros(len(logits), len(self.labels)).index_add(1, self.of, (logits - largest).exp())
        return sums.clamp(min=1e-30).log() + largest

    def clean_view(self, photo):
        """`[3, H, W]` in 0–1 to the clean view `[3, R, R]`, with a gradient."""
        width, height = clip_size(photo.shape[2], photo.shape[1], self.resolution)
        if (height, width) != tuple(photo.shape[1:]):
            photo = F.interpolate(photo[None], (height, width), mode="bicubic", antialias=True)[0]
        left, top = clip_crop(width, height, self.resolution)
        return photo[:, top : top + self.resolution, left : left + self.resolution]

    def clean_logits(self, photos):
        return self.logits(torch.stack([self.clean_view(photo) for photo in photos]))

    def answers(self, images):
        views = torch.stack([preprocess_u8(image, self.resolution) for image in images]).float() / 255
        with torch.no_grad():
            return self.logits(views).argmax(1)


def random_view(photo, resolution):
    """A random crop, mirrored half of the time: torchvision's RandomResizedCrop (scale 0.08–1, ratio 3/4–4/3)."""
    height, width = photo.shape[1:]
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(0.08, 1).item()
        ratio = torch.empty(1).uniform_(np.log(3 / 4), np.log(4 / 3)).exp().item()
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, (1,)).item()
            left = torch.randint(0, width - w + 1, (1,)).item()
            photo = photo[:, top : top + h, left : left + w]
            break
    view = F.interpolate(photo[None], (resolution, resolution), mode="bilinear", antialias=True)[0]
    return view.flip(2) if torch.rand(1).item() < 0.5 else view


def project(moved, clean, eps):
    return torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)


def gradients_of(loss_of, photos):
    photos = [photo.detach().requires_grad_() for photo in photos]
    return torch.autograd.grad(loss_of(photos), photos)


def descend(loss_of, photos, eps, steps):
    """PGD that raises `loss_of`, from a random start, with steps of a quarter of ε."""
    attacked = [(photo + torch.empty_like(photo).uniform_(-eps, eps)).clamp(0, 1) for photo in photos]
    for _ in range(steps):
        moved = zip(attacked, gradients_of(loss_of, attacked), photos)
        attacked = [project(photo + eps / 4 * gradient.sign(), clean, eps) for photo, gradient, clean in moved]
    return attacked


def pgd(target, photos, truth, eps, steps, _views):
    return descend(lambda x: F.cross_entropy(target.clean_logits(x), truth, reduction="sum"), photos, eps, steps)


def eot(target, photos, truth, eps, steps, views):
    def loss_of(photos):
        drawn = [random_view(photo, target.resolution) for photo in photos for _ in range(views)]
        drawn += [target.clean_view(photo) for photo in photos]
        repeated = torch.cat([truth.repeat_interleave(views), truth])
        return F.cross_entropy(target.logits(torch.stack(drawn)), repeated, reduction="sum")

    return descend(loss_of, photos, eps, steps)


def logit_difference_ratio(logits, truth):
    """Each image's DLR loss `-(z_y - max z_other) / (z_1 - z_3)`, `[N]` (Croce and Hein 2020, equation 6)."""
    ordered = logits.sort(1).values
    right = logits.gather(1, truth[:, None])[:, 0]
    others = logits.scatter(1, truth[:, None], -torch.inf).amax(1)
    return -(right - others) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def apgd_once(target, photos, truth, eps, steps, loss_each):
    """Auto-PGD: momentum 0.75, and steps halved at checkpoints where the loss hardly rose or the best did not move."""
    count = len(photos)
    checkpoints, share, last = [0], 0.22, 0.0
    while checkpoints[-1] < steps:
        checkpoints.append(int(np.ceil(steps * share)))
        share, last = share + max(share - last - 0.03, 0.06), share
    current = [(photo + torch.empty_like(photo).uniform_(-eps, eps)).clamp(0, 1) for photo in photos]
    before = current
    best, best_loss = list(current), torch.full((count,), -torch.inf)
    step_size, rises = torch.full((count,), 2 * eps), torch.zeros(count)
    old_loss, seen_size, seen_best = torch.full((count,), -torch.inf), step_size.clone(), best_loss.clone()
    since = 0
    for step in range(steps + 1):
        leaves = [photo.detach().requires_grad_() for photo in current]
        losses = loss_each(target.clean_logits(leaves), truth)
        gradients = torch.autograd.grad(losses.sum(), leaves)
        losses = losses.detach()
        rises += losses > old_loss
        old_loss = losses
        for i in torch.nonzero(losses > best_loss).flatten().tolist():
            best[i], best_loss[i] = current[i], losses[i]
        if step in checkpoints[1:]:
            stuck = (rises < 0.75 * (step - since)) | ((step_size == seen_size) & (best_loss == seen_best))
            seen_size, seen_best = step_size.clone(), best_loss.clone()
            step_size = torch.where(stuck, step_size / 2, step_size)
            current = [best[i] if stuck[i] else current[i] for i in range(count)]
            rises, since = torch.zeros(count), step
        if step == steps:
            break
        moved = []
        for i, (now, old, gradient, clean) in enumerate(zip(current, before, gradients, photos)):
            along = project(now + step_size[i] * gradient.sign(), clean, eps)
            keep = 0.75 if step else 1.0
            moved.append(project(now + keep * (along - now) + (1 - keep) * (now - old), clean, eps))
        before, current = current, moved
    return best


def apgd(target, photos, truth, eps, steps, _views):
    losses = [lambda logits, truth: F.cross_entropy(logits, truth, reduction="none"), logit_difference_ratio]
    attacked = list(photos)
    for loss_each in losses:
        with torch.no_grad():
            right = (target.clean_logits(attacked).argmax(1) == truth).nonzero().flatten().tolist()
        if right:
            found = apgd_once(target, [photos[i] for i in right], truth[right], eps, steps, loss_each)
            for i, photo in zip(right, found):
                attacked[i] = photo
    return attacked


ATTACKS = {"pgd": pgd, "apgd": apgd, "eot": eot}


def to_image(pixels):
    return Image.fromarray((pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def to_unit(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def spread(items, count):
    """`count` of the items, evenly spaced, or all."""
    if not count or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with one folder of photos per class")
    parser.add_argument("--class-names", type=Path, help="lines of a folder's name, a tab and its class")
    parser.add_argument("--labels", type=Path, help="labels to tell apart, a line each, an identifier and a tab may precede [default: the photos' classes]")
    parser.add_argument("--pseudo-labels", action="store_true", help="mislead from the model's own answer instead of the truth")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--attack", choices=sorted(ATTACKS), default="pgd")
    parser.add_argument("--eps", type=float, default=4, help="largest change of a value, in levels of 255; 0: none")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--views", type=int, default=8, help="random views a step of eot")
    parser.add_argument("--at-model-resolution", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photo")
    parser.add_argument("--first", type=int, default=0, help="begin with this one, counted from 0")
    parser.add_argument("--count", type=int, help="take this many, evenly spaced")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    torch.manual_seed(0)
    names = read_class_names(args.class_names) if args.class_names else {}
    everything = list_folder(args.photos, names)
    labels = sorted({name for _, name in everything})
    if args.labels:
        labels = list(dict.fromkeys(line.split("\t")[-1] for line in args.labels.read_text().splitlines() if line and not line.startswith("#")))
    target = Target(args.bundle, labels)
    items = spread(everything[args.first :: args.every], args.count)
    right_before = right_after = 0
    for start in range(0, len(items), args.batch):
        part = items[start : start + args.batch]
        images = [open_rgb(path) for path, _ in part]
        if args.at_model_resolution:
            images = [Image.fromarray(preprocess_u8(i, target.resolution).permute(1, 2, 0).numpy()) for i in images]
        truth = torch.tensor([target.labels.index(name) for _, name in part])
        before = target.answers(images)
        attacked = images
        if args.eps:
            photos = [to_unit(image) for image in images]
            found = ATTACKS[args.attack](target, photos, before if args.pseudo_labels else truth, args.eps / 255, args.steps, args.views)
            attacked = [to_image(pixels) for pixels in found]
        right_before += (before == truth).sum().item()
        right_after += (target.answers(attacked) == truth).sum().item()
        for (path, _), image in zip(part, attacked):
            out = args.out / path.parent.name / f"{path.stem}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            image.save(out, optimize=True)
        done = start + len(part)
        print(f"{done}/{len(items)}: zero-shot right {right_before / done:.1%} clean, {right_after / done:.1%} attacked",
              flush=True)


if __name__ == "__main__":
    main()
