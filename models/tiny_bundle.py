"""Writes tests/data/tiny: a bundle with random weights, small enough to run hundreds of times in the tests.

    models/.venv/bin/python models/tiny_bundle.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bundle import write_bundle
from goldens import test_image

RESOLUTION, EMBEDDING = 16, 8


def tiny_tower():
    """Two convolutions and a projection; random weights see colours and edges well enough to tell images apart."""
    torch.manual_seed(7)
    tower = nn.Sequential(
        nn.Conv2d(3, 12, 5, 3, 2),
        nn.Tanh(),
        nn.Conv2d(12, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 9, EMBEDDING),
    )
    # A value the tests can find in the file and spoil.
    tower[-1].bias.data[0] = 0.15625
    return tower.eval()


def main():
    tower = tiny_tower()
    names = ["red", "sea horse", "yin yang", "watch", "umbrella"]
    table = F.normalize(torch.randn(len(names), EMBEDDING), dim=1)
    write_bundle(
        Path(__file__).parent.parent / "tests" / "data" / "tiny",
        name="tiny",
        description="Random weights, for tests.",
        license="MIT OR Apache-2.0",
        tower=tower,
        resolution=RESOLUTION,
        scale=20.0,
        classes=dict(zip(names, table)),
        labels=names[:4],
        image=test_image(37, 23, 11),
        views=16,
        head="class-shift",
    )


if __name__ == "__main__":
    main()
