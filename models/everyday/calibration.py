"""Lists training photos of what the everyday bundle's default labels have, as a data set for `rtpt calibrate`.

    models/.venv/bin/python models/everyday/calibration.py --data DATA > calibration.csv
"""

import argparse
import sys
from pathlib import Path

from labels import members

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_sets import CALTECH_NAMES, CLOTHING_NAMES, list_folder  # noqa: E402

# Photos of a class.
COUNT = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    known, taken = set(members()), {}
    print("path,label")
    for folder, names in (("caltech101/train", CALTECH_NAMES), ("clothing/train", CLOTHING_NAMES)):
        for path, name in list_folder(args.data / folder, names):
            taken[name] = taken.get(name, 0) + 1
            if name in known and taken[name] <= COUNT:
                print(f"{path.resolve()},{name}")


if __name__ == "__main__":
    main()
