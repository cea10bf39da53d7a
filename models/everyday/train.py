"""Trains the everyday model's text tower, so that a text about a thing meets the photos of it. A CPU is enough.

    models/.venv/bin/python models/everyday/train.py --data DATA --work WORK --out WORK/everyday.pt
    models/.venv/bin/python models/everyday/train.py --data DATA --work WORK --out WORK/texts.pt --photos cifar10 --photo-weight 0

WORK has what `features.py` wrote. `--photos` names the sets whose training photos are used: of them come the covariance of the space and means of photos, which
are mixed into the targets of their classes' names. The model card's zero-shot transfer is that of a model without the photos of the set in question.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import texts as collected
import tokenizer as bpe
import torch
import torch.nn.functional as F
import wordnet
from features import tower
from labels import members
from space import Space, mean_feature, unit
from teacher import Senses, Sentences, Teacher
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import efficientnet_lite  # noqa: E402
from data_sets import CALTECH_NAMES, CLOTHING_NAMES, class_name  # noqa: E402
from demo_model import END, Shape, TextTower, encode_texts  # noqa: E402

LITE = 2
SHAPE = Shape(
    resolution=efficientnet_lite.SIZES[LITE][2], embedding=512, vocabulary=4000, context_length=77, text_width=384, text_layers=3, text_heads=6
)
PROMPT = "a photo of a {}."
TEMPLATES = """a photo of the {}.|a photo of one {}.|a photo of {}.|a photo of an {}.|a good photo of a {}.|a close-up photo of a {}.|a bright photo of a {}.|
a dark photo of a {}.|a cropped photo of the {}.|a blurry photo of a {}.|a low resolution photo of a {}.|a bad photo of a {}.|a black and white photo of a {}.|
a picture of a {}.|an image of a {}.|a camera image of a {}.|a frame of a video with a {}.|a photo of a small {}.|a photo of a large {}.|a photo of many {}.|
a photo of my {}.|this is a {}.|there is a {} in the picture.|a {}.|the {}.|an {}.|{}.|{}|{}|itap of a {}.|a photo of a {}, indoors.|a photo of a {}, outdoors.|
a photo of a {} at night.|a {} seen from above.|a drawing of a {}.|a photo of a {}""".replace("\n", "").split("|")
PROMPT_SHARE = 0.5
# Shares of the kinds of texts in what is learned, in the order of `texts.KINDS`, and of the photo sets' names.
SHARES = {"classes": 0.40, "kinds": 0.10, "things": 0.24, "words": 0.05, "phrases": 0.08, "glosses": 0.04, "nothing": 0.02, "photos": 0.07}
# What the photos' mean counts against the text's row.
PHOTO_SHARES = {"caltech101": 0.5, "clothing": 0.7, "cifar10": 0.2}
# Names of what is seen in the photos of a class under another name.
ALIASES = {"face": ["human face", "person", "man", "woman", "human", "people", "portrait", "head"], "automobile": [], "jacket": ["outwear", "outerwear"],
           "long sleeve shirt": ["longsleeve", "long-sleeved shirt", "long sleeve"], "t-shirt": ["tee shirt", "tshirt"], "shoes": ["shoe"], "pants": ["trousers"],
           "motorbike": ["motorcycle"], "car": []}  # fmt: skip
# Weight and scale of the loss in probabilities over the classes.
RELATIVE, SCALE = 1.0, 25.0
# Photos in a batch of those that are learned themselves, and the scale of their logits.
PHOTO_BATCH, PHOTO_SCALE = 256, 25.0
HELD_OUT = 1000
# Parts that a batch is computed in.
PARTS = 6


def photo_sets(work, chosen, part="train"):
    """`{set: (features [N, V, F], labels [N], names)}`."""
    renamed = {"caltech101": CALTECH_NAMES, "clothing": CLOTHING_NAMES, "cifar10": {}}
    found = {}
    for name in chosen:
        with np.load(work / (f"{LITE}-cifar10.npz" if name == "cifar10" else f"{LITE}-{name}-{part}.npz")) as kept:
            folders = [class_name(folder, renamed[name]) for folder in kept["names"].tolist()]
            names = sorted(set(folders))
            labels = np.array([names.index(folder) for folder in folders])[kept["labels"]]
            found[name] = (kept["features"], labels, names)
    return found


def imagenet(data):
    """Synsets and names of the classifier's 1,000 classes, in its order."""
    lines = (data / "imagenet-samples/classes.tsv").read_text().splitlines()
    return zip(*(line.split("\t")[:2] for line in lines if line.startswith("n")))


