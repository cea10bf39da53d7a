"""Picks photos for a demo and makes their attacked versions.

    models/.venv/bin/python models/demo_photos.py --data DATA --bundle models/demo/bundle --out models/demo/photos
    models/.venv/bin/python models/demo_photos.py --data DATA --bundle BUNDLE --classes models/everyday/photos.tsv --out models/everyday/photos

Without `--classes`, one photo of each of COUNT classes of Caltech-101, spread over the alphabet. Of a class the first photo is taken that zero-shot
classifies rightly while it is clean: a photo that is wrong from the start shows nothing about attacks. What the methods make of a photo has no part in the
choice.
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
<https://doi.org/10.22002/D1.20086>, under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/){more}. All are from the
part that was held out from training.

A file named `-attacked` is a changed copy of the photo beside it ({attack}), under the same licence.
The others are unchanged.

| files | photo |
|---|---|
"""
CLOTHING = """,
and from clothing-dataset-small by Alexey Grigorev, <https://github.com/alexeygrigorev/clothing-dataset-small>, under CC0"""


def spread_over_alphabet(target, data, count):
    """`(label, stem, photos)` of COUNT classes: the first at or after each of as many evenly spaced places that has a photo which is right."""
    by_class = {}
    for path, name in list_folder(data / "caltech101/test", CALTECH_NAMES):
        by_class.setdefault(name, []).append(path)
    names = sorted(by_class)
    for number in range(count):
        for name in names[number * len(names) // count :]:
            if first_right(target, by_class[name], name):
                yield name, name.replace(" ", "-"), by_class[name]
                break


def listed(data, path):
    """`(label, stem, photos)` of the folders in a file."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            folder, label = line.split("\t")
            yield label, label.replace(" ", "-"), sorted((data / folder).iterdir())


def first_right(target, paths, label):
    for path in paths:
        image = open_rgb(path)
        if target.answers([image])[0] == target.labels.index(label):
            return path, image
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=Path, help="lines of a folder below DATA, a tab and its label")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--eps", type=float, default=4)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(0)
    target = Target(args.bundle)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("*"):
        old.unlink()
    origins, more = [], ""
    lines = ["# clean photo, photo attacked with PGD at its own resolution, true label"]
    for label, stem, paths in listed(args.data, args.classes) if args.classes else spread_over_alphabet(target, args.data, args.count):
        found = first_right(target, paths, label)
        if found is None:
            raise SystemExit(f"zero-shot is right on none of the {len(paths)} photos of {label!r}; choose another class")
        source, image = found
        truth = torch.tensor([target.labels.index(label)])
        attacked = pgd(target, [to_unit(image)], truth, args.eps / 255, args.steps, 0)
        shutil.copyfile(source, args.out / f"{stem}{source.suffix}")
        to_image(attacked[0]).save(args.out / f"{stem}-attacked.png", optimize=True)
        lines.append(f"{stem}{source.suffix}\t{stem}-attacked.png\t{label}")
        origin = source.relative_to(args.data)
        more = more or (CLOTHING if origin.parts[0] == "clothing" else "")
        print(f"{label}: {origin}", flush=True)
        origins.append(f"| `{stem}{source.suffix}`, `{stem}-attacked.png` | `{origin.parts[0]}`: `{origin.parent.name}/{origin.name}` |")
    (args.out / "photos.tsv").write_text("\n".join(lines) + "\n")
    attack = f"PGD, ε = {args.eps:g}/255, {args.steps} steps, at its own resolution"
    (args.out / "ATTRIBUTION.md").write_text(ATTRIBUTION.format(attack=attack, more=more) + "\n".join(origins) + "\n")


if __name__ == "__main__":
    main()
