"""White-box attacks against zero-shot classification, against the views, and against what looks at them: copies of photos that mislead.

    models/.venv/bin/python models/attack.py --bundle models/demo/bundle --photos DATA/caltech101/test \
        --class-names models/demo/caltech101-folders.tsv --out OUT --attack pgd --eps 4 --steps 100 --at-model-resolution

PHOTOS has one folder a class. All attacks stay within an L-infinity ball of `--eps` levels of 255. Against the clean view:

- `pgd`: projected gradient descent on the clean view's cross-entropy (Madry et al. 2018);
- `targeted`: the same towards a class drawn at random among the others (a random target as of Kurakin et al. 2017);
- `cw`: PGD on the margin between the largest other logit and the true one, up to `--kappa` (Carlini and Wagner 2017, f6, whose L2 penalty
  is the ball here, as is customary);
- `apgd-ce`: Auto-PGD with cross-entropy (Croce and Hein 2020);
- `apgd`: Auto-PGD with cross-entropy, then with the ratio of logit differences where that did not succeed (Croce and Hein 2020, equation 6);
- `apgd-t`: Auto-PGD with the targeted ratio (Croce and Hein 2020, equation 7) towards the nine most probable other classes in turn.

Against the views and the methods:

- `eot`: PGD on the expectation over random crops and mirrorings, redrawn in each step (Athalye et al. 2018): the attacker
  knows how views are drawn, though not which ones will be;
- `eot-dbd`: the same through the method `dbd` (arXiv 2606.06186) with the bundle's parameters: PGD on its answer's cross-entropy (an adaptive
  attack, as Tramèr et al. 2020 ask for);
- `gate`: PGD for an attacker who knows the gate (CSR, ICML 2026: the cosine of the clean view with the low-passed one is `--gate-bound` or
  more, and both have the same answer): it makes both views and random ones wrong alike, and keeps the cosine.

By default the photo itself is attacked at its own resolution, through a differentiable version of the preprocessing
(antialiased bicubic resize, central crop, normalisation); with `--at-model-resolution` the preprocessed R×R image is, as
in the papers. The results are rounded to bytes and written as PNG, so what is measured afterwards is a file, not a
tensor. The model is the bundle's own ONNX file, so any bundle can be attacked whose operators `onnx2torch` knows; weights
in int8 are the same numbers in floats here.

With `--pseudo-labels` what is to be misled is the model's own answer for the clean photo, right or wrong: the attacker has
no truth, as in R-TPT's test-time setting.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from attack_target import Target
from attacks import apgd, apgd_ce, apgd_t, cw, eot, eot_dbd, gate, pgd, targeted
from data_sets import list_folder, read_class_names
from demo_model import open_rgb, preprocess_u8

ATTACKS = {
    "pgd": pgd,
    "targeted": targeted,
    "cw": cw,
    "apgd": apgd,
    "apgd-ce": apgd_ce,
    "apgd-t": apgd_t,
    "eot": eot,
    "eot-dbd": eot_dbd,
    "gate": gate,
}


def to_image(pixels):
    return Image.fromarray((pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def to_unit(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def spread(items, count):
    """`count` of the items, evenly spaced, or all."""
    if not count or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def arguments():
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
    parser.add_argument("--views", type=int, default=8, help="random views a step of eot, eot-dbd and gate")
    parser.add_argument("--kappa", type=float, default=50, help="margin of cw beyond which nothing is gained, in logits")
    parser.add_argument("--gate-bound", type=float, default=0.85, help="least cosine that passes the gate")
    parser.add_argument("--at-model-resolution", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="take every N-th photo")
    parser.add_argument("--first", type=int, default=0, help="begin with this one, counted from 0")
    parser.add_argument("--count", type=int, help="take this many, evenly spaced")
    parser.add_argument("--batch", type=int, default=32)
    return parser.parse_args()


def attacked_images(target, images, truth, args):
    """The images in bytes, attacked so that their answers are not `truth`; as they were where ε is 0."""
    if not args.eps:
        return images
    more = {"cw": {"kappa": args.kappa}, "gate": {"bound": args.gate_bound}}.get(args.attack, {})
    photos = [to_unit(image) for image in images]
    found = ATTACKS[args.attack](target, photos, truth, args.eps / 255, args.steps, args.views, **more)
    return [to_image(pixels) for pixels in found]


def main():
    args = arguments()
    torch.manual_seed(0)
    names = read_class_names(args.class_names) if args.class_names else {}
    everything = list_folder(args.photos, names)
    labels = sorted({name for _, name in everything})
    if args.labels:
        labels = list(dict.fromkeys(line.split("\t")[-1] for line in args.labels.read_text().splitlines() if line and not line.startswith("#")))
    target = Target(args.bundle, labels)
    items = spread(everything[args.first :: args.every], args.count)
    sums = Counter()
    for start in range(0, len(items), args.batch):
        part = items[start : start + args.batch]
        images = [open_rgb(path) for path, _ in part]
        if args.at_model_resolution:
            images = [Image.fromarray(preprocess_u8(i, target.resolution).permute(1, 2, 0).numpy()) for i in images]
        truth = torch.tensor([target.labels.index(name) for _, name in part])
        before = target.answers(images)
        misled_from = before if args.pseudo_labels else truth
        attacked = attacked_images(target, images, misled_from, args)
        after = target.answers(attacked)
        cosines, agree = target.gate(attacked)
        passes = agree & (cosines >= args.gate_bound)
        sums["before"] += (before == truth).sum().item()
        sums["after"] += (after == truth).sum().item()
        sums["passes"] += passes.sum().item()
        sums["misled"] += (passes & (after != misled_from)).sum().item()
        for (path, _), image in zip(part, attacked):
            out = args.out / path.parent.name / f"{path.stem}.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            image.save(out, optimize=True)
        done = start + len(part)
        print(f"{done}/{len(items)}: zero-shot right {sums['before'] / done:.1%} clean, {sums['after'] / done:.1%} attacked",
              flush=True)
    print(f"gate at {args.gate_bound:g}: {sums['passes']} of {len(items)} photos pass, {sums['misled']} of them misled")


if __name__ == "__main__":
    main()