def all_texts(data, work, rows):
    """Every text with its row, kept in a file of WORK once they were computed."""
    path = work / "texts.npz"
    if not path.exists():
        synsets = wordnet.nouns()
        classes, names = map(list, imagenet(data))
        senses = Senses(synsets, classes)
        teacher = Teacher(synsets, Sentences(work), classes, names, rows)
        sets = [*CALTECH_NAMES.values(), *CLOTHING_NAMES.values(), *(name for names in ALIASES.values() for name in names)]
        sets += [folder.name.replace("_", " ") for part in ("caltech101/train", "clothing/train") for folder in sorted((data / part).iterdir())]
        extra = list(dict.fromkeys([*members(), *sets]))
        found = collected.everything(synsets, senses, teacher, classes, names, extra)
        np.savez(path, texts=np.array(found.texts), rows=found.rows, kinds=found.kinds, common=found.common)
    with np.load(path) as kept:
        return collected.Texts(kept["texts"].tolist(), kept["rows"], kept["kinds"], kept["common"])


def targets_of(space, texts, photos):
    """Unit targets `[N, D]`, and where those with photos stand."""
    targets = np.zeros((len(texts.texts), SHAPE.embedding), np.float32)
    for first in range(0, len(targets), 10_000):
        targets[first : first + 10_000] = space.texts(texts.rows[first : first + 10_000].astype(np.float64))
    nothing = texts.kinds == collected.KINDS.index("nothing")
    targets[nothing] = space.nothing()
    places = {text: place for place, text in enumerate(texts.texts)}
    mixed = {}
    for name, (features, labels, names) in photos.items():
        for label, class_ in enumerate(names):
            of_class = features[labels == label]
            mean = space.images(of_class.reshape(-1, of_class.shape[-1])).mean(0)
            mean[-1] = 0
            for text in [class_, *ALIASES.get(class_, [])]:
                place = places[text.lower()]
                # A class of two sets has both means.
                before = mixed.get(place, unit(targets[place]))
                mixed[place] = unit((1 - PHOTO_SHARES[name]) * before + PHOTO_SHARES[name] * unit(mean))
    for place, row in mixed.items():
        targets[place] = row
    return targets, np.array(sorted(mixed), int)


