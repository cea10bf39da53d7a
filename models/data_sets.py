"""The image sets the demo model is trained and measured on: folders of images, one folder a class."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from demo_model import open_rgb

def read_class_names(path):
    """`{folder: class}` of a file with a folder's name, a tab and its class in each line."""
    lines = Path(path).read_text().splitlines()
    return dict(line.split("\t") for line in lines if line and not line.startswith("#"))


# `Faces` and `Faces_easy` show the same class, as in the class list of the R-TPT data sets, which has one "face".
CALTECH_NAMES = read_class_names(Path(__file__).parent / "demo/caltech101-folders.tsv")
CLOTHING_NAMES = {
    "longsleeve": "long sleeve shirt",
    "outwear": "jacket",
    "t-shirt": "t-shirt",
}


def class_name(folder, renamed):
    return renamed.get(folder, folder.replace("_", " "))


def list_folder(root, renamed):
    """`[(path, class name)]`, sorted, of a folder with one folder per class."""
    root = Path(root)
    items = [
        (path, class_name(folder.name, renamed))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    if not items:
        raise SystemExit(f"{root}: no images in folders of one class each; see models/README.md for the layout")
    return items


def open_square(source, side):
    """An image squashed to `side`×`side` with its aspect ratio: what a whole batch can be cropped from at once."""
    image = open_rgb(source)
    ratio = image.width / image.height
    pixels = torch.frombuffer(bytearray(image.resize((side, side), Image.BICUBIC).tobytes()), dtype=torch.uint8)
    return pixels.view(side, side, 3).permute(2, 0, 1).contiguous(), ratio


class ImageSet:
    """Images decoded once into memory: `pixels [N, 3, side, side]` u8, `ratios [N]` width/height, `labels [N]`."""

    def __init__(self, sources, names, side):
        self.names = sorted(set(names))
        index = {name: position for position, name in enumerate(self.names)}
        self.labels = torch.tensor([index[name] for name in names])
        with ThreadPoolExecutor(2) as pool:
            opened = list(pool.map(lambda source: open_square(source, side), sources))
        self.pixels = torch.stack([pixels for pixels, _ in opened])
        self.ratios = torch.tensor([ratio for _, ratio in opened], dtype=torch.float32)

    @classmethod
    def folder(cls, root, renamed, side):
        items = list_folder(root, renamed)
        return cls([path for path, _ in items], [name for _, name in items], side)

    @classmethod
    def archive(cls, path, side):
        """A tar of `…/class name/file` members."""
        sources, names = [], []
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                    sources.append(BytesIO(archive.extractfile(member).read()))
                    names.append(Path(member.name).parent.name)
        return cls(sources, names, side)
