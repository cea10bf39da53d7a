"""A bundle's text tower and tokenizer in PyTorch, by `transformers` and OpenAI's own tokenizer."""

import gzip
import tempfile
from pathlib import Path

import clip.simple_tokenizer
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

ENDS = ["<|endoftext|>", "<end_of_text>"]


def in_floats(weights):
    """Weights as `rtpt bundle quantize` writes them, an int8 tensor with a scale a row beside it, in floats."""
    scales = {name: weights.pop(f"{name}.scale") for name in list(weights) if f"{name}.scale" in weights}
    return {name: value.float() * scales[name][:, None] if name in scales else value for name, value in weights.items()}


def as_hugging_face(weights):
    """OpenAI's names as those of `transformers`."""
    if "text_model.embeddings.token_embedding.weight" in weights:
        return weights
    renamed = {}
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.": "text_model.final_layer_norm.",
        "transformer.resblocks.": "text_model.encoder.layers.",
        ".ln_": ".layer_norm",
        ".attn.out_proj": ".self_attn.out_proj",
        ".mlp.c_fc": ".mlp.fc1",
        ".mlp.c_proj": ".mlp.fc2",
    }
    for name, value in weights.items():
        new = name
        for old, replacement in names.items():
            new = new.replace(old, replacement)
        if name == "text_projection":
            renamed["text_projection.weight"] = value.T
        elif ".attn.in_proj_" in name:
            layer, part = new.split(".attn.in_proj_")
            for letter, chunk in zip("qkv", value.chunk(3)):
                renamed[f"{layer}.self_attn.{letter}_proj.{part}"] = chunk
        else:
            renamed[new] = value
    return renamed


class TextTower:
    """Class embeddings of a bundle's own text tower."""

    def __init__(self, bundle, manifest):
        section = manifest["text"]
        self.tokenizer = self.read_tokenizer(bundle / section["tokenizer"])
        config = CLIPTextConfig(
            hidden_size=section["width"],
            intermediate_size=4 * section["width"],
            num_hidden_layers=section["layers"],
            num_attention_heads=section["heads"],
            projection_dim=manifest["embedding"],
            vocab_size=section["vocabulary"],
            max_position_embeddings=section["context_length"],
            hidden_act=section["activation"].replace("-", "_"),
            bos_token_id=self.start,
            eos_token_id=self.end,
        )
        self.model = CLIPTextModelWithProjection(config).eval().requires_grad_(False)
        weights = as_hugging_face(in_floats(load_file(bundle / section["file"])))
        self.model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
        missing = [name for name, _ in self.model.named_parameters() if name not in weights]
        assert not missing, missing

    def read_tokenizer(self, path):
        """A function from a text to its tokens; sets the tokens that start and end it."""
        content = path.read_bytes()
        if content.lstrip().startswith(b"{"):
            tokenizer = Tokenizer.from_file(str(path))
            ids = [tokenizer.token_to_id(end) for end in ENDS]
            self.end = next(id for id in ids if id is not None)
            self.start = tokenizer.encode("").ids[0]
            return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        with tempfile.TemporaryDirectory() as folder:
            zipped = Path(folder) / "merges.gz"
            zipped.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content))
            tokenizer = clip.simple_tokenizer.SimpleTokenizer(str(zipped))
        self.start, self.end = len(tokenizer.encoder) - 2, len(tokenizer.encoder) - 1
        return tokenizer.encode

    def ids(self, texts):
        """`[C, L]`, padded with the end token."""
        rows = [[self.start, *self.tokenizer(text), self.end] for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.end] * (longest - len(row)) for row in rows])

    def context_ids(self, template, labels):
        """The prompts' tokens, and how many of them are context."""
        context = template.removesuffix("{}.").strip()
        return self.ids([template.replace("{}", label.replace("_", " "), 1) for label in labels]), len(self.tokenizer(context))

    @torch.no_grad()
    def classes(self, templates, labels):
        """Unit embeddings `[C, D]`, the mean over templates."""
        total = 0
        for template in templates:
            texts = [template.replace("{}", label.replace("_", " "), 1) for label in labels]
            rows = [self.model(input_ids=self.ids(texts[i : i + 64])).text_embeds for i in range(0, len(texts), 64)]
            total = total + F.normalize(torch.cat(rows), dim=1)
        return F.normalize(total, dim=1)
