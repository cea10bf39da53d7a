"""Writes tests/data/tiny-clip: a random CLIP as `transformers` saves one, with its vision model in ONNX, for the tests.

    models/.venv/bin/python models/tiny_clip.py

`tests/golden/tiny-clip.safetensors` has what PyTorch makes of one image and some texts. The tokenizer is OpenAI's with
its first 86 merges.
"""

import gzip
import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from export import export_vision
from goldens import GOLDEN
from text_goldens import toy_value_of, toy_values

DATA = GOLDEN.parent / "data"
MERGES = 86
NAMES = ["dog", "sea horse", "red_car", "ÉCOLE", "cup"]


def write_tokenizer(folder):
    lines = gzip.open(DATA / "clip-bpe" / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = lines[1 : MERGES + 1]
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in ["#version: 0.2", *merges]))
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}, ensure_ascii=False))
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def main():
    torch.manual_seed(0)
    folder = DATA / "tiny-clip"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "onnx").mkdir(parents=True)
    tokenizer = write_tokenizer(folder)
    text = dict(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=40, eos_token_id=len(tokenizer) - 1, bos_token_id=len(tokenizer) - 2)  # fmt: skip
    vision = dict(hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    config._attn_implementation = "eager"
    model = CLIPModel(config).eval()
    state = model.state_dict()
    made = {}
    for name, value in state.items():
        shape = tuple(value.shape)
        if not value.is_floating_point() or not shape:
            made[name] = value
        elif name.endswith("class_embedding") or "patch_embedding" in name:
            made[name] = toy_values(name, shape, 0.3)
        else:
            made[name] = toy_value_of(name, shape)
    made["logit_scale"] = torch.tensor(3.0)
    model.load_state_dict(made)
    model.save_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor.save_pretrained(folder)
    export_vision(model, 24, folder / "onnx" / "vision_model.onnx")
    export_vision(model, 24, folder / "onnx" / "vision_model_pooled.onnx", pooled=True)
    image = Image.open(BytesIO(load_file(GOLDEN / "decoding.safetensors")["rgb.png.file"].tobytes())).convert("RGB")
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        features = F.normalize(model.get_image_features(pixel_values=pixels), dim=1)
        classes = F.normalize(model.get_text_features(**tokens), dim=1)
    results = {"view": pixels[0], "features": features, "classes": classes}
    metadata = {"made_by": f"models/tiny_clip.py, transformers {transformers.__version__}", "names": json.dumps(NAMES)}
    save_file({name: np.ascontiguousarray(value.numpy()) for name, value in results.items()}, GOLDEN / "tiny-clip.safetensors", metadata)
    print(sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()))


if __name__ == "__main__":
    main()
