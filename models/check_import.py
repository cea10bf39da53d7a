"""Imports randomly initialised models of the true shapes as model hubs have their folders, and compares rtpt with PyTorch on each.

    models/.venv/bin/python models/check_import.py --work WORK [--models MobileCLIP2-S0 ViT-B-16-SigLIP2 …]

The reference is that of the library whose layout a folder has, open_clip or `transformers`: its preprocessing, its towers, and open_clip's tokenizers. It takes a
minute or two and up to 3 GB of disk for each.
"""

import argparse
import dataclasses
import json
import shutil
import string
import subprocess
from pathlib import Path

import numpy as np
import open_clip
import timm.layers
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast, PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

from check_export import LABELS, save_tokenizer
from export import drawn_image
from plain_attention import without_fused_attention

HERE = Path(__file__).parent
# What the published weights' configurations say of preprocessing (`open_clip/pretrained.py`).
PREPROCESSING = {
    "MobileCLIP": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"},
    "MobileCLIP2-S3": {"interpolation": "bilinear", "resize_mode": "shortest"},
    "MobileCLIP2-S4": {"interpolation": "bilinear", "resize_mode": "shortest"},
    "SigLIP": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    "PE-Core": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
}
OPEN_CLIP = ["MobileCLIP2-S0", "MobileCLIP-B", "MobileCLIP2-S4", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "PE-Core-T-16-384"]

# TinyCLIP-ViT-8M-16-Text-3M, in CLIP's layout.
TINY_CLIP = CLIPConfig(
    text_config={"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 4},
    vision_config={"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 4, "patch_size": 16},
    projection_dim=512,
)
# The Base models of 224 pixels: their shapes are the library's defaults.
SIGLIP, SIGLIP2 = SiglipConfig(), SiglipConfig(text_config={"vocab_size": 256_000})
PROMPTS = [f"a photo of a {label}." for label in LABELS]


def preprocessing_of(name):
    return next((value for key, value in reversed(PREPROCESSING.items()) if key in name), {})


def sentence_pieces(folder, vocabulary, is_gemma):
    """A tokenizer with SigLIP's structure (Unigram, `</s>` behind a text, which also fills it up) or SigLIP 2's (Gemma's BPE with bytes to fall back on,
    `<eos>` and `<pad>`); of its tokens the most are never used."""
    corpus = [f"a photo of a {label}" for label in LABELS] * 20 + ["the quick brown fox jumps over the lazy dog", string.ascii_lowercase] * 5
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] if is_gemma else ["<unk>", "</s>"]
    if is_gemma:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *bytes_], show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in corpus] if is_gemma else corpus, trainer)
    end = special[1]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))])
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    missing = range(len(vocab), vocabulary)
    if is_gemma:
        vocab |= {f"<unused{number}>": number for number in missing}
    else:
        vocab += [[f"<unused{number}>", -100.0] for number in missing]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    padding = special[0] if is_gemma else end
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=padding, unk_token="<unk>", model_max_length=64).save_pretrained(folder)


class Part(torch.nn.Module):
    """One tower of a model, by the function that runs it."""

    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self, given):
        return self.run(given)


def export(folder, name, model, run, example, inputs, output):
    (folder / "onnx").mkdir(exist_ok=True)
    torch.onnx.export(
        Part(model, run).eval(), (example,), str(folder / "onnx" / name), input_names=[inputs], output_names=[output],
        dynamic_axes={inputs: {0: "N"}, output: {0: "N"}}, opset_version=17, dynamo=False,
    )


def spread_texts(parameters):
    """Otherwise texts differ too little to show a mistake."""
    for parameter in parameters:
        if parameter.ndim == 2:
            parameter.mul_(2)


def random_open_clip(name):
    """An OpenCLIP model with random weights, and its configuration."""
    torch.manual_seed(1)
    timm.layers.set_fused_attn(False)
    config = open_clip.get_model_config(name)
    config["vision_cfg"].pop("timm_model_pretrained", None)
    model = open_clip.create_model(name, pretrained=None, precision="fp32")
    # Random batch norms that normalise nothing would let activations explode.
    model.train()
    with torch.no_grad():
        for _ in range(2):
            side = config["vision_cfg"]["image_size"]
            model.visual(torch.randn(4, 3, side, side))
        model.logit_scale.fill_(np.log(100.0))
        spread_texts(model.text.parameters() if hasattr(model, "text") else [])
    return model.eval(), config


def clip_tokenizer(context_length):
    return open_clip.tokenizer.SimpleTokenizer(context_length=context_length)


def open_clip_view(name, side, photo):
    preprocess = dataclasses.replace(open_clip.transform.PreprocessCfg(), size=side, **preprocessing_of(name))
    return open_clip.transform.image_transform_v2(preprocess, is_train=False)(photo)


def unit_features(model, view, tokens):
    """The clean view, its feature and the class embeddings."""
    return {
        "view": view.numpy(),
        "features": F.normalize(model.encode_image(view[None]), dim=1)[0].numpy(),
        "classes": F.normalize(model.encode_text(tokens), dim=1).numpy(),
    }


def open_clip_folder(name, folder, photo):
    """Writes an OpenCLIP model as hubs have it; what open_clip makes of the photo and the prompts."""
    model, config = random_open_clip(name)
    text, side = config["text_cfg"], config["vision_cfg"]["image_size"]
    if "hf_tokenizer_name" in text:
        sentence_pieces(folder, text["vocab_size"], is_gemma=text["vocab_size"] > 100_000)
        tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length=text["context_length"], **text.get("tokenizer_kwargs", {}))
    else:
        save_tokenizer(folder)
        tokenizer = clip_tokenizer(text["context_length"])
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing_of(name)}))
    export(folder, "vision_model.onnx", model, model.visual, torch.zeros(2, 3, side, side), "pixel_values", "image_embeds")
    return unit_features(model, open_clip_view(name, side, photo), tokenizer(PROMPTS))


