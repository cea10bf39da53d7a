"""Counts right answers in the JSON lines of `rtpt classify --json`, the truth being the name of a photo's folder.

    rtpt classify --json DATA/caltech101/test | models/.venv/bin/python models/score.py
"""

import json
import sys
from math import sqrt
from pathlib import Path

from data_sets import CALTECH_NAMES, class_name


def wilson(right, count, z=1.96):
    """Wilson's 95 % interval of a proportion."""
    p, square = right / count, z * z / count
    center, spread = p + square / 2, z * sqrt(p * (1 - p) / count + square / (4 * count))
    return (center - spread) / (1 + square), (center + spread) / (1 + square)


def main():
    records = [json.loads(line) for line in sys.stdin]
    failed = [record for record in records if "error" in record]
    good = [record for record in records if "error" not in record]
    if not good:
        raise SystemExit("score.py: no classified image on standard input")
    truth = [class_name(Path(record["path"]).parent.name, CALTECH_NAMES) for record in good]
    kinds = {
        "zero-shot": [record["zero_shot"]["label"] for record in good],
        good[0]["head"]: [record["label"] for record in good],
    }
    for kind, answers in kinds.items():
        right = sum(a == b for a, b in zip(answers, truth))
        low, high = wilson(right, len(good))
        print(f"{kind:12} {right}/{len(good)} right, {right / len(good):.1%} ({low:.1%} to {high:.1%})")
    if failed:
        print(f"{len(failed)} not classified, the first: {failed[0]['path']}: {failed[0]['error']['message']}")


if __name__ == "__main__":
    main()
