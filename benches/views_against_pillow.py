"""Time of 64 views against Pillow's, on one thread, by turns in one run:

    views_against_pillow.py RTPT BUNDLE IMAGE…

Pillow makes crops drawn from the same distribution, resized and mirrored; decoding is in neither time. Prints medians (ms) and their ratio. BUNDLE
should be of 224 pixels.
"""

import json
import math
import random
import statistics
import subprocess
import sys
import time

from PIL import Image

VIEWS, TURNS, SIDE = 64, 7, 224


def region(width, height):
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def pillow(image):
    regions = [region(*image.size) for _ in range(VIEWS)]
    began = time.perf_counter()
    for place, box in enumerate(regions):
        view = image.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if place % 2:
            view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return (time.perf_counter() - began) * 1e3


def ours(rtpt, bundle, path, augment):
    command = [rtpt, "classify", "--json", "--bundle", bundle, "--views", str(VIEWS), "--threads", "1", "--augment", augment, "--cache", "off"]
    # The first meets memory that the system has yet to give.
    found = subprocess.run([*command, *[path] * 4], capture_output=True, text=True, check=True)
    return statistics.median(json.loads(line)["timings_ms"]["views"] for line in found.stdout.splitlines()[1:])


def main():
    rtpt, bundle, *paths = sys.argv[1:]
    random.seed(0)
    for path in paths:
        image = Image.open(path).convert("RGB")
        times = {"pillow": [], "crop": [], "augmix": []}
        for _ in range(TURNS):
            times["pillow"].append(pillow(image))
            times["crop"].append(ours(rtpt, bundle, path, "crop"))
            times["augmix"].append(ours(rtpt, bundle, path, "augmix"))
        median = {name: statistics.median(of) for name, of in times.items()}
        print(
            f"{image.size[0]}×{image.size[1]}: Pillow {median['pillow']:.1f}, crop {median['crop']:.1f} ({median['crop'] / median['pillow']:.2f} ×), "
            f"augmix {median['augmix']:.1f} ({median['augmix'] / median['crop']:.2f} × crop)"
        )


main()
