"""The whole R-TPT answer about one photo: rtpt-edge with a ViT-B/32 in int8 and in f32, and the reference's computation in PyTorch, by turns.

    models/.venv/bin/python benches/answer_against_pytorch.py RTPT FOLDER [--threads N…] [--rounds N]

Both have 64 views of 224 px, 100 classes and one exact step on the prompt's context. The reference's code encodes every view four times and the photo
once more, and embeds prompts that are padded (see text_against_pytorch.py); making views is not counted on its side. The towers have CLIP's shapes and
random weights, on which times do not depend. FOLDER keeps the bundles.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from text_against_pytorch import CONTEXT, EMBEDDING, TOKENS, VIEWS, WIDTH, Reference, pytorch_step

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from check_export import save_vit  # noqa: E402

CLASSES, SIDE, ENCODES_A_VIEW = 100, 224, 4


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


def bundles(rtpt, folder):
    source, whole, small = folder / "vit-b-32", folder / "vit-b-32-bundle", folder / "vit-b-32-bundle-int8"
    if not whole.exists():
        source.mkdir(parents=True, exist_ok=True)
        save_vit(source, 32)
        run(rtpt, "bundle", "import", source, "-o", whole)
    if not small.exists():
        run(rtpt, "bundle", "quantize", whole, "-o", small)
    (folder / "labels.txt").write_text("".join(f"thing {number}\n" for number in range(CLASSES)))
    return source, {"f32": whole, "int8": small}


def ours(rtpt, bundle, labels, threads):
    options = ["--labels", labels, "--method", "context", "--views", VIEWS, "--threads", threads, "--repeat", 1, "--json"]
    stages = json.loads(run(rtpt, "bench", "--bundle", bundle, *options))["stages"]
    return next(stage["median_ms"] for stage in stages if stage["stage"] == "total") / 1e3


class Answer:
    """The reference's computation."""

    def __init__(self, source):
        self.images = CLIPModel.from_pretrained(source, attn_implementation="sdpa").eval().vision_model
        self.texts = Reference()
        self.views = torch.randn(VIEWS, 3, SIDE, SIDE)
        self.start = 0.02 * torch.randn(CLASSES, 1, WIDTH)
        self.names = 0.02 * torch.randn(CLASSES, TOKENS - 1 - CONTEXT, WIDTH)
        self.ends = torch.full((CLASSES,), CONTEXT + 4)
        self.features = F.normalize(torch.randn(VIEWS, EMBEDDING), dim=1)

    def seconds(self, threads):
        torch.set_num_threads(threads)
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(ENCODES_A_VIEW):
                self.images(pixel_values=self.views)
            self.images(pixel_values=self.views[:1])
        encoded = time.perf_counter() - began
        return encoded + pytorch_step(self.texts, self.start, self.names, self.ends, self.features)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rtpt", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    source, folders = bundles(arguments.rtpt, arguments.folder)
    reference = Answer(source)
    print(f"PyTorch {torch.__version__}, {VIEWS} views, {CLASSES} classes, medians of {arguments.rounds} rounds, s")
    print("| threads | rtpt int8 | rtpt f32 | reference | ratio to int8 | ratio to f32 |")
    print("|---|---|---|---|---|---|")
    for threads in arguments.threads:
        times = {"int8": [], "f32": [], "reference": []}
        for _ in range(arguments.rounds):
            for kind, folder in folders.items():
                times[kind].append(ours(arguments.rtpt, folder, arguments.folder / "labels.txt", threads))
            times["reference"].append(reference.seconds(threads))
        int8, f32, theirs = (statistics.median(of) for of in times.values())
        print(f"| {threads} | {int8:.2f} | {f32:.2f} | {theirs:.2f} | {theirs / int8:.1f} | {theirs / f32:.1f} |", flush=True)


if __name__ == "__main__":
    main()
