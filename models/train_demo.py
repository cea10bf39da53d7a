"""Trains the demo model from scratch on Caltech-101, clothing and CIFAR-10 train images; a CPU is enough.

    models/.venv/bin/python models/train_demo.py --data DATA --out models/runs/demo.pt

DATA holds caltech101/train, caltech101/test, clothing/train, clothing/test and cifar10-train.tar.gz
(models/README.md says where they come from). The test folders are only measured, never trained on.
"""

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from data_sets import CALTECH_NAMES, CLOTHING_NAMES, ImageSet, list_folder
from demo_model import END, DualEncoder, Shape, encode_texts, normalize, open_rgb, preprocess_u8, train_tokenizer

TEMPLATES = [
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a good photo of a {}.",
    "a close-up photo of a {}.",
    "a bright photo of a {}.",
    "a cropped photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a drawing or photo of a {}.",
    "a blurry photo of a {}.",
    "a small {}.",
    "a large {}.",
    "this is a {}.",
    "{}.",
]
EVAL_TEMPLATE = "a photo of a {}."


def random_boxes(ratios, smallest, generator):
    """Torchvision's RandomResizedCrop boxes, vectorised, as `affine_grid` matrices; half of them mirrored."""
    count = len(ratios)
    area = torch.empty(count).uniform_(smallest, 1.0, generator=generator)
    aspect = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    # With the image's height as 1 its width is `ratios` and its area is `ratios`.
    width = (area * ratios * aspect).sqrt().minimum(ratios) / ratios
    height = (area * ratios / aspect).sqrt().clamp(max=1.0)
    shift_x = (torch.rand(count, generator=generator) * 2 - 1) * (1 - width)
    shift_y = (torch.rand(count, generator=generator) * 2 - 1) * (1 - height)
    mirror = (torch.rand(count, generator=generator) < 0.5).float() * -2 + 1
    zeros = torch.zeros(count)
    return torch.stack(
        [torch.stack([width * mirror, zeros, shift_x], 1), torch.stack([zeros, height, shift_y], 1)], 1
    )


def jitter(images, generator):
    """Random brightness, contrast, saturation and, for one image in ten, grey."""
    count = len(images)
    factor = lambda spread: (1 + (torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1) * spread)
    grey = images.mean(1, keepdim=True)
    saturation = factor(0.4) * (torch.rand(count, 1, 1, 1, generator=generator) > 0.1)
    images = grey + (images - grey) * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((mean + (images - mean) * factor(0.4)) * factor(0.4)).clamp(0, 1)


def augmented(image_set, indices, resolution, smallest, generator):
    """A training batch `[N, 3, R, R]`: crops sampled at 2R and averaged down, which stands for antialiasing."""
    pixels = image_set.pixels[indices].float() / 255
    boxes = random_boxes(image_set.ratios[indices], smallest, generator)
    grid = F.affine_grid(boxes, (len(indices), 3, 2 * resolution, 2 * resolution), align_corners=False)
    crops = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return jitter(F.avg_pool2d(crops, 2), generator)


@torch.no_grad()
def accuracy(model, tokenizer, shape, items, names, resolution):
    """Zero-shot top-1 over `items` with the exact preprocessing."""
    model.eval()
    texts = [EVAL_TEMPLATE.format(name) for name in names]
    classes = F.normalize(model.text(encode_texts(tokenizer, texts, shape.context_length)), dim=1)
    right = 0
    for start in range(0, len(items), 128):
        part = items[start : start + 128]
        images = torch.stack([preprocess_u8(open_rgb(path), resolution) for path, _ in part]).float() / 255
        features = model.image(normalize(images).contiguous(memory_format=torch.channels_last))
        guesses = (features @ classes.T).argmax(1)
        right += sum(names[guess] == name for guess, (_, name) in zip(guesses, part))
    model.train()
    return right / len(items)


