"""Writes a bundle folder: encoder, text tower, classes, labels, goldens and the manifest that records them all."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from blake3 import blake3
from safetensors.numpy import save_file

import methods
from demo_model import CLIP_MEAN, CLIP_STD, preprocess_u8

FORMAT = 1
GOLDEN_TEXTS = ["a photo of a dog.", "a photo of two red cars, at night.", "St. Bernard's café №5!"]


@dataclass
class TextPart:
    """A text tower as a bundle stores it, and as PyTorch runs it."""

    weights: dict  # tensors, named as Hugging Face's CLIPTextModelWithProjection or as OpenAI's CLIP
    tokenizer: tuple  # file name and bytes
    sizes: dict  # layers, width, heads, context_length, vocabulary, activation
    tokens: Callable  # texts to lists of tokens, start and end included
    embed: Callable  # texts to [N, D]
    golden_texts: list = field(default_factory=lambda: list(GOLDEN_TEXTS))


def export_image_tower(tower, resolution, path):
    """ONNX with a free batch; rtpt fixes the batch when it loads the file."""
    torch.onnx.export(
        tower.eval(),
        (torch.zeros(2, 3, resolution, resolution),),
        str(path),
        input_names=["pixels"],
        output_names=["embedding"],
        dynamic_axes={"pixels": {0: "N"}, "embedding": {0: "N"}},
        opset_version=17,
        dynamo=False,
    )


@torch.no_grad()
def golden_results(tower, image, resolution, mean, std, table, scale, text):
    """What PyTorch makes of the golden image and texts: clean view, unit features, logits, tokens; and the metadata."""
    pixels = preprocess_u8(image, resolution).float() / 255
    view = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    features = F.normalize(tower(view[None]), dim=1)
    results = {"image": np.array(image.convert("RGB")), "view": view.numpy(), "features": features.numpy()}
    metadata = None
    if table is not None:
        results["logits"] = (scale * features @ table.T).numpy()
    if text:
        rows = text.tokens(text.golden_texts)
        longest = max(map(len, rows))
        results["text_tokens"] = np.array([row + [-1] * (longest - len(row)) for row in rows], np.int64)
        results["text_features"] = F.normalize(text.embed(text.golden_texts), dim=1).float().numpy()
        metadata = {"texts": json.dumps(text.golden_texts)}
    return results, metadata


def write_bundle(folder, *, name, description, license, tower, resolution, scale, image, classes=None, labels=None, text=None,
                 groups=None, mean=CLIP_MEAN, std=CLIP_STD, context="a photo of a", views=64, augment="augmix", head="view-shift",
                 half_classes=False, example_weight=None, settings=None):
    """Writes all files; `classes` maps names to unit embeddings, kept in half precision if `half_classes`, `labels` are the
    default ones, `groups` is their file's text where some are groups, `text` is a TextPart, `example_weight` what a label's
    photos count beside texts, `settings` those of the head's parameters that are not the published ones. A bundle needs classes or a text tower."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    export_image_tower(tower, resolution, folder / "image_encoder.onnx")
    chosen = section = None
    if classes:
        names = list(classes)
        table = torch.stack([classes[name] for name in names]).to(torch.float16 if half_classes else torch.float32)
        chosen = torch.stack([table[names.index(label)] for label in labels]).float()
        save_file({"embeddings": table.numpy()}, folder / "classes.safetensors", {"names": json.dumps(names)})
        (folder / "labels.txt").write_text(groups or "".join(f"{label}\n" for label in labels))
    goldens, metadata = golden_results(tower, image, resolution, mean, std, chosen, scale, text)
    goldens = {key: np.ascontiguousarray(value) for key, value in goldens.items()}
    save_file(goldens, folder / "goldens.safetensors", metadata)
    if text:
        save_file({key: value.contiguous().numpy() for key, value in text.weights.items()}, folder / "text_encoder.safetensors")
        (folder / text.tokenizer[0]).write_bytes(text.tokenizer[1])
        section = {"file": "text_encoder.safetensors", "tokenizer": text.tokenizer[0], **text.sizes}
    record = lambda path: {"size": path.stat().st_size, "blake3": blake3(path.read_bytes()).hexdigest()}
    tuning = methods.Settings.of(head)
    manifest = {
        "format": FORMAT,
        "name": name,
        "description": description,
        "license": license,
        "embedding": goldens["features"].shape[1],
        "logit_scale": scale,
        "image": {
            "file": "image_encoder.onnx",
            "resolution": resolution,
            "mean": list(mean),
            "std": list(std),
            "interpolation": "bicubic",
        },
        "text": section,
        "prompt": {"context": context},
        "classes": {"file": "classes.safetensors", "default_labels": "labels.txt"} if classes else None,
        "views": {"count": views, "augment": augment},
        **({"examples": {"weight": example_weight}} if example_weight else {}),
        "head": {
            "default": head,
            "steps": tuning.steps,
            "selection": tuning.selection,
            "learning_rate": tuning.learning_rate,
            "weight_decay": tuning.weight_decay,
            **(settings or {}),
        },
        "goldens": "goldens.safetensors",
        "files": {path.name: record(path) for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB, {len(classes or [])} classes, {len(labels or [])} labels")
