"""Picks the demo photos and makes their attacked versions: one of each of COUNT classes, spread over the alphabet.

    models/.venv/bin/python models/demo_photos.py --photos DATA/caltech101/test --bundle models/demo/bundle \
        --out models/demo/photos

Of a class the first photo is taken that zero-shot classifies rightly while it is clean: a photo that is wrong from
the start shows nothing about attacks. What R-TPT makes of a photo has no part in the choice.
"""

import argparse
import shutil
from pathlib import Path

import torch

from attack import Target, pgd, to_image, to_unit
from data_sets import CALTECH_NAMES, list_folder
from demo_model import open_rgb

ATTRIBUTION = """# Demo photos

From Caltech-101, by Fei-Fei Li, Marco Andreeto, Marc'Aurelio Ranzato and Pietro Perona (2022), CaltechDATA,
<https://doi.org/10.22002/D1.20086>, under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). All are from the
part that was held out from training.

A file named `-attacked` is a changed copy of the photo beside it ({attack}), under the same licence.
The others are unchanged.

| files | photo of Caltech-101 |
|---|---|
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--eps", type=float, default=4)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(0)
    target = Target(args.bundle)
    by_class = {}
    for path, name in list_folder(args.photos, CALTECH_NAMES):
        by_class.setdefault(name, []).append(path)
    names = sorted(by_class)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("*"):
        old.unlink()
    origins = []
    lines = ["# clean photo, photo attacked with PGD at its own resolution, true label"]
    for number in range(args.count):
        # The first class at or after each of COUNT evenly spaced places that has such a photo.
        for name in names[number * len(names) // args.count :]:
            images = [open_rgb(path) for path in by_class[name]]
            right = (target.answers(images) == target.labels.index(name)).nonzero().flatten().tolist()
            if right:
                break
        source, image = by_class[name][right[0]], images[right[0]]
        truth = torch.tensor([target.labels.index(name)])
        attacked = pgd(target, [to_unit(image)], truth, args.eps / 255, args.steps, 0)
        stem = name.replace(" ", "-")
        shutil.copyfile(source, args.out / f"{stem}{source.suffix}")
        to_image(attacked[0]).save(args.out / f"{stem}-attacked.png", optimize=True)
        lines.append(f"{stem}{source.suffix}\t{stem}-attacked.png\t{name}")
        print(f"{name}: {source.parent.name}/{source.name}")
        origins.append(f"| `{stem}{source.suffix}`, `{stem}-attacked.png` | `{source.parent.name}/{source.name}` |")
    (args.out / "photos.tsv").write_text("\n".join(lines) + "\n")
    attack = f"PGD, ε = {args.eps:g}/255, {args.steps} steps, at its own resolution"
    (args.out / "ATTRIBUTION.md").write_text(ATTRIBUTION.format(attack=attack) + "\n".join(origins) + "\n")


if __name__ == "__main__":
    main()
