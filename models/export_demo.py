"""Exports a trained demo model as a bundle.

    models/.venv/bin/python models/export_demo.py --checkpoint models/runs/demo.pt --image PHOTO --out models/demo/bundle
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from bundle import TextPart, write_bundle
from demo_model import encode_texts, load_checkpoint, open_rgb


def text_part(text, tokenizer, shape, pretty=True, **rest):
    """The text tower; its weights are stored in half precision, and `pretty` indents the tokenizer's file."""
    ids = lambda texts: encode_texts(tokenizer, texts, shape.context_length)
    return TextPart(
        weights={key: value.half() for key, value in text.state_dict().items()},
        tokenizer=("tokenizer.json", tokenizer.to_str(pretty=pretty).encode()),
        sizes={
            "layers": shape.text_layers,
            "width": shape.text_width,
            "heads": shape.text_heads,
            "context_length": shape.context_length,
            "vocabulary": shape.vocabulary,
            "activation": "quick-gelu",
        },
        tokens=lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(list(texts))],
        embed=lambda texts: text(ids(texts)),
        **rest,
    )


@torch.no_grad()
def class_embeddings(model, tokenizer, shape, names, context):
    """`{name: unit embedding}` of `"{context} {name}."`."""
    ids = encode_texts(tokenizer, [f"{context} {name}." for name in names], shape.context_length)
    return dict(zip(names, F.normalize(model.text(ids), dim=1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True, help="a non-square photo for the bundle's goldens")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resolution", type=int, help="input side; default the checkpoint's")
    parser.add_argument("--augment", choices=["crop", "augmix"], default="augmix")
    parser.add_argument("--context", default="a photo of a")
    args = parser.parse_args()
    model, shape, tokenizer, names = load_checkpoint(args.checkpoint)
    # The text tower is stored in half precision; the classes come from the same rounded weights.
    model.text.half().float()
    image = open_rgb(args.image)
    if image.width == image.height:
        raise SystemExit(f"{args.image} is square; a square golden cannot show a wrong crop, choose another")
    everything = sorted({name for names_of_set in names.values() for name in names_of_set})
    write_bundle(
        args.out,
        name="demo",
        description="A small CLIP-style dual encoder trained from scratch on Caltech-101, clothing and CIFAR-10.",
        license="MIT OR Apache-2.0",
        tower=model.image,
        resolution=args.resolution or shape.resolution,
        scale=model.logit_scale.exp().item(),
        classes=class_embeddings(model, tokenizer, shape, everything, args.context),
        labels=names["caltech101"],
        image=image,
        text=text_part(
            model.text,
            tokenizer,
            shape,
            # The small vocabulary has no tokens for most characters outside words.
            golden_texts=["a photo of a dog.", "a photo of two red cars at night.", "a painting of the sea."],
        ),
        context=args.context,
        augment=args.augment,
    )


if __name__ == "__main__":
    main()
