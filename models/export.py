"""Exports a CLIP checkpoint as a bundle with PyTorch's goldens in it: both towers, ViT or ModifiedResNet.

    models/.venv/bin/python models/export.py transformers FOLDER --out DIR
    models/.venv/bin/python models/export.py openai ViT-B-32.pt --out DIR
    models/.venv/bin/python models/export.py open_clip ViT-B-32 --checkpoint open_clip_model.safetensors --out DIR

Checkpoints are files on this machine: nothing is downloaded. `rtpt bundle check DIR` then shows that the device computes
what PyTorch does. `rtpt bundle import` does much the same without Python, given the vision model in ONNX.
"""

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, CLIPModel, CLIPTextModelWithProjection

from bundle import TextPart, write_bundle
from demo_model import CLIP_MEAN, CLIP_STD, open_rgb
from plain_attention import without_fused_attention

# Merges that OpenAI's vocabulary uses, after the first line of the file.
MERGES = 49152 - 256 - 2


class VisionEmbedding(nn.Module):
    """The vision tower of a `transformers` CLIP: pixels to embeddings, or to what the projection is applied to."""

    def __init__(self, model, pooled=False):
        super().__init__()
        self.vision, self.projection, self.pooled = model.vision_model, model.visual_projection, pooled

    def forward(self, pixel_values):
        output = self.vision(pixel_values=pixel_values)
        if self.pooled:
            return output.last_hidden_state, output.pooler_output
        return self.projection(output.pooler_output)


def export_vision(model, resolution, path, pooled=False):
    """The vision tower of a `transformers` CLIP as ONNX, with the names model hubs use: `image_embeds`, or
    `last_hidden_state` and `pooler_output`."""
    outputs = ["last_hidden_state", "pooler_output"] if pooled else ["image_embeds"]
    torch.onnx.export(
        VisionEmbedding(model, pooled).eval(),
        (torch.zeros(2, 3, resolution, resolution),),
        str(path),
        input_names=["pixel_values"],
        output_names=outputs,
        dynamic_axes={name: {0: "batch_size"} for name in ["pixel_values", *outputs]},
        opset_version=17,
        dynamo=False,
    )


@dataclass
class Exported:
    """What a bundle needs of a checkpoint."""

    tower: nn.Module
    resolution: int
    mean: tuple
    std: tuple
    scale: float
    text: TextPart


def stored(tensors, half):
    return {name: (value.half() if half else value.float()) for name, value in tensors.items()}


def from_transformers(args):
    """A folder that `CLIPModel.from_pretrained` reads."""
    folder = Path(args.checkpoint_or_name)
    model = CLIPModel.from_pretrained(folder, attn_implementation="eager", torch_dtype=torch.float32).eval()
    text, vision = model.config.text_config, model.config.vision_config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tower = CLIPTextModelWithProjection(text).eval()
    tower.load_state_dict({name: value for name, value in model.state_dict().items() if name.startswith("text_")})
    weights = {name: value for name, value in tower.state_dict().items() if value.is_floating_point()}
    activations = {"quick_gelu": "quick-gelu", "gelu": "gelu"}
    if half := args.half:
        tower = tower.half().float()
    part = TextPart(
        weights=stored(weights, half),
        tokenizer=("tokenizer.json", tokenizer.backend_tokenizer.to_str().encode()),
        sizes={
            "layers": text.num_hidden_layers,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocabulary": text.vocab_size,
            "activation": activations[text.hidden_act],
        },
        tokens=lambda texts: [tokenizer(text)["input_ids"] for text in texts],
        embed=lambda texts: tower(**tokenizer(texts, padding=True, return_tensors="pt")).text_embeds,
    )
    mean, std = CLIP_MEAN, CLIP_STD
    if (folder / "preprocessor_config.json").exists():
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        mean, std = processor.get("image_mean", mean), processor.get("image_std", std)
    return Exported(VisionEmbedding(model), vision.image_size, mean, std, model.logit_scale.exp().item(), part)


