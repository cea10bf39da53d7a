"""Writes the goldens of the common corruptions: what `imagecorruptions` makes of an image, and the random numbers it used.

    python3 -m venv models/.venv-corruptions
    models/.venv-corruptions/bin/pip install -r models/requirements-corruptions.txt
    models/.venv-corruptions/bin/pip install --no-deps imagecorruptions==1.1.2
    models/.venv-corruptions/bin/python models/corruption_goldens.py

The package is written for older versions of its dependencies, which is why it has an environment of its own. `frost` is
left out: its photos are not part of rtpt-edge, which generates a texture.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")
import imagecorruptions.corruptions as package  # noqa: E402
from imagecorruptions import corrupt, get_corruption_names  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
SIZE = (35, 33)


def test_image(width, height):
    """Smooth colour with edges, noise, black and white."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / (5 + 3 * c) + c) * np.cos(y / (7 + 2 * c)) for c in range(3)]
    pixels = np.stack(waves, 2) + rng.normal(0, 8, (height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 90)
    pixels[:4, :6] = 0
    pixels[-4:, -6:] = 255
    return pixels.clip(0, 255).astype(np.uint8)


def rounded(values):
    """As the golden file keeps them: in single precision."""
    return np.float64(np.float32(values))


class Recorder:
    """Stands in for numpy's random functions and keeps what they gave, in units that do not depend on the call."""

    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)
        self.values = []

    def keep(self, units, result):
        self.values.append(np.asarray(units, np.float64).ravel())
        return result

    def normal(self, loc=0.0, scale=1.0, size=None):
        units = rounded(self.rng.normal(size=size))
        return self.keep(units, loc + scale * units)

    def uniform(self, low=0.0, high=1.0, size=None):
        units = rounded(self.rng.uniform(size=size))
        return self.keep(units, low + (high - low) * units)

    def poisson(self, lam):
        counts = self.rng.poisson(lam)
        return self.keep(counts, counts)

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        places = self.rng.randint(0, high - low, size=size)
        return self.keep(places, low + places)

    def random(self, size=None):
        return self.uniform(size=size)


def gaussian(image, sigma, multichannel=False, **options):
    """scikit-image's function under the argument that the package knows."""
    return GAUSSIAN(image, sigma, channel_axis=-1 if multichannel else None, **options)


GAUSSIAN, package.gaussian = package.gaussian, gaussian


def main():
    image = test_image(*SIZE)
    tensors, cases = {"image": image}, []
    originals = {name: getattr(np.random, name) for name in ("normal", "uniform", "poisson", "randint", "default_rng")}
    for number, name in enumerate(get_corruption_names()):
        if name == "frost":
            continue
        for severity in (4,):
            recorder = Recorder(100 * number + severity)
            for function in ("normal", "uniform", "poisson", "randint"):
                setattr(np.random, function, getattr(recorder, function))
            np.random.default_rng = lambda *_: recorder
            result = corrupt(image, corruption_name=name, severity=severity)
            for function, original in originals.items():
                setattr(np.random, function, original)
            case = f"{name.replace('_', '-')}-{severity}"
            cases.append(case)
            tensors[case] = np.asarray(result, np.uint8)
            if recorder.values:
                tensors[f"{case}.draws"] = np.concatenate(recorder.values).astype(np.float32)
    metadata = {"made_by": "models/corruption_goldens.py, imagecorruptions 1.1.2", "cases": json.dumps(cases)}
    save_file(tensors, GOLDEN / "corruptions.safetensors", metadata)
    print(len(cases), "corruption goldens,", sum(t.nbytes for t in tensors.values()), "bytes")


if __name__ == "__main__":
    main()
