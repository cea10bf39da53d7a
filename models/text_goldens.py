"""Writes the goldens of the text tower in tests/golden, and tests/data/clip-bpe.

    models/.venv/bin/python models/text_goldens.py --names DATA/class-names.json --merges DATA/clip-bpe/bpe_simple_vocab_16e6.txt.gz

`tokens.json`: what OpenAI's `clip.simple_tokenizer` makes of class names, templates and odd texts.
`tower.safetensors`: `transformers`' CLIP text tower with weights that follow from their names, as tests/suite/toy.rs makes them.
`prompts.safetensors`: R-TPT's formulas over that tower in autograd with torch.optim.AdamW, in double precision.
"""

import argparse
import gzip
import json
from pathlib import Path

import clip.simple_tokenizer
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.numpy import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from goldens import GOLDEN
from methods import entropy, reliability

# Merges that OpenAI's tokenizer uses of the 262,144 in the file, after its first line.
MERGES = 49152 - 256 - 2

ODD_TEXTS = [
    "", " ", "a", "É", "ÉCOLE", "naïve café", "cafe\u0301", "Ångström", "ångström", "straße", "STRASSE", "İstanbul", "ΣΊΣΥΦΟΣ",
    "Γειά σου", "Привет, мир", "日本語", "東京タワー", "서울", "مرحبا", "שלום", "नमस्ते", "ไทย", "Việt Nam", "ﬁsh ﬂag", "ﬀ ﬃ ﬄ ﬅ ﬆ",
    "ĳsselmeer", "ŉ ǆ Ǉ ǲ", "ＦＵＬＬ　ｗｉｄｔｈ", "ｶﾀｶﾅ", "😀", "😀😀 smile", "👩‍👩‍👧‍👦 family", "🇨🇭 flag", "👍🏽", "❤️", "✓ done", "™ © ®",
    "it's", "IT'S", "they're we've I'm you'll he'd don't", "rock 'n' roll", "'tis", "St. Bernard's dog", "St. Bernard\u2019s dog",
    "\u2018single\u2019 \u201cdouble\u201d \u201elow\u201c", "o\u02bcclock", "''quoted''", "'s 't 're", "a's's", "d'Artagnan",
    "  leading and trailing  ", "many    spaces", "tab\tand\nnew\r\nline\rend", "a\u00a0b\u2003c\u3000d", "\u2028line\u2029para",
    "zero\u200bwidth", "zero\u200dwidth", "soft\u00adhyphen", "\ufeffbom", "bell\u0007 and null\u0000", "\x1b[31mred\x1b[0m",
    "mac &amp; cheese", "mac &amp;amp; cheese", "&lt;b&gt;bold&lt;/b&gt;", "<b>&eacute;</b>", "caf&eacute;", "CAF&EACUTE;", "&#233;", "&#xe9;",
    "&nbsp;", "&notanentity;", "AT&T", "AT&amp;T", "a&b;c", "&copy 2021", "&hearts;", "fish &amp chips", "&quot;quoted&quot;", "&#39;s",
    "&amp;lt;", "&ntilde; &NTILDE; &szlig; &SZLIG;", "this&not that", "&rsquo;s", "x &lt; y &amp;&amp; y &gt; z",
    "1", "12", "123 4567", "3.14159", "1,000,000", "50%", "$9.99", "2012 Acura TL Type-S", "Boeing 707-320", "F-16A/B", "DC-10", "C-47",
    "½ ² ³ Ⅷ ٣ ๓", "x²+y²=z²", "http://example.com/a?b=c&d=e", "name@example.com", "snake_case_name", "CamelCaseName", "kebab-case-name",
    "!!!", "?!?!", "...", "…", "—", "–", "---", "###", "(parentheses) [brackets] {braces}", "a/b\\c|d", "~`@#$%^&*()_+-=", "«guillemets»",
    "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicovolcanoconiosis", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "zzzzzzzzzz", "qqqxxx", "ab" * 60, "😀" * 30, "word " * 200, "photo of a very long label " * 40, "éàü" * 50, ". " * 100,
]

TEMPLATES = ["a photo of a {}.", "a bad photo of the {}.", "itap of a {}.", "a {} in a video game.", "art of the {}.", "a photo of the {}, a type of pet.",
             "a centered satellite photo of {}.", "{} texture.", "a photo of a person doing {}.", "a rendition of a {}.", "a photo of many {}."]


def texts(names):
    """Every class name, as it is and in a template, and the odd texts, as they are and in the middle of others."""
    found = [name for group in names.values() for name in group]
    found += [TEMPLATES[i % len(TEMPLATES)].format(name.replace("_", " ")) for i, name in enumerate(found)][::4]
    found += [template.format("dog") for template in TEMPLATES]
    found += ODD_TEXTS + [f"a photo of {text}, indoors." for text in ODD_TEXTS]
    return list(dict.fromkeys(found))