def parameter_groups(model, weight_decay):
    """Matrices and filters decay; biases, norms, positions and the logit scale do not."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim > 1 and "embedding" not in n)]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--smallest-crop", type=float, default=0.15)
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--mixup", type=float, default=0.2, help="alpha of mixup's Beta distribution; 0 is off")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    shape = Shape()

    side = 128
    sets = {
        "caltech101": ImageSet.folder(args.data / "caltech101/train", CALTECH_NAMES, side),
        "clothing": ImageSet.folder(args.data / "clothing/train", CLOTHING_NAMES, side),
        "cifar10": ImageSet.archive(args.data / "cifar10-train.tar.gz", 32),
    }
    shares = {"caltech101": 0.64, "clothing": 0.14, "cifar10": 0.22}
    tests = {
        "caltech101": list_folder(args.data / "caltech101/test", CALTECH_NAMES),
        "clothing": list_folder(args.data / "clothing/test", CLOTHING_NAMES),
    }
    known = json.loads((args.data / "class-names.json").read_text())
    corpus = [name.replace("_", " ") for names in known.values() for name in names]
    corpus += [name for image_set in sets.values() for name in image_set.names] * 20
    corpus += [template.format("") for template in TEMPLATES] * 200
    tokenizer = train_tokenizer(corpus, shape.vocabulary)

    model = DualEncoder(shape)
    model.text.end = tokenizer.token_to_id(END)
    model.image = model.image.to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    average.module.text.end = model.text.end
    optimizer = torch.optim.AdamW(parameter_groups(model, args.weight_decay), lr=args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.15)
    ids = {
        name: [
            encode_texts(tokenizer, [template.format(label) for label in image_set.names], shape.context_length)
            for template in TEMPLATES
        ]
        for name, image_set in sets.items()
    }

    def save():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "shape": asdict(shape),
                "model": average.module.state_dict(),
                "tokenizer": tokenizer.to_str(),
                "names": {name: image_set.names for name, image_set in sets.items()},
                "settings": {key: str(value) for key, value in vars(args).items() if key != "data"},
            },
            args.out,
        )

    print({name: len(image_set.labels) for name, image_set in sets.items()}, flush=True)
    print(f"{sum(p.numel() for p in model.image.parameters()) / 1e6:.2f} M image parameters", flush=True)
    began, window, seen_loss = time.time(), time.time(), 0.0
    for step in range(args.steps):
        # Small crops first, larger ones later: most of the learning at a third of the cost.
        progress = step / args.steps
        resolution = 48 if progress < 0.45 else 64 if progress < 0.85 else 72
        batches, targets, others, counts = [], [], [], []
        mix = torch.distributions.Beta(args.mixup, args.mixup).sample().item() if args.mixup else 1.0
        for name, share in shares.items():
            image_set = sets[name]
            count = round(args.batch * share)
            indices = torch.randint(len(image_set.labels), (count,), generator=generator)
            images = augmented(image_set, indices, resolution, args.smallest_crop, generator)
            batches.append(images * mix + images.roll(1, 0) * (1 - mix))
            targets.append(image_set.labels[indices])
            others.append(image_set.labels[indices].roll(1, 0))
            counts.append(count)
        images = normalize(torch.cat(batches)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = model.image(images)
        features = F.normalize(features.float(), dim=1).split(counts)
        template = torch.randint(len(TEMPLATES), (), generator=generator).item()
        loss = 0.0
        for name, part, target, other, count in zip(shares, features, targets, others, counts):
            classes = F.normalize(model.text(ids[name][template]), dim=1)
            logits = model.logit_scale.exp() * part @ classes.T
            entropy = lambda labels: F.cross_entropy(logits, labels, label_smoothing=args.label_smoothing)
            loss = loss + (mix * entropy(target) + (1 - mix) * entropy(other)) * count / args.batch
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        average.update_parameters(model)
        seen_loss += loss.item()
        if (step + 1) % 50 == 0:
            rate = 50 * args.batch / (time.time() - window)
            print(
                f"step {step + 1}/{args.steps} loss {seen_loss / 50:.3f} scale {model.logit_scale.exp().item():.1f} "
                f"{rate:.0f} images/s {(time.time() - began) / 60:.1f} min",
                flush=True,
            )
            window, seen_loss = time.time(), 0.0
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            sides = (64, 72, 80, 96) if step + 1 == args.steps else (64, 80)
            for name, items in tests.items():
                names = sets[name].names
                scores = {r: round(accuracy(average.module, tokenizer, shape, items, names, r), 4) for r in sides}
                print(f"  {name} test zero-shot by resolution: {scores}", flush=True)
            save()
            window = time.time()


if __name__ == "__main__":
    main()
