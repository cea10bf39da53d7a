"""Writes a bundle folder: encoder, text tower, classes, labels, goldens and the manifest that records them all."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from blake3 import blake3
from safetensors.numpy import save_file

from demo_model import CLIP_MEAN, CLIP_STD, normalize, preprocess_u8

FORMAT = 1


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
def golden_results(tower, image, resolution, table, scale):
    """What PyTorch makes of the golden image: clean view, unit features and logits."""
    view = normalize(preprocess_u8(image, resolution).float() / 255)
    features = F.normalize(tower(view[None]), dim=1)
    return {
        "image": np.array(image.convert("RGB")),
        "view": view.numpy(),
        "features": features.numpy(),
        "logits": (scale * features @ table.T).numpy(),
    }


def write_bundle(folder, *, name, description, license, tower, resolution, scale, classes, labels, image, text=None,
                 context="a photo of a", views=64, augment="augmix", head="class-shift"):
    """Writes all files; `classes` maps names to unit embeddings, `labels` are the default ones, `text` is
    `(text module, tokenizer, shape)` or nothing; its weights are stored in half precision."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    names = list(classes)
    table = torch.stack([classes[name] for name in names]).float()
    export_image_tower(tower, resolution, folder / "image_encoder.onnx")
    save_file({"embeddings": table.numpy()}, folder / "classes.safetensors", {"names": json.dumps(names)})
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    chosen = torch.stack([classes[label] for label in labels]).float()
    goldens = golden_results(tower, image, resolution, chosen, scale)
    save_file({key: np.ascontiguousarray(value) for key, value in goldens.items()}, folder / "goldens.safetensors")
    section = None
    if text:
        module, tokenizer, shape = text
        weights = {key: value.half().numpy() for key, value in module.state_dict().items()}
        save_file(weights, folder / "text_encoder.safetensors")
        tokenizer.save(str(folder / "tokenizer.json"))
        section = {
            "file": "text_encoder.safetensors",
            "tokenizer": "tokenizer.json",
            "layers": shape.text_layers,
            "width": shape.text_width,
            "heads": shape.text_heads,
            "context_length": shape.context_length,
            "vocabulary": shape.vocabulary,
            "activation": "quick-gelu",
        }
    record = lambda path: {"size": path.stat().st_size, "blake3": blake3(path.read_bytes()).hexdigest()}
    manifest = {
        "format": FORMAT,
        "name": name,
        "description": description,
        "license": license,
        "embedding": table.shape[1],
        "logit_scale": scale,
        "image": {
            "file": "image_encoder.onnx",
            "resolution": resolution,
            "mean": CLIP_MEAN,
            "std": CLIP_STD,
            "interpolation": "bicubic",
        },
        "text": section,
        "prompt": {"context": context},
        "classes": {"file": "classes.safetensors", "default_labels": "labels.txt"},
        "views": {"count": views, "augment": augment},
        "head": {"default": head, "steps": 1, "selection": 0.1, "learning_rate": 0.005, "weight_decay": 0.01},
        "goldens": "goldens.safetensors",
        "files": {path.name: record(path) for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB, {len(names)} classes, {len(labels)} labels")
