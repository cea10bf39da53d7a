"""Encoders of the same shapes here, in onnxruntime and in PyTorch, by turns in one run:

    compare.py RTPT FOLDER [--models NAME…] [--threads N…] [--rounds N] [--views N]

FOLDER has what export.py made. Bundles are made of it with RTPT's own `bundle import` and `bundle quantize`. Of every encoder the time of 64 views is
measured once a round, one after the other, so that all see the same machine; the medians (s) are printed, and ratios to onnxruntime's best batch.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy
import onnxruntime
import torch

BATCHES = (1, 8)


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


def bundles(rtpt, folder, name):
    """The model as a bundle in f32 and in int8, with class embeddings without meaning: times do not depend on them."""
    whole, small = folder / f"{name}-bundle", folder / f"{name}-bundle-int8"
    if not whole.exists():
        width = onnxruntime.InferenceSession(folder / f"{name}.onnx").get_outputs()[0].shape[1]
        classes = numpy.random.default_rng(1).normal(size=(100, width)).astype("f4")
        classes /= numpy.linalg.norm(classes, axis=1, keepdims=True)
        numpy.save(folder / f"{name}-classes.npy", classes)
        (folder / "names.txt").write_text("".join(f"class {number}\n" for number in range(100)))
        source = folder / f"{name}-source"
        source.mkdir(exist_ok=True)
        run(
            rtpt, "bundle", "import", source, "-o", whole, "--image-onnx", folder / f"{name}.onnx", "--classes", folder / f"{name}-classes.npy",
            "--names", folder / "names.txt", "--logit-scale", 100, "--resolution", side(folder / f"{name}.onnx"),
        )
    if not small.exists():
        run(rtpt, "bundle", "quantize", whole, "-o", small, "--max-deviation", 0.05)
    return {"rtpt f32": whole, "rtpt int8": small}


def side(path):
    """Pixels of an encoder's image along each axis."""
    return onnxruntime.InferenceSession(path).get_inputs()[0].shape[2]


class Ours:
    def __init__(self, rtpt, bundle, threads, views):
        self.command = [rtpt, "bench", "--bundle", bundle, "--threads", threads, "--views", views, "--augment", "crop", "--repeat", 1, "--json"]

    def seconds(self):
        stages = json.loads(run(*self.command))["stages"]
        return next(stage["median_ms"] for stage in stages if stage["stage"] == "encode") / 1e3


class Onnxruntime:
    def __init__(self, path, threads, views, batch):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = {self.session.get_inputs()[0].name: noise(batch, self.session.get_inputs()[0].shape[2])}
        self.runs = views // batch
        self.session.run(None, self.input)

    def seconds(self):
        began = time.perf_counter()
        for _ in range(self.runs):
            self.session.run(None, self.input)
        return time.perf_counter() - began


class PyTorch:
    def __init__(self, path, threads, views, pixels):
        self.threads, self.model, self.views = threads, torch.jit.load(path).eval(), torch.from_numpy(noise(views, pixels))

    def seconds(self):
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            began = time.perf_counter()
            self.model(self.views)
            return time.perf_counter() - began


def noise(count, pixels):
    return numpy.random.default_rng(0).normal(0, 1, (count, 3, pixels, pixels)).astype("f4")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rtpt", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="*", default=["vit-b-32", "vit-b-16", "rn50", "lite0", "demo"])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--views", type=int, default=64)
    arguments = parser.parse_args()
    views = arguments.views
    print(f"onnxruntime {onnxruntime.__version__}, PyTorch {torch.__version__}, {views} views, medians of {arguments.rounds}, s")
    print("| model | threads | rtpt f32 | ort f32 | ratio | PyTorch | rtpt int8 | ort int8 | ratio | best to best |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        ours = bundles(arguments.rtpt, arguments.folder, name)
        for threads in arguments.threads:
            runners = {kind: Ours(arguments.rtpt, bundle, threads, views) for kind, bundle in ours.items()}
            runners["torch"] = PyTorch(str(arguments.folder / f"{name}.pt"), threads, views, side(arguments.folder / f"{name}.onnx"))
            for kind, path in [("f32", f"{name}.onnx"), ("int8", f"{name}-int8.onnx")]:
                for batch in BATCHES:
                    runners[f"ort {kind} {batch}"] = Onnxruntime(arguments.folder / path, threads, views, batch)
            times = {kind: [] for kind in runners}
            for _ in range(arguments.rounds):
                for kind, runner in runners.items():
                    times[kind].append(runner.seconds())
            median = {kind: statistics.median(of) for kind, of in times.items()}
            best = {kind: min((median[f"ort {kind} {batch}"], batch) for batch in BATCHES) for kind in ("f32", "int8")}
            (f32, f32_batch), (int8, int8_batch) = best["f32"], best["int8"]
            of_best = min(median["rtpt f32"], median["rtpt int8"]) / min(f32, int8)
            print(
                f"| {name} | {threads} | {median['rtpt f32']:.3f} | {f32:.3f} (batch {f32_batch}) | {median['rtpt f32'] / f32:.2f} "
                f"| {median['torch']:.3f} | {median['rtpt int8']:.3f} | {int8:.3f} (batch {int8_batch}) | {median['rtpt int8'] / int8:.2f} | {of_best:.2f} |",
                flush=True,
            )


main()
