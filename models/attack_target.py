"""A bundle as an attacker sees it: its image tower in PyTorch, with a gradient from pixels to answers."""

import json
import math

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx2torch import convert
from safetensors import safe_open
from torch.utils.checkpoint import checkpoint

from demo_model import clip_crop, clip_size, preprocess_u8
from text_tower import TextTower

# Views whose intermediates are in memory together where an attack has many: 0.11 GB each for the everyday bundle.
VIEWS_AT_ONCE = 24
# Standard deviation of the gate's low pass (pixels), and the pixels to either side that it takes, as in src/views/low_pass.rs: the spectrum is
# exp(-r² / (2 σ²)), r in cycles a picture and σ = 40 · R / 224 (CSR, ICML 2026).
DEVIATION, REACH = 224 / (80 * math.pi), 4
# dbd's parameters as published (arXiv 2606.06186); a bundle may have its own.
DBD = {"selection": 0.25, "lambda": 2.5, "bound": 0.8}


def in_floats(model):
    """The ONNX model with its int8 weights, one scale a row, as floats: what DequantizeLinear makes of them."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        rows, scales = (onnx.numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input[:2])
        weights = rows * scales.reshape(-1, *[1] * (rows.ndim - 1))
        graph.initializer.append(onnx.numpy_helper.from_array(weights, node.output[0]))
        graph.node.remove(node)
    return model


def low_pass(pixels):
    """Pixels `[N, 3, R, R]` without their fine detail: convolved with the gate's Gaussian, the edges continued."""
    places = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    weights = torch.exp(-places.square() / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).float().expand(3, 1, 1, -1)
    padded = F.pad(pixels, (REACH,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)


class Target:
    """A bundle as the attacker sees it: `[N, 3, R, R]` pixels in 0–1 to logits `[N, C]`, with a gradient.

    The labels are the bundle's if those have all of `names`, else `names`, embedded by its text tower.
    """

    def __init__(self, bundle, names=()):
        manifest = json.loads((bundle / "manifest.json").read_text())
        image = manifest["image"]
        if image.get("projection") or image.get("output"):
            raise SystemExit(f"{bundle}: export the model with `models/export.py`; an imported projection is not handled here")
        with safe_open(bundle / manifest["classes"]["file"], "pt") as file:
            known = json.loads(file.metadata()["names"])
            table = F.normalize(file.get_tensor("embeddings").float(), dim=1)
        lines = (bundle / manifest["classes"]["default_labels"]).read_text().splitlines()
        # What stands before a tab on several lines is a group; of the bundles that this is for, none has identifiers.
        pairs = [(line.split("\t")[0], line.split("\t")[-1]) for line in lines]
        self.labels = list(dict.fromkeys(label for label, _ in pairs))
        if all(name in self.labels for name in names):
            self.table = table[[known.index(member) for _, member in pairs]]
            self.of = torch.tensor([self.labels.index(label) for label, _ in pairs])
        else:
            self.labels = list(names)
            self.table = TextTower(bundle, manifest).classes([f"{manifest['prompt']['context']} {{}}."], self.labels)
            self.of = torch.arange(len(names))
        head = manifest.get("head", {})
        self.dbd = DBD | {key: head[key] for key in DBD if head.get("default") == "dbd" and key in head}
        self.resolution, self.scale = image["resolution"], manifest["logit_scale"]
        self.mean, self.std = (torch.tensor(image[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.tower = convert(in_floats(onnx.load(bundle / image["file"]))).eval().requires_grad_(False)

    def features(self, pixels):
        """Unit features `[N, D]`."""
        return F.normalize(self.tower((pixels - self.mean) / self.std), dim=1)

    def features_in_parts(self, pixels):
        """The same in bounded memory: of more views than VIEWS_AT_ONCE, intermediates are computed again for the gradient."""
        if len(pixels) <= VIEWS_AT_ONCE:
            return self.features(pixels)
        return torch.cat([checkpoint(self.features, part, use_reentrant=False) for part in pixels.split(VIEWS_AT_ONCE)])

    def logits_of(self, features):
        return self.of_labels(self.scale * features @ self.table.T)

    def of_labels(self, logits):
        """The labels' logits `[N, C]` from those of the table's rows: a group's probability is the sum of its members'."""
        largest = logits.amax(1, keepdim=True).detach()
        sums = torch.zeros(len(logits), len(self.labels)).index_add(1, self.of, (logits - largest).exp())
        return sums.clamp(min=1e-30).log() + largest

    def logits(self, pixels):
        return self.logits_of(self.features(pixels))

    def clean_view(self, photo):
        """`[3, H, W]` in 0–1 to the clean view `[3, R, R]`, with a gradient."""
        width, height = clip_size(photo.shape[2], photo.shape[1], self.resolution)
        if (height, width) != tuple(photo.shape[1:]):
            photo = F.interpolate(photo[None], (height, width), mode="bicubic", antialias=True)[0]
        left, top = clip_crop(width, height, self.resolution)
        return photo[:, top : top + self.resolution, left : left + self.resolution]

    def clean_views(self, photos):
        return torch.stack([self.clean_view(photo) for photo in photos])

    def clean_logits(self, photos):
        return self.logits(self.clean_views(photos))

    def views_of(self, images):
        """The clean views `[N, 3, R, R]` of images in bytes, as the program makes them."""
        return torch.stack([preprocess_u8(image, self.resolution) for image in images]).float() / 255

    @torch.no_grad()
    def answers(self, images):
        return self.logits(self.views_of(images)).argmax(1)

    @torch.no_grad()
    def gate(self, images):
        """What the gate looks at: the cosines `[N]` of the clean views' features with the low-passed ones', and whether both have the same answer."""
        views = self.views_of(images)
        clean, passed = self.features(views), self.features(low_pass(views))
        return (clean * passed).sum(1), self.logits_of(clean).argmax(1) == self.logits_of(passed).argmax(1)
