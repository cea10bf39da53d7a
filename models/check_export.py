"""Exports and imports randomly initialised CLIPs of the true shapes, and compares rtpt with PyTorch on each.

    models/.venv/bin/python models/check_export.py --rtpt target/release/rtpt --work /tmp/shapes

It takes minutes and about 3 GB of disk for each shape.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

from export import MERGES, drawn_image, export_vision

HERE = Path(__file__).parent
LABELS = ["dog", "sea horse", "grand piano", "two red cars at night", "St. Bernard", "école", "stop sign", "watch", "cup", "hammerhead shark"]
VIT = {"vit-b-32": 32, "vit-b-16": 16}


def run(*command):
    print("$", " ".join(map(str, command)), flush=True)
    subprocess.run(command, check=True)


def save_tokenizer(folder):
    """vocab.json, merges.txt and tokenizer.json as model hubs have them."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(source).read().decode().split("\n")[1 : MERGES + 1]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    tokens = symbols + [f"{symbol}</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in ["#version: 0.2", *merges]))
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def save_vit(folder, patch):
    torch.manual_seed(1)
    config = CLIPConfig(vision_config={"patch_size": patch})
    config._attn_implementation = "eager"
    model = CLIPModel(config).eval()
    model.logit_scale.data.fill_(np.log(100.0))
    model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "onnx").mkdir()
    export_vision(model, 224, folder / "onnx" / "vision_model.onnx")


def save_rn50(path):
    torch.manual_seed(1)
    model = open_clip.create_model("RN50", precision="fp32")
    # Random batch norms that normalise nothing would let the activations explode.
    model.visual.train()
    with torch.no_grad():
        for _ in range(3):
            model.visual(torch.randn(16, 3, 224, 224))
    model.logit_scale.data.fill_(np.log(100.0))
    torch.save(model.eval().state_dict(), path)


def check(rtpt, bundle, work, views):
    """The bundle's own goldens, then traces of every head against PyTorch."""
    run(rtpt, "bundle", "check", bundle)
    labels, photo = work / "labels.txt", work / "photo.png"
    traces = []
    for head in ["context", "class-lowrank", "class-shift"]:
        trace = work / f"{bundle.name}-{head}.safetensors"
        run(rtpt, "trace", "--bundle", bundle, "--labels", labels, "--head", head, "--views", str(views), photo, "-o", trace)
        traces.append(trace)
    run(sys.executable, HERE / "check_trace.py", *traces, "--bundle", bundle, "--tolerance-scale", "10")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rtpt", type=Path, default=HERE.parent / "target" / "release" / "rtpt")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", choices=[*VIT, "rn50"], default=[*VIT, "rn50"])
    parser.add_argument("--views", type=int, default=64)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    drawn_image().save(args.work / "photo.png")
    for shape in args.shapes:
        source, imported, exported = (args.work / f"{shape}{part}" for part in ["", "-imported", "-exported"])
        for old in [source, imported, exported]:
            shutil.rmtree(old, ignore_errors=True)
        source.mkdir()
        if shape == "rn50":
            save_rn50(source / "RN50.pt")
            run(sys.executable, HERE / "export.py", "openai", source / "RN50.pt", "--out", exported, "--labels", args.work / "labels.txt")
        else:
            save_vit(source, VIT[shape])
            run(args.rtpt, "bundle", "import", source, "-o", imported)
            check(args.rtpt, imported, args.work, args.views)
            run(sys.executable, HERE / "export.py", "transformers", source, "--out", exported)
        check(args.rtpt, exported, args.work, args.views)
    print("all shapes agree with PyTorch")


if __name__ == "__main__":
    main()