class Learned:
    """Batches of texts in random templates, with their targets."""

    def __init__(self, texts, targets, with_photos, tokenizer, random, held_out, shares):
        self.texts, self.targets, self.tokenizer, self.random = texts.texts, torch.from_numpy(targets), tokenizer, random
        self.pools = {}
        for kind, name in enumerate(collected.KINDS):
            places = np.flatnonzero(texts.kinds == kind)
            places = places[~np.isin(places, held_out)]
            weights = 0.15 + texts.common[places]
            self.pools[name] = (places, weights / weights.sum())
        if len(with_photos):
            self.pools["photos"] = (with_photos, np.full(len(with_photos), 1 / len(with_photos)))
        shares = np.array([shares[name] for name in self.pools])
        self.shares = shares / shares.sum()

    def batch(self, size):
        # Glosses are long: they come in batches of their own.
        names = list(self.pools)
        glosses = names.index("glosses")
        if self.random.random() < self.shares[glosses]:
            kinds = np.full(size // 3, glosses)
        else:
            shares = np.where(np.arange(len(names)) == glosses, 0, self.shares)
            kinds = self.random.choice(len(names), size, p=shares / shares.sum())
        places = np.concatenate([self.random.choice(self.pools[names[kind]][0], (kinds == kind).sum(), p=self.pools[names[kind]][1]) for kind in np.unique(kinds)])
        prompts = [self.template().format(self.texts[place]) for place in places]
        # Sorted by length, so that little is padded.
        order = np.argsort([len(encoding.ids) for encoding in self.tokenizer.encode_batch(prompts)], kind="stable")
        parts = [[prompts[place] for place in part] for part in np.array_split(order, PARTS)]
        return [encode_texts(self.tokenizer, part, SHAPE.context_length) for part in parts], self.targets[places[order]]

    def template(self):
        return PROMPT if self.random.random() < PROMPT_SHARE else TEMPLATES[self.random.integers(len(TEMPLATES))]


class Photos:
    """Photos of the sets in the space, each to be told from its set's other classes by the text tower's embeddings of their names."""

    def __init__(self, space, photos, tokenizer, random):
        self.random = random
        self.sets = []
        for name, (features, labels, names) in photos.items():
            views = space.images(features.reshape(-1, features.shape[-1])).astype(np.float32).reshape(*features.shape[:2], -1)
            ids = encode_texts(tokenizer, [PROMPT.format(class_) for class_ in names], SHAPE.context_length)
            # CIFAR-10's are small photos made large, and there are many sets in the world.
            self.sets.append((0.2 if name == "cifar10" else 1.0, torch.from_numpy(views), torch.from_numpy(labels), ids))

    def loss(self, model):
        weights = np.array([weight for weight, *_ in self.sets])
        _, views, labels, ids = self.sets[self.random.choice(len(self.sets), p=weights / weights.sum())]
        places = torch.from_numpy(self.random.integers(0, len(labels), PHOTO_BATCH))
        chosen = views[places, torch.from_numpy(self.random.integers(0, views.shape[1], PHOTO_BATCH))]
        classes = F.normalize(model(ids).float(), dim=1)
        return F.cross_entropy(PHOTO_SCALE * chosen @ classes.T, labels[places], label_smoothing=0.05)


@torch.no_grad()
def refit(model, learned, batches=60):
    """Solves the projection anew, by least squares, for the targets of another space."""
    projection, model.text_projection = model.text_projection, torch.nn.Identity()
    hidden, targets = [], []
    for _ in range(batches):
        ids, target = learned.batch(512)
        hidden.append(torch.cat([model(part) for part in ids]))
        targets.append(target)
    solution = torch.linalg.lstsq(torch.cat(hidden), torch.cat(targets)).solution
    model.text_projection = projection
    projection.weight.copy_(solution.T)


@torch.no_grad()
def embedded(model, tokenizer, names, template=PROMPT):
    """Unit embeddings `[N, D]` of names in a template."""
    parts = [names[first : first + 512] for first in range(0, len(names), 512)]
    rows = [F.normalize(model(encode_texts(tokenizer, [template.format(name) for name in part], SHAPE.context_length)), dim=1) for part in parts]
    return torch.cat(rows).numpy()


def judged(model, tokenizer, data, work, space, texts, targets, held_out):
    """What the tower is worth: accuracies (%) on test photos, clean views alone, and cosines with targets."""
    result = {}
    classes, names = map(list, imagenet(data))
    with np.load(work / f"{LITE}-imagenet-samples.npz") as kept:
        features, labels = kept["features"][:, 0], np.array([classes.index(kept["names"][label]) for label in kept["labels"]])
    logits = space.images(features) @ embedded(model, tokenizer, names).T
    best = np.argsort(-logits, 1)
    # Names of two classes are right as either.
    right = lambda guesses: np.array([[names[guess] == names[label] for guess in row] for row, label in zip(guesses, labels)])
    result["imagenet"], result["top-5"] = 100 * right(best[:, :1]).mean(), 100 * right(best[:, :5]).any(1).mean()
    for name, (features, labels, names) in photo_sets(work, ["caltech101", "clothing"], "test").items():
        logits = space.images(features[:, 0]) @ embedded(model, tokenizer, names).T
        result[name] = 100 * (logits.argmax(1) == labels).mean()
    cosine = lambda places: float((embedded(model, tokenizer, [texts.texts[place] for place in places]) * targets[places]).sum(1).mean())
    random = np.random.default_rng(1)
    for kind, name in enumerate(collected.KINDS):
        places = np.setdiff1d(np.flatnonzero(texts.kinds == kind), held_out)
        result[f"cos {name}"] = cosine(random.permutation(places)[:500])
    result["cos held out"] = cosine(held_out)
    return {name: round(float(value), 3) for name, value in result.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", nargs="*", default=["caltech101", "clothing", "cifar10"])
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from, with its tokenizer")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--photo-weight", type=float, default=0.5, help="weight of the loss on photos themselves, beside that on texts")
    parser.add_argument("--classes-share", type=float, default=SHARES["classes"], help="weight of the names of ImageNet's classes in a batch, beside those of the other texts in SHARES")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    image = tower(LITE)
    rows = image._fc.weight.detach().numpy().astype(np.float64)
    rows -= rows.mean(0)
    texts = all_texts(args.data, args.work, rows)
    photos = photo_sets(args.work, args.photos)
    space = Space.of(mean_feature(image), rows, [(features[:, 0], labels) for features, labels, _ in photos.values()], SHAPE.embedding)
    targets, with_photos = targets_of(space, texts, photos)
    rare = np.flatnonzero((texts.kinds == collected.KINDS.index("things")) & (texts.common == 0))
    held_out = random.permutation(rare)[:HELD_OUT]

    start = torch.load(args.start, weights_only=False) if args.start else None
    if start:
        tokenizer = bpe.Tokenizer.from_str(start["tokenizer"])
    else:
        corpus = [text for text, times in zip(texts.texts, texts.common) for _ in range(1 + int(3 * times))]
        tokenizer = bpe.trained(corpus + [template.format("") for template in [PROMPT, *TEMPLATES]] * 500, SHAPE.vocabulary)
    model = TextTower(SHAPE)
    model.end = tokenizer.token_to_id(END)
    if start:
        model.load_state_dict(start["text"])
    learned = Learned(texts, targets, with_photos, tokenizer, random, held_out, SHARES | {"classes": args.classes_share})
    if start:
        refit(model, learned)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    average.module.end = model.end
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05)
    anchors = torch.from_numpy(space.texts(rows)).float()
    shown = Photos(space, photos, tokenizer, random)
    print(f"{len(texts.texts)} texts, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {dict(zip(learned.pools, learned.shares.round(3)))}", flush=True)

    def save():
        kept = {"shape": asdict(SHAPE), "text": average.module.state_dict(), "tokenizer": tokenizer.to_str(), "space": asdict(space), "photos": args.photos}
        torch.save(kept, args.out)

    began, seen = time.time(), []
    for step in range(1, args.steps + 1):
        ids, target = learned.batch(args.batch)
        with torch.autocast("cpu", torch.bfloat16):
            # For rows this short plain products are faster than fused attention.
            with sdpa_kernel(SDPBackend.MATH):
                found = torch.cat([model(part) for part in ids])
            found = F.normalize(found.float(), dim=1)
            relative = F.kl_div(F.log_softmax(SCALE * found @ anchors.T, 1), F.log_softmax(SCALE * target @ anchors.T, 1), log_target=True, reduction="none")
        loss = (1 - (found * target).sum(1)).mean() + RELATIVE * relative.float().sum(1).mean()
        if args.photo_weight:
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                loss = loss + args.photo_weight * shown.loss(model)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        seen.append((loss.item(), (found * target).sum(1).mean().item()))
        if step % 50 == 0:
            print(f"step {step}/{args.steps} loss {np.mean(seen, 0)[0]:.4f} cosine {np.mean(seen, 0)[1]:.4f} {(time.time() - began) / 60:.1f} min", flush=True)
            seen = []
        if step % 500 == 0 or step == args.steps:
            print(json.dumps(judged(average.module, tokenizer, args.data, args.work, space, texts, targets, held_out)), flush=True)
            save()


if __name__ == "__main__":
    main()
