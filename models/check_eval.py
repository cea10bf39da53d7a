"""Evaluates an `rtpt eval --save-features` again by the formulas in PyTorch, and compares the accuracies.

    rtpt eval clean=PHOTOS --report REPORT --save-features
    models/.venv/bin/python models/check_eval.py REPORT --bundle models/demo/bundle

The same features, labels and settings go through `methods.py`. An answer may differ where two classes are equal but for
rounding; how many do is printed, and an accuracy that is off by more than 0.2 points is an error.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

import methods
from text_goldens import encode
from text_tower import TextTower

TOLERANCE = 0.002


def context_of(bundle, plan):
    """θ at the start, and the unit class embeddings of a θ, for the head `context`."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    tower = TextTower(bundle, manifest)
    ids, count = tower.context_ids(plan["prompt"][0], plan["labels"])
    start = tower.model.text_model.embeddings.token_embedding.weight[ids[0, 1 : 1 + count]]
    return lambda: (start.clone(), lambda theta: encode(tower.model, ids, theta))


def check(report, name, bundle):
    """The methods whose accuracy is off, for one condition."""
    plan, *records = (json.loads(line) for line in (report / f"{name}.jsonl").read_text().splitlines())
    with safe_open(report / f"{name}.safetensors", "pt") as file:
        features, truths, classes = (file.get_tensor(part) for part in ("features", "truths", "classes"))
        scale = float(file.metadata()["logit_scale"])
    records = {record["index"]: record for record in records}
    context = context_of(bundle, plan) if any(one["method"] == "context" for one in plan["methods"]) else None
    off = []
    for place, method in enumerate(plan["methods"]):
        # Each has its own parameters; those of dbd are not among the settings that the others share.
        given = dict(method)
        name_of_method = given.pop("method")
        of_dbd = {"step": given.pop("lambda"), "bound": given.pop("bound")} if name_of_method == "dbd" else {}
        given.pop("class_cutoff", None)
        settings = replace(methods.Settings.of(name_of_method), **given)
        right = different = ours = 0
        for index, rows in enumerate(features):
            start = context() if name_of_method == "context" else None
            if of_dbd:
                result = methods.dbd(rows, classes, scale, settings, **of_dbd)
            else:
                result = methods.run(name_of_method, rows, classes, scale, settings, start)
            answer = result.prediction.argmax().item()
            recorded = records[index]["results"][place]
            right += answer == truths[index].item()
            ours += recorded["rank"] == 0
            different += answer != recorded["answer"]
        count = len(features)
        print(f"{name:10} {name_of_method:14} PyTorch {right / count:6.1%}  rtpt {ours / count:6.1%}  other answers {different}")
        if abs(right - ours) > TOLERANCE * count:
            off.append(name_of_method)
    return off


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--bundle", type=Path, required=True)
    args = parser.parse_args()
    names = sorted(path.stem for path in args.report.glob("*.safetensors"))
    if not names:
        raise SystemExit(f"check_eval.py: {args.report} has no features; run rtpt eval with --save-features")
    off = {name: check(args.report, name, args.bundle) for name in names}
    if any(off.values()):
        raise SystemExit(f"check_eval.py: accuracies differ: {off}")
    print("all accuracies agree with PyTorch")


if __name__ == "__main__":
    main()
