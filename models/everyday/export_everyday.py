"""Exports the trained everyday model as a bundle, in f32 and f16; `rtpt bundle quantize` makes the small one of it.

    models/.venv/bin/python models/everyday/export_everyday.py --checkpoint WORK/everyday.pt --work WORK --image PHOTO --out WORK/bundle
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import efficientnet_lite  # noqa: E402
from bundle import write_bundle  # noqa: E402
from demo_model import END, Shape, TextTower, open_rgb  # noqa: E402
from export_demo import text_part  # noqa: E402
from features import tower  # noqa: E402
from labels import groups, members  # noqa: E402
from space import Space  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402
from train import LITE, PROMPT, embedded, photo_sets  # noqa: E402

# Factors on cosines that are tried.
SCALES = range(8, 81)
# What labels by photos count beside texts, to which photos are less alike than to one another.
EXAMPLE_WEIGHT = 0.7
# The default method and those of its parameters that are not the published ones: the mean over half of the other views, and a long step where they agree
# more. Chosen on attacked photos of ImageNet's and Caltech-101's classes, checked on others (MODEL_CARD.md).
METHOD, SETTINGS = "dbd", {"selection": 0.5, "bound": 0.84}


class ImageTower(nn.Module):
    """`[N, 3, R, R]` pixels less the mean, by the deviation, to `[N, D]` embeddings of the space, not yet of unit length."""

    def __init__(self, space):
        super().__init__()
        self.tower = tower(LITE)
        width = space.image.shape[1] + 1
        self.projection = nn.Linear(len(space.mean), width)
        with torch.no_grad():
            self.projection.weight.zero_()
            self.projection.weight[:-1] = torch.from_numpy(space.image.T)
            self.projection.bias[:-1] = torch.from_numpy(-space.mean @ space.image)
            self.projection.bias[-1] = space.none

    def forward(self, x):
        return self.projection(self.tower.features(x))


def fitted_scale(text, tokenizer, space, work):
    """The factor on cosines under which the clean views of CIFAR-10's training photos are most likely what they are. The photos of the other sets are known too
    well by a tower that has learned them: theirs would be half as much again, and too sure of photos that it has not seen."""
    [(features, labels, names)] = photo_sets(work, ["cifar10"]).values()
    cosines = torch.from_numpy(space.images(features[:, 0]) @ embedded(text, tokenizer, names).T)
    losses = torch.stack([functional.cross_entropy(scale * cosines, torch.from_numpy(labels)) for scale in SCALES])
    return float(SCALES[losses.argmin()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="the folder of what features.py wrote")
    parser.add_argument("--image", type=Path, required=True, help="a non-square photo for the bundle's goldens")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    kept = torch.load(args.checkpoint, weights_only=False)
    shape, space, tokenizer = Shape(**kept["shape"]), Space(**kept["space"]), Tokenizer.from_str(kept["tokenizer"])
    text = TextTower(shape)
    text.load_state_dict(kept["text"])
    text.end = tokenizer.token_to_id(END)
    # The tower is stored in half precision; the classes come from the same rounded weights.
    text.half().float()
    names = list(dict.fromkeys(members()))
    classes = dict(zip(names, torch.from_numpy(embedded(text, tokenizer, names))))
    image = open_rgb(args.image)
    if image.width == image.height:
        raise SystemExit(f"{args.image} is square; a square golden cannot show a wrong crop, choose another")
    write_bundle(
        args.out,
        name="everyday",
        description="EfficientNet-Lite2 in the space of a small text tower: a few hundred everyday things, and any other words.",
        license="Apache-2.0 (weights of the image tower), MIT OR Apache-2.0 (the rest): MODEL_CARD.md",
        tower=ImageTower(space),
        resolution=shape.resolution,
        scale=fitted_scale(text, tokenizer, space, args.work),
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
        classes=classes,
        labels=names,
        groups="".join(f"{name}\t{member}\n" if members != [name] else f"{name}\n" for name, members in groups() for member in members),
        image=image,
        text=text_part(text, tokenizer, shape, pretty=False),
        context=PROMPT.split(" {}")[0],
        views=16,
        augment="crop",
        half_classes=True,
        example_weight=EXAMPLE_WEIGHT,
        head=METHOD,
        settings=SETTINGS,
    )


if __name__ == "__main__":
    main()
