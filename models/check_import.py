"""Imports randomly initialised models of the true shapes as model hubs have their folders, and compares rtpt with PyTorch on each.

    models/.venv/bin/python models/check_import.py --work WORK [--models MobileCLIP2-S0 ViT-B-16-SigLIP2 …]

The reference is open_clip's own: its preprocessing, its tokenizer, its towers. It takes a minute or two and up to 3 GB of disk for each.
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
from transformers import PreTrainedTokenizerFast

from check_export import LABELS, save_tokenizer
from export import drawn_image

HERE = Path(__file__).parent
# What the published weights' configurations say of preprocessing (`open_clip/pretrained.py`).
PREPROCESSING = {
    "MobileCLIP": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"},
    "MobileCLIP2-S3": {"interpolation": "bilinear", "resize_mode": "shortest"},
    "MobileCLIP2-S4": {"interpolation": "bilinear", "resize_mode": "shortest"},
    "SigLIP": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    "PE-Core": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
    "TinyCLIP": {},
}
MODELS = ["MobileCLIP2-S0", "MobileCLIP-B", "MobileCLIP2-S4", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "PE-Core-T-16-384"]


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


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.visual = model.visual

    def forward(self, pixels):
        return self.visual(pixels)


def save_model(name, folder):
    """The folder of an OpenCLIP model as hubs have it, with random weights, and the model."""
    torch.manual_seed(1)
    timm.layers.set_fused_attn(False)
    config = open_clip.get_model_config(name)
    config["vision_cfg"].pop("timm_model_pretrained", None)
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        sentence_pieces(folder, text["vocab_size"], is_gemma=text["vocab_size"] > 100_000)
    else:
        save_tokenizer(folder)
    model = open_clip.create_model(name, pretrained=None, precision="fp32")
    # Random batch norms that normalise nothing would let activations explode.
    model.train()
    with torch.no_grad():
        for _ in range(2):
            side = config["vision_cfg"]["image_size"]
            model.visual(torch.randn(4, 3, side, side))
        model.logit_scale.fill_(np.log(100.0))
        # Otherwise texts differ too little to show a mistake.
        for parameter in model.text.parameters() if hasattr(model, "text") else []:
            if parameter.ndim == 2:
                parameter.mul_(2)
    model.eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing_of(name)}))
    (folder / "onnx").mkdir()
    side = config["vision_cfg"]["image_size"]
    torch.onnx.export(
        Vision(model).eval(), (torch.zeros(2, 3, side, side),), str(folder / "onnx" / "vision_model.onnx"), input_names=["pixel_values"],
        output_names=["image_embeds"], dynamic_axes={"pixel_values": {0: "N"}, "image_embeds": {0: "N"}}, opset_version=17, dynamo=False,
    )
    return model, config


@torch.no_grad()
def expected(model, config, folder, photo):
    """The clean view, its feature and the class embeddings, by open_clip."""
    wanted = preprocessing_of(folder.name)
    preprocess = dataclasses.replace(open_clip.transform.PreprocessCfg(), size=config["vision_cfg"]["image_size"], **wanted)
    view = open_clip.transform.image_transform_v2(preprocess, is_train=False)(photo)
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), context_length=text["context_length"], **text.get("tokenizer_kwargs", {}))
    else:
        tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=text["context_length"])
    prompts = [f"a photo of a {label}." for label in LABELS]
    return {
        "view": view.numpy(),
        "features": model.encode_image(view[None], normalize=True)[0].numpy(),
        "classes": model.encode_text(tokenizer(prompts), normalize=True).numpy(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rtpt", type=Path, default=HERE.parent / "target" / "release" / "rtpt")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
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
        model, config = save_model(name, folder)
        wanted = expected(model, config, folder, drawn_image())
        run = lambda *command: subprocess.run([args.rtpt, *command], check=True, stdout=subprocess.DEVNULL)
        run("bundle", "import", folder, "-o", bundle)
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