def tokens(names, merges):
    lines = gzip.open(merges).read().decode("utf-8").split("\n")[: MERGES + 1]
    folder = GOLDEN.parent / "data" / "clip-bpe"
    folder.mkdir(exist_ok=True)
    with gzip.GzipFile(folder / "bpe_simple_vocab_16e6.txt.gz", "wb", 9, mtime=0) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    tokenizer = clip.simple_tokenizer.SimpleTokenizer(str(merges))
    cases = [[text, tokenizer.encode(text)] for text in texts(names)]
    made_by = "models/text_goldens.py, clip.simple_tokenizer of clip-anytorch 2.6.0 (openai/CLIP's file), ftfy 6.3.1"
    (GOLDEN / "tokens.json").write_text(
        '{"made_by": %s, "cases": [\n%s\n]}\n'
        % (json.dumps(made_by), ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases))
    )
    print(len(cases), "token goldens")


def toy_values(name, shape, bound):
    """Values in (-bound, bound) from FNV-1a of the name and splitmix64 of the index; the same as in tests/suite/toy.rs."""
    start = 0xCBF29CE484222325
    for byte in name.encode():
        start = (start ^ byte) * 0x100000001B3 % 2**64
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(start) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return torch.from_numpy((unit * np.float32(bound)).reshape(shape))


def toy_value_of(name, shape):
    width = shape[-1]
    if "token_embedding" in name:
        return toy_values(name, shape, 1.0)
    if "position_embedding" in name:
        return toy_values(name, shape, 0.5)
    if "norm" in name and name.endswith("weight"):
        return 1 + toy_values(name, shape, 0.2)
    if name.endswith("bias"):
        return toy_values(name, shape, 0.1)
    return toy_values(name, shape, np.sqrt(np.float32(3) / np.float32(width)))


def toy_tower(dtype=torch.float32, **sizes):
    config = CLIPTextConfig(
        hidden_size=sizes["width"],
        intermediate_size=4 * sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        projection_dim=sizes["embedding"],
        vocab_size=sizes["vocabulary"],
        max_position_embeddings=sizes["context_length"],
        hidden_act=sizes["activation"],
        eos_token_id=sizes["vocabulary"] - 1,
        bos_token_id=sizes["vocabulary"] - 2,
        # The eager one computes its softmax in single precision, whatever the type.
        attn_implementation="sdpa",
    )
    tower = CLIPTextModelWithProjection(config).eval()
    state = tower.state_dict()
    tower.load_state_dict({name: toy_value_of(name, tuple(v.shape)) if v.is_floating_point() else v for name, v in state.items()})
    return tower.to(dtype).requires_grad_(False)


def prompts(classes, vocabulary, context):
    """Token rows `[SOT] ctx name… [EOT]`, padded with [EOT] to the longest; 1 to 6 tokens a name."""
    start, end = vocabulary - 2, vocabulary - 1
    rows = []
    for c in range(classes):
        name = [(c * 7 + place * 13 + c * c) % (vocabulary - 2) for place in range(c % 6 + 1)]
        rows.append([start, *context, *name, end])
    longest = max(map(len, rows))
    return torch.tensor([row + [end] * (longest - len(row)) for row in rows])


def encode(tower, ids, context):
    """Unit embeddings `[C, D]` where the context's token embeddings are `context` `[M, W]`, through autograd."""
    table = tower.text_model.embeddings.token_embedding.weight
    embedded = F.embedding(ids, table)
    count = len(context)
    embedded = torch.cat([embedded[:, :1], context.expand(len(ids), -1, -1), embedded[:, 1 + count :]], 1)
    hook = tower.text_model.embeddings.token_embedding.register_forward_hook(lambda *_: embedded)
    try:
        return F.normalize(tower(input_ids=ids).text_embeds, dim=1)
    finally:
        hook.remove()


SIZES = dict(layers=2, width=512, heads=8, embedding=512, vocabulary=600, context_length=77)
SMALL = dict(layers=2, width=64, heads=4, embedding=16, vocabulary=600, context_length=77, activation="quick_gelu")
CONTEXT = [320, 117, 539, 320]


