"""Recomputes every stage of an `rtpt trace` in PyTorch from the traced views, and says how far each is off.

    rtpt trace PHOTO -o t.safetensors && models/.venv/bin/python models/check_trace.py t.safetensors --bundle DIR

The encoder runs in onnxruntime, the text tower in `transformers`, tuning in torch autograd with torch.optim.AdamW. Class
embeddings are recomputed where the bundle has a text tower, and are the start of the tuning then.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

import methods
from text_goldens import encode
from text_tower import TextTower

TOLERANCES = {"classes": 1e-4, "features": 1e-4, "logits": 1e-3, "weights": 1e-3, "tuned_logits": 1e-3, "prediction": 1e-3}

ENTROPY_TOLERANCE = 1e-4


def check_selection(entropies, selected, count):
    """The traced views must be those of least entropy; two that differ by rounding alone may change places."""
    chosen = entropies[selected]
    others = np.delete(entropies.numpy(), selected.numpy())
    in_order = bool((chosen.diff() >= -ENTROPY_TOLERANCE).all())
    least = len(others) == 0 or chosen.max().item() <= others.min() + ENTROPY_TOLERANCE
    if len(set(selected.tolist())) != count or not in_order or not least:
        raise SystemExit(f"check_trace.py: {selected.tolist()} are not the {count} views of least entropy")


def image_features(bundle, manifest, views):
    """Unit features of the views by onnxruntime, and by the projection that a bundle may have beside the model."""
    image = manifest["image"]
    session = onnxruntime.InferenceSession(str(bundle / image["file"]), providers=["CPUExecutionProvider"])
    output = [image["output"]] if image.get("output") else None
    name = session.get_inputs()[0].name
    rows = [session.run(output, {name: chunk.numpy()})[0] for chunk in views.split(8)]
    features = torch.from_numpy(np.concatenate(rows))
    if image.get("projection"):
        features = features @ load_file(bundle / image["projection"])["projection"].T
    return F.normalize(features, dim=1)


def context_parameters(tower, settings):
    """The context's token embeddings at the start, and what makes unit class embeddings of them."""
    template = json.loads(settings["prompt"])[0]
    ids, count = tower.context_ids(template, json.loads(settings["labels"]))
    start = tower.model.text_model.embeddings.token_embedding.weight[ids[0, 1 : 1 + count]]
    return start.clone(), lambda theta: encode(tower.model, ids, theta)


def recompute(traced, settings, bundle, manifest):
    """All stages after the views, in f32, from the views and the settings."""
    features = image_features(bundle, manifest, traced["views"])
    stages = {"features": features}
    classes, scale, tower = traced["classes"], float(settings["logit_scale"]), None
    if manifest["text"]:
        tower = TextTower(bundle, manifest)
        classes = tower.classes(json.loads(settings["prompt"]), json.loads(settings["labels"]))
        stages["classes"] = classes
    context = context_parameters(tower, settings) if settings["method"] == "context" else None
    tuning = methods.Settings.of(settings["method"])
    tuning.betas, tuning.epsilon = (float(settings["beta1"]), float(settings["beta2"])), float(settings["epsilon"])
    # A trace has the parameters that its method has.
    for name, kind in [("steps", int), ("learning_rate", float), ("selection", float), ("rank", int), ("weight_decay", float)]:
        if name in settings:
            setattr(tuning, name, kind(settings[name]))
    result = methods.run(settings["method"], features, classes, scale, tuning, context)
    if "selection" in settings and settings["method"] != "dbd":
        count = max(1, int(len(features) * tuning.selection))
        check_selection(methods.entropy(result.logits), traced["selected"], count)
    stages |= {"logits": result.logits, "weights": result.weights, "tuned_logits": result.tuned}
    return stages | {"prediction": result.prediction}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--tolerance-scale", type=float, default=1.0, help="for logits; 10 at CLIP's logit scale of 100")
    args = parser.parse_args()
    manifest = json.loads((args.bundle / "manifest.json").read_text())
    # Large logit scales magnify rounding.
    scale = args.tolerance_scale
    tolerances = {name: tolerance * (scale if "logits" in name or name == "prediction" else 1) for name, tolerance in TOLERANCES.items()}
    worst = dict.fromkeys(TOLERANCES, 0.0)
    for path in args.traces:
        with safe_open(path, "pt") as file:
            traced = {name: file.get_tensor(name) for name in file.keys()}
            settings = file.metadata()
        stages = recompute(traced, settings, args.bundle, manifest)
        if stages["prediction"].argmax() != traced["prediction"].argmax():
            raise SystemExit(f"check_trace.py: {path}: another answer than PyTorch's")
        for name, value in stages.items():
            # No votes at all are -inf on both sides.
            difference = (value - traced[name]).nan_to_num(0, posinf=torch.inf).abs().max().item()
            worst[name] = max(worst[name], difference) if np.isfinite(difference) else float("nan")
    for name, difference in worst.items():
        print(f"{name:12} largest difference {difference:.2e}, tolerance {tolerances[name]:.0e}")
    if any(not worst[name] <= tolerances[name] for name in worst):
        raise SystemExit(f"check_trace.py: {len(args.traces)} traces do not all agree")
    print(f"{len(args.traces)} traces agree with PyTorch")


if __name__ == "__main__":
    main()
