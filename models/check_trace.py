"""Recomputes every stage of an `rtpt trace` in PyTorch from the traced views, and says how far each is off.

    rtpt trace PHOTO -o t.safetensors && models/.venv/bin/python models/check_trace.py t.safetensors --bundle DIR

The encoder runs in onnxruntime, tuning in torch autograd with torch.optim.AdamW.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors import safe_open

from goldens import reliability

TOLERANCES = {"features": 1e-4, "logits": 1e-3, "weights": 1e-3, "tuned_logits": 1e-3, "prediction": 1e-3}

ENTROPY_TOLERANCE = 1e-4


def check_selection(entropies, selected, count):
    """The traced views must be those of least entropy; two that differ by rounding alone may change places."""
    chosen = entropies[selected]
    others = np.delete(entropies.numpy(), selected.numpy())
    in_order = bool((chosen.diff() >= -ENTROPY_TOLERANCE).all())
    least = len(others) == 0 or chosen.max().item() <= others.min() + ENTROPY_TOLERANCE
    if len(set(selected.tolist())) != count or not in_order or not least:
        raise SystemExit(f"check_trace.py: {selected.tolist()} are not the {count} views of least entropy")


def recompute(traced, settings, model):
    """All stages after the views, in f32, from the views, the class embeddings and the settings."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    embeddings = session.run(None, {session.get_inputs()[0].name: traced["views"].numpy()})[0]
    features = F.normalize(torch.from_numpy(embeddings), dim=1)
    classes, scale = traced["classes"], float(settings["logit_scale"])
    logits = scale * features @ classes.T
    entropy = lambda z: -(z.softmax(1) * z.log_softmax(1)).sum(1)
    count = max(1, int(len(features) * float(settings["selection"])))
    check_selection(entropy(logits), traced["selected"], count)
    selected = traced["selected"]
    tuned = logits
    if settings["head"] == "class-shift":
        shift = torch.zeros_like(classes, requires_grad=True)
        optimizer = torch.optim.AdamW(
            [shift],
            float(settings["learning_rate"]),
            betas=(float(settings["beta1"]), float(settings["beta2"])),
            eps=float(settings["epsilon"]),
            weight_decay=float(settings["weight_decay"]),
        )
        forward = lambda: scale * features @ F.normalize(classes + shift, dim=1).T
        for _ in range(int(settings["steps"])):
            optimizer.zero_grad()
            entropy(forward()[selected]).mean().backward()
            optimizer.step()
        tuned = forward().detach()
    weights = reliability(features)
    stages = {"features": features, "logits": logits, "weights": weights, "tuned_logits": tuned}
    return stages | {"prediction": weights @ tuned}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path, required=True)
    args = parser.parse_args()
    manifest = json.loads((args.bundle / "manifest.json").read_text())
    worst = dict.fromkeys(TOLERANCES, 0.0)
    for path in args.traces:
        with safe_open(path, "pt") as file:
            traced = {name: file.get_tensor(name) for name in file.keys()}
            settings = file.metadata()
        stages = recompute(traced, settings, args.bundle / manifest["image"]["file"])
        for name, value in stages.items():
            difference = (value - traced[name]).abs().max().item()
            worst[name] = max(worst[name], difference) if np.isfinite(difference) else float("nan")
    for name, difference in worst.items():
        print(f"{name:12} largest difference {difference:.2e}, tolerance {TOLERANCES[name]:.0e}")
    if any(not worst[name] <= TOLERANCES[name] for name in worst):
        raise SystemExit(f"check_trace.py: {len(args.traces)} traces do not all agree")
    print(f"{len(args.traces)} traces agree with PyTorch")


if __name__ == "__main__":
    main()
