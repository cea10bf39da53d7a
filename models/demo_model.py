"""The demo model: a small CLIP-style dual encoder, its tokenizer and its preprocessing.

The text tower has CLIP's structure (Radford et al. 2021, section 2.4: pre-norm, causal attention, QuickGELU, the
hidden state at [EOT] projected) and its parameters carry the names of Hugging Face's `CLIPTextModelWithProjection`.
The image tower is a basic-block ResNet (He et al. 2016), small enough to train on a CPU.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; stored in the checkpoint and in the bundle's manifest."""

    resolution: int = 80
    embedding: int = 128
    image_widths: tuple = (32, 64, 128, 256)
    image_blocks: tuple = (2, 4, 2)
    vocabulary: int = 1024
    context_length: int = 40
    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 4


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ImageTower(nn.Module):
    """`[N, 3, R, R]` normalised pixels to `[N, D]` embeddings, not yet L2-normalised."""

    def __init__(self, shape):
        super().__init__()
        stem, *widths = shape.image_widths
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks, inputs = [], stem
        for width, count in zip(widths, shape.image_blocks):
            for index in range(count):
                blocks.append(BasicBlock(inputs, width, 2 if index == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Linear(inputs, shape.embedding, bias=False)

    def forward(self, x):
        return self.projection(self.blocks(self.stem(x)).mean((2, 3)))


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x)), is_causal=True
        )
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class TextLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn, self.mlp = SelfAttention(width, heads), Mlp(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextTower(nn.Module):
    """Token ids `[C, L]`, padded with [EOT], to `[C, D]` embeddings, not yet L2-normalised."""

    def __init__(self, shape):
        super().__init__()
        width = shape.text_width
        embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(shape.vocabulary, width),
                "position_embedding": nn.Embedding(shape.context_length, width),
            }
        )
        layers = nn.ModuleList(TextLayer(width, shape.text_heads) for _ in range(shape.text_layers))
        self.text_model = nn.ModuleDict(
            {
                "embeddings": embeddings,
                "encoder": nn.ModuleDict({"layers": layers}),
                "final_layer_norm": nn.LayerNorm(width),
            }
        )
        self.text_projection = nn.Linear(width, shape.embedding, bias=False)
        nn.init.normal_(embeddings["token_embedding"].weight, std=0.02)
        nn.init.normal_(embeddings["position_embedding"].weight, std=0.01)
        self.end = 1  # set from the tokenizer

    def forward(self, ids):
        embeddings = self.text_model["embeddings"]
        x = embeddings["token_embedding"](ids) + embeddings["position_embedding"].weight[: ids.shape[1]]
        for layer in self.text_model["encoder"]["layers"]:
            x = layer(x)
        x = self.text_model["final_layer_norm"](x)
        first_end = (ids == self.end).int().argmax(1)
        return self.text_projection(x[torch.arange(len(x)), first_end])


class DualEncoder(nn.Module):
    def __init__(self, shape, scale=30.0):
        super().__init__()
        self.image, self.text = ImageTower(shape), TextTower(shape)
        self.logit_scale = nn.Parameter(torch.tensor(float(np.log(scale))))


def train_tokenizer(corpus, vocabulary):
    """A CLIP-style BPE: lower case, CLIP's split pattern, byte level, `</w>` ends a word."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=(END, end), cls=(START, start), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def encode_texts(tokenizer, texts, context_length):
    """Token ids `[C, L]`, padded with [EOT] to the longest text; a text that does not fit is an error."""
    end = tokenizer.token_to_id(END)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for text, row in zip(texts, rows):
        if len(row) > context_length:
            raise ValueError(f"{text!r} has {len(row)} tokens, the context length is {context_length}")
    longest = max(map(len, rows))
    return torch.tensor([row + [end] * (longest - len(row)) for row in rows])


def open_rgb(path):
    """An image as CLIP reads it: RGB, an alpha channel dropped (`convert`, as in CLIP's reference preprocessing)."""
    return Image.open(path).convert("RGB")


def clip_size(width, height, resolution):
    """Size after resizing the short side to `resolution`, as torchvision computes it."""
    if width <= height:
        return resolution, int(resolution * height / width)
    return int(resolution * width / height), resolution


def clip_crop(width, height, resolution):
    """Left and top of the centre crop, as torchvision rounds them."""
    return int(round((width - resolution) / 2.0)), int(round((height - resolution) / 2.0))


def preprocess_u8(image, resolution):
    """CLIP's preprocessing up to bytes: `[3, R, R]` u8."""
    image = image.resize(clip_size(*image.size, resolution), Image.BICUBIC)
    left, top = clip_crop(*image.size, resolution)
    image = image.crop((left, top, left + resolution, top + resolution))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalize(pixels):
    """`[..., 3, H, W]` in 0–1 to CLIP's mean and deviation."""
    mean = torch.tensor(CLIP_MEAN).view(3, 1, 1)
    std = torch.tensor(CLIP_STD).view(3, 1, 1)
    return (pixels - mean) / std


def load_checkpoint(path):
    """The trained model in evaluation mode, its shape, tokenizer and data sets' class names."""
    saved = torch.load(path, weights_only=False)
    shape = Shape(**saved["shape"])
    model = DualEncoder(shape)
    model.load_state_dict(saved["model"])
    tokenizer = Tokenizer.from_str(saved["tokenizer"])
    model.text.end = tokenizer.token_to_id(END)
    return model.eval(), shape, tokenizer, saved["names"]
