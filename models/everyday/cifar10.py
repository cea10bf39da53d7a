"""Writes photos of CIFAR-10 that training did not see, a folder a class: the last of each class in the archive, of which `features.py` takes the first.

    models/.venv/bin/python models/everyday/cifar10.py --data DATA --out FOLDER
"""

import argparse
import tarfile
from collections import defaultdict
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    arguments = parser.parse_args()
    archive = tarfile.open(arguments.data / "cifar10-train.tar.gz")
    of_class = defaultdict(list)
    for member in archive:
        if member.isfile():
            of_class[Path(member.name).parts[-2]].append((Path(member.name).name, archive.extractfile(member).read()))
    for label, photos in of_class.items():
        folder = arguments.out / label
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in photos[-arguments.count :]:
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