def both_towers_folder(name, folder, photo):
    """Writes a folder for browsers: both towers in ONNX and no checkpoint, as there are of MobileCLIP."""
    model, config = random_open_clip(name)
    side, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    save_tokenizer(folder)
    CLIPTokenizerFast.from_pretrained(folder, pad_token="!", model_max_length=length).save_pretrained(folder)
    processor = {"do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_normalize": False, "do_rescale": True, "do_resize": True,
                 "image_processor_type": "CLIPImageProcessor", "resample": 2, "rescale_factor": 1 / 255, "size": {"shortest_edge": side}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    export(folder, "vision_model.onnx", model, model.visual, torch.zeros(2, 3, side, side), "pixel_values", "image_embeds")
    tokens = clip_tokenizer(length)(PROMPTS)
    wanted = unit_features(model, open_clip_view(name, side, photo), tokens)
    # This one's tower has no mask, which the plain form leaves out.
    assert config["text_cfg"]["no_causal_mask"]
    without_fused_attention(model.text)
    export(folder, "text_model.onnx", model, model.encode_text, tokens[:2], "input_ids", "text_embeds")
    return wanted


def transformers_folder(config, folder, photo):
    """Writes a CLIP or a SigLIP of `transformers`; what it makes of the photo and the prompts."""
    torch.manual_seed(1)
    is_clip = isinstance(config, CLIPConfig)
    config._attn_implementation = "eager"
    model = (CLIPModel if is_clip else SiglipModel)(config).eval()
    model.logit_scale.fill_(np.log(100.0))
    spread_texts(model.text_model.parameters())
    model.save_pretrained(folder)
    processor = CLIPImageProcessor() if is_clip else SiglipImageProcessor()
    processor.save_pretrained(folder)
    length = config.text_config.max_position_embeddings
    if is_clip:
        save_tokenizer(folder)
        tokenizer = clip_tokenizer(length)
    else:
        is_gemma = config.text_config.vocab_size > 100_000
        sentence_pieces(folder, config.text_config.vocab_size, is_gemma)
        tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length=length, clean="lower" if is_gemma else "canonicalize")
        named = folder / "tokenizer_config.json"
        described = json.loads(named.read_text()) | {"tokenizer_class": "GemmaTokenizer" if is_gemma else "SiglipTokenizer"}
        named.write_text(json.dumps(described))
    model.encode_image = model.get_image_features
    # What fills a text of CLIP's up is not looked at: the tower is causal, and takes the row of the first end.
    model.encode_text = model.get_text_features
    side = config.vision_config.image_size
    export(folder, "vision_model.onnx", model, lambda pixels: model.get_image_features(pixel_values=pixels), torch.zeros(2, 3, side, side), "pixel_values", "image_embeds")
    return unit_features(model, processor(photo, return_tensors="pt")["pixel_values"][0], tokenizer(PROMPTS))


SOURCES = {name: (open_clip_folder, name) for name in OPEN_CLIP} | {
    "TinyCLIP-ViT-8M-16": (transformers_folder, TINY_CLIP),
    "siglip-base-patch16-224": (transformers_folder, SIGLIP),
    "siglip2-base-patch16-224": (transformers_folder, SIGLIP2),
    "mobileclip_s1": (both_towers_folder, "MobileCLIP-S1"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rtpt", type=Path, default=HERE.parent / "target" / "release" / "rtpt")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    photo, labels = args.work / "photo.png", args.work / "labels.txt"
    drawn_image().save(photo)
    labels.write_text("".join(f"{label}\n" for label in LABELS))
    failed = []
    for name in args.models:
        folder, bundle, trace = args.work / name, args.work / f"{name}-bundle", args.work / f"{name}.safetensors"
        for old in (folder, bundle):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir()
        save, source = SOURCES[name]
        with torch.no_grad():
            wanted = save(source, folder, drawn_image())
        run = lambda *command: subprocess.run([args.rtpt, *command], check=True, stdout=subprocess.DEVNULL)
        # No file of a folder with both towers has the scale.
        run("bundle", "import", folder, "-o", bundle, *(["--logit-scale", "100"] if save is both_towers_folder else []))
        run("trace", "--bundle", bundle, "--labels", labels, "--views", "2", "--batch", "1", photo, "-o", trace)
        found = load_file(trace)
        found = {"view": found["views"][0], "features": found["features"][0], "classes": found["classes"]}
        spread = 1 - (wanted["classes"] @ wanted["classes"].T)[np.triu_indices(len(LABELS), 1)].mean()
        distances = {part: float(np.abs(found[part] - wanted[part]).max()) for part in wanted}
        right = distances["view"] < 1e-5 and distances["features"] < 1e-3 and distances["classes"] < 1e-4
        print(f"{name}: {'agrees' if right else 'DIFFERS'}, largest differences {distances}; texts are {spread:.3f} apart on average", flush=True)
        failed += [] if right else [name]
        shutil.rmtree(folder)
        shutil.rmtree(bundle)
    if failed:
        raise SystemExit(f"not as in PyTorch: {', '.join(failed)}")


if __name__ == "__main__":
    main()
