"""Writes tests/data/tiny-mobileclip and tests/data/tiny-siglip: small random models as OpenCLIP's folders have them, whose text towers are not CLIP's.

    models/.venv/bin/python models/tiny_others.py

`tests/golden/tiny-others.safetensors` has what open_clip's towers, tokenizers and preprocessing make of one image and some texts.
"""

import json
import shutil
import string
from io import BytesIO

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import CLIPTokenizerFast, SiglipConfig, SiglipImageProcessorFast, SiglipModel
from transformers.image_utils import PILImageResampling

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


def save_closed(tower, length):
    """The tiny MobileCLIP once more, as folders for browsers have it: both towers in ONNX, and nothing that says what they are made of."""
    folder = DATA / "tiny-closed"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "onnx").mkdir(parents=True)
    write_tokenizer(folder)
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!", model_max_length=length).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    shutil.copy(DATA / "tiny-mobileclip" / "onnx" / "vision_model.onnx", folder / "onnx")
    square = {"height": SIDE, "width": SIDE}
    processor = {"crop_size": square, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True,
                 "image_processor_type": "CLIPFeatureExtractor", "resample": 2, "rescale_factor": 1 / 255, "size": {"shortest_edge": SIDE}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    torch.backends.mha.set_fastpath_enabled(False)
    torch.onnx.export(tower, (torch.zeros(2, length, dtype=torch.long),), str(folder / "onnx" / "text_model.onnx"), input_names=["input_ids"],
                      output_names=["text_embeds"], dynamic_axes={"input_ids": {0: "N", 1: "L"}, "text_embeds": {0: "N"}}, opset_version=17, dynamo=False)  # fmt: skip


def siglip_of_transformers(image, texts):
    """A SigLIP as `transformers` saves one, with the vision model's pooled output in ONNX."""
    name = "tiny-siglip-transformers"
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "onnx").mkdir(parents=True)
    sentence_pieces(folder, 300, is_gemma=False)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "SiglipTokenizer"}))
    sizes = dict(hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
    model = SiglipModel(SiglipConfig(text_config=dict(**sizes, vocab_size=300, max_position_embeddings=40), vision_config=dict(**sizes, image_size=SIDE, patch_size=8)))
    model.set_attn_implementation("eager")
    state = {key: toy_value_of(key, tuple(value.shape)) if value.ndim else value for key, value in model.state_dict().items() if value.is_floating_point()}
    model.load_state_dict(state | {"logit_scale": torch.tensor([3.0]), "logit_bias": torch.tensor([-10.0])}, strict=False)
    model.eval().save_pretrained(folder)
    processor = SiglipImageProcessorFast(size={"height": SIDE, "width": SIDE}, resample=PILImageResampling.BICUBIC)
    processor.save_pretrained(folder)
    torch.onnx.export(Pooled(model), (torch.zeros(2, 3, SIDE, SIDE),), str(folder / "onnx" / "vision_model.onnx"), input_names=["pixel_values"],
                      output_names=["last_hidden_state", "pooler_output"], opset_version=17, dynamo=False,
                      dynamic_axes={key: {0: "N"} for key in ("pixel_values", "last_hidden_state", "pooler_output")})  # fmt: skip
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # As SiglipTokenizer, which is no fast one, cleans texts.
    cleaned = [" ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split()) for text in texts]
    padding = tokenizer.token_to_id("</s>")
    tokens = torch.tensor([(ids := tokenizer.encode(text).ids) + [padding] * (40 - len(ids)) for text in cleaned])
    view = processor(image, return_tensors="pt")["pixel_values"]
    features, classes = model.get_image_features(pixel_values=view), model.get_text_features(input_ids=tokens)
    found = {"view": view[0], "features": F.normalize(features, dim=1), "classes": F.normalize(classes, dim=1)}
    return {f"{name}.{part}": np.ascontiguousarray(value.numpy()) for part, value in found.items()}


class Pooled(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.vision = model.vision_model

    def forward(self, pixel_values):
        output = self.vision(pixel_values=pixel_values)
        return output.last_hidden_state, output.pooler_output


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
        if name == "tiny-mobileclip":
            save_closed(tower, text["context_length"])
    results |= siglip_of_transformers(image, texts)
    metadata = {"made_by": f"models/tiny_others.py, open_clip {open_clip.__version__}", "names": json.dumps(NAMES)}
    save_file(results, GOLDEN / "tiny-others.safetensors", metadata)
    print({key: value.shape for key, value in results.items()})


if __name__ == "__main__":
    main()