def from_open_clip_model(model, half):
    """A CLIP of OpenCLIP's classes, which also hold OpenAI's checkpoints."""
    model = model.float().eval()
    if not isinstance(model, open_clip.model.CLIP):
        raise SystemExit(f"export.py: {type(model).__name__} has another text tower than CLIP's own")
    resblocks = model.transformer.resblocks
    gelu = {"QuickGELU": "quick-gelu", "GELU": "gelu"}[type(resblocks[0].mlp.gelu).__name__]
    own = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
    weights = {name: value for name, value in model.state_dict().items() if name.startswith(own)}
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    lines = gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = "".join(f"{line}\n" for line in lines[: MERGES + 1]).encode()
    if half:
        for name, value in model.named_parameters():
            if name.startswith(own):
                value.data = value.data.half().float()
    part = TextPart(
        weights=stored(weights, half),
        tokenizer=("merges.txt", merges),
        sizes={
            "layers": len(resblocks),
            "width": model.token_embedding.weight.shape[1],
            "heads": resblocks[0].attn.num_heads,
            "context_length": model.context_length,
            "vocabulary": model.token_embedding.weight.shape[0],
            "activation": gelu,
        },
        tokens=lambda texts: [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts],
        embed=lambda texts: model.encode_text(tokenizer(texts)),
    )
    size = model.visual.image_size
    resolution = size[0] if isinstance(size, (tuple, list)) else size
    mean = getattr(model.visual, "image_mean", None) or CLIP_MEAN
    std = getattr(model.visual, "image_std", None) or CLIP_STD
    tower = without_fused_attention(model.visual)
    return Exported(tower, resolution, tuple(mean), tuple(std), model.logit_scale.exp().item(), part)


def from_openai(args):
    """OpenAI's `.pt` files, TorchScript archives or state dicts."""
    path = args.checkpoint_or_name
    try:
        state = torch.jit.load(path, map_location="cpu").eval().state_dict()
    except RuntimeError:
        state = torch.load(path, map_location="cpu", weights_only=True)
    model = open_clip.openai.build_model_from_openai_state_dict(state, cast_dtype=torch.float32)
    return from_open_clip_model(model, args.half)


def from_open_clip(args):
    """An OpenCLIP architecture by name, its weights from a file."""
    if not args.checkpoint:
        raise SystemExit("export.py: open_clip needs --checkpoint FILE")
    model = open_clip.create_model(args.checkpoint_or_name, pretrained=str(args.checkpoint), precision="fp32")
    return from_open_clip_model(model, args.half)


def drawn_image():
    """For the goldens, where no photo is given: waves and edges, not square."""
    y, x = np.mgrid[0:220, 0:300]
    waves = [127 + 120 * np.sin(x / (15 + 9 * c) + c) * np.cos(y / (21 + 6 * c)) for c in range(3)]
    pixels = np.stack(waves, 2)
    pixels[50:110, 100:150] = (250, 20, 90)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@torch.no_grad()
def class_embeddings(text, names, context):
    """`{name: unit embedding}` of `"{context} {name}."`."""
    prompts = [f"{context} {name.replace('_', ' ')}." for name in names]
    rows = [row for start in range(0, len(prompts), 64) for row in text.embed(prompts[start : start + 64])]
    return {name: nn.functional.normalize(row, dim=0) for name, row in zip(names, rows)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["transformers", "openai", "open_clip"])
    parser.add_argument("checkpoint_or_name", help="a folder, a .pt file, or OpenCLIP's name of an architecture")
    parser.add_argument("--checkpoint", type=Path, help="OpenCLIP's weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="default labels, one a line")
    parser.add_argument("--image", type=Path, help="a non-square photo for the goldens")
    parser.add_argument("--context", default="a photo of a")
    parser.add_argument("--augment", choices=["crop", "augmix"], default="augmix")
    parser.add_argument("--half", action="store_true", help="store the text tower in f16, which loses nothing of OpenAI's own")
    parser.add_argument("--name")
    parser.add_argument("--license", default="not stated")
    args = parser.parse_args()
    kinds = {"transformers": from_transformers, "openai": from_openai, "open_clip": from_open_clip}
    exported = kinds[args.kind](args)
    labels = [line.strip() for line in args.labels.read_text().splitlines() if line.strip()] if args.labels else None
    name = args.name or Path(args.checkpoint_or_name).stem
    write_bundle(
        args.out,
        name=name,
        description=f"Exported from {Path(args.checkpoint_or_name).name} ({args.kind}).",
        license=args.license,
        tower=exported.tower,
        resolution=exported.resolution,
        mean=exported.mean,
        std=exported.std,
        scale=exported.scale,
        classes=class_embeddings(exported.text, labels, args.context) if labels else None,
        labels=labels,
        image=open_rgb(args.image) if args.image else drawn_image(),
        text=exported.text,
        context=args.context,
        augment=args.augment,
    )


if __name__ == "__main__":
    main()