def towers():
    """The real shape's kind, two layers of it: embeddings, and the gradient of a weighted sum of them."""
    tensors = {}
    for activation in ["quick_gelu", "gelu"]:
        tower = toy_tower(torch.float64, activation=activation, **SIZES)
        ids = prompts(24, SIZES["vocabulary"], CONTEXT)
        context = tower.text_model.embeddings.token_embedding.weight[CONTEXT].clone().requires_grad_(True)
        unit = encode(tower, ids, context)
        assert torch.allclose(unit, F.normalize(tower(input_ids=ids).text_embeds, dim=1), atol=1e-12)
        weights = toy_values("weights", tuple(unit.shape), 1.0).double()
        (unit * weights).sum().backward()
        tensors[f"{activation}.embeddings"] = unit.detach().float().numpy()
        tensors[f"{activation}.gradient"] = context.grad.float().numpy()
    metadata = {"made_by": f"models/text_goldens.py, transformers {transformers.__version__}, PyTorch {torch.__version__}"}
    save_file(tensors, GOLDEN / "tower.safetensors", metadata)
    print(len(tensors), "tower goldens")




def episode(features, theta, classes_of, scale, steps, learning_rate, selection=0.1):
    """R-TPT over any head: `classes_of(theta)` gives unit class embeddings, AdamW as in the reference code."""
    theta = theta.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([theta], learning_rate)
    logits = (scale * features @ classes_of(theta).T).detach()
    selected = entropy(logits).argsort()[: max(1, int(len(features) * selection))]
    losses, first = [], None
    for _ in range(steps):
        optimizer.zero_grad()
        loss = entropy(scale * features[selected] @ classes_of(theta).T).mean()
        loss.backward()
        first = theta.grad.clone() if first is None else first
        losses.append(loss.detach())
        optimizer.step()
    tuned_classes = classes_of(theta).detach()
    tuned = scale * features @ tuned_classes.T
    weights = reliability(features)
    return {
        "features": features, "logits": logits, "selected": selected, "gradient": first,
        "losses": torch.stack(losses), "tuned": tuned, "weights": weights, "prediction": weights @ tuned,
    }  # fmt: skip


def heads():
    """Episodes of `context` and `class-lowrank` over a small tower."""
    tower = toy_tower(torch.float64, **SMALL)
    tensors, cases = {}, []
    for number, (views, classes, steps, context) in enumerate([(64, 20, 1, CONTEXT), (40, 40, 3, CONTEXT), (20, 5, 1, CONTEXT[:1]), (9, 130, 2, CONTEXT + CONTEXT)]):
        torch.manual_seed(200 + number)
        ids = prompts(classes, SMALL["vocabulary"], context)
        start = tower.text_model.embeddings.token_embedding.weight[context]
        table = encode(tower, ids, start)
        width = table.shape[1]
        # Toy towers put all classes near one another: views spread along the classes' differences.
        spread = (table - table.mean(0)) / (table - table.mean(0)).norm(dim=1).mean()
        features = F.normalize(table.mean(0) + 0.5 * spread[0] + 0.5 * spread[torch.randint(classes, (views,))]
                               + 0.1 * torch.randn(views, width, dtype=torch.float64), dim=1)
        rank = min(8, classes - 1)
        basis = torch.linalg.svd(table - table.mean(0), full_matrices=False).Vh[:rank].T
        shapes = {
            "context": (start, lambda theta: encode(tower, ids, theta), 5e-3),
            "class-lowrank": (torch.zeros(classes, rank, dtype=torch.float64), lambda theta: F.normalize(table + theta @ basis.T, dim=1), 2e-2),
        }  # fmt: skip
        for head, (theta, classes_of, rate) in shapes.items():
            case = f"{head}-v{views}-c{classes}-s{steps}"
            results = episode(features, theta, classes_of, 40.0, steps, rate)
            cases.append({"name": case, "head": head, "context": context, "classes": classes, "steps": steps, "scale": 40.0, "learning_rate": rate, "rank": rank})
            results |= {"classes": table} | ({"basis": basis} if head == "class-lowrank" else {})
            tensors |= {f"{case}.{name}": np.ascontiguousarray(value.numpy()) for name, value in results.items()}
    metadata = {"made_by": f"models/text_goldens.py, transformers {transformers.__version__}, PyTorch {torch.__version__}", "cases": json.dumps(cases)}
    save_file(tensors, GOLDEN / "prompts.safetensors", metadata)
    print(len(cases), "prompt-tuning goldens")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=Path, required=True, help='class names, {"set": ["name", …]}')
    parser.add_argument("--merges", type=Path, required=True, help="OpenAI's bpe_simple_vocab_16e6.txt.gz")
    args = parser.parse_args()
    tokens(json.loads(args.names.read_text()), args.merges)
    # `transformers` makes its attention mask in the default type.
    torch.set_default_dtype(torch.float64)
    towers()
    heads()


if __name__ == "__main__":
    main()
