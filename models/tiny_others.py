"""Writes tests/data/tiny-mobileclip and tests/data/tiny-siglip: small random models as OpenCLIP's folders have them, whose text towers are not CLIP's.

    models/.venv/bin/python models/tiny_others.py

`tests/golden/tiny-others.safetensors` has what open_clip's towers, tokenizers and preprocessing make of one image and some texts.
"""

import json
import shutil
from io import BytesIO

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from check_import import sentence_pieces
from goldens import GOLDEN
from text_goldens import toy_value_of
from tiny_clip import DATA, NAMES, write_tokenizer

SIDE, WIDTH, EMBEDDING = 24, 16, 8
# What open_clip's own configurations and published weights say of such models, with small sizes.
MODELS = {
    "tiny-mobileclip": {
        "text": {"context_length": 40, "no_causal_mask": True},
        "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"},
    },
    "tiny-siglip": {
        "text": {
            "context_length": 40,
            "vocab_size": 300,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
            "mlp_ratio": 3.7362,
        },
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
        "bias": -10.0,
    },
}


def vision_tower():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 12, 5, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12 * 36, EMBEDDING)).eval()


def text_tower(text):
    config = open_clip.model.CLIPTextCfg(width=WIDTH, heads=2, layers=2, **text)
    tower = open_clip.model._build_text_tower(EMBEDDING, config.__dict__).eval()
    tower.load_state_dict({name: toy_value_of(f"text.{name}", tuple(value.shape)) if value.is_floating_point() and value.ndim and "attn_mask" not in name else value
                           for name, value in tower.state_dict().items()})  # fmt: skip
    return tower


@torch.no_grad()
def main():
    results = {}
    image = Image.open(BytesIO(load_file(GOLDEN / "decoding.safetensors")["rgb.png.file"].tobytes())).convert("RGB")
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    for name, model in MODELS.items():
        folder = DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "onnx").mkdir(parents=True)
        text = dict(model["text"])
        if "hf_tokenizer_name" in text:
            sentence_pieces(folder, text["vocab_size"], is_gemma=False)
            tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length=text["context_length"], **text["tokenizer_kwargs"])
            tokens = tokenizer(texts)
        else:
            tokenizer = write_tokenizer(folder)
            text["vocab_size"] = len(tokenizer)
            tokens = torch.zeros(len(texts), text["context_length"], dtype=torch.long)
            for row, found in zip(tokens, (tokenizer(text)["input_ids"] for text in texts)):
                row[: len(found)] = torch.tensor(found)
        tower, vision = text_tower(text), vision_tower()
        state = {f"text.{key}": value for key, value in tower.state_dict().items() if value.is_floating_point() and "attn_mask" not in key}
        state["logit_scale"] = torch.tensor(3.0)
        if "bias" in model:
            state["logit_bias"] = torch.tensor(model["bias"])
        save_file({key: np.ascontiguousarray(value.numpy()) for key, value in state.items()}, folder / "open_clip_model.safetensors")
        config = {"embed_dim": EMBEDDING, "custom_text": True, "vision_cfg": {"image_size": SIDE}, "text_cfg": {**text, "width": WIDTH, "heads": 2, "layers": 2}}
        if "bias" in model:
            config["init_logit_bias"] = model["bias"]
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": model["preprocessing"]}, indent=2))
        torch.onnx.export(vision, (torch.zeros(2, 3, SIDE, SIDE),), str(folder / "onnx" / "vision_model.onnx"), input_names=["pixel_values"],
                          output_names=["image_embeds"], dynamic_axes={"pixel_values": {0: "N"}, "image_embeds": {0: "N"}}, opset_version=17, dynamo=False)  # fmt: skip
        preprocess = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=SIDE, **model["preprocessing"]), is_train=False)
        view = preprocess(image)
        found = {"view": view, "features": F.normalize(vision(view[None]), dim=1), "classes": F.normalize(tower(tokens), dim=1)}
        results |= {f"{name}.{part}": np.ascontiguousarray(value.numpy()) for part, value in found.items()}
    metadata = {"made_by": f"models/tiny_others.py, open_clip {open_clip.__version__}", "names": json.dumps(NAMES)}
    save_file(results, GOLDEN / "tiny-others.safetensors", metadata)
    print({key: value.shape for key, value in results.items()})


if __name__ == "__main__":
    main()
