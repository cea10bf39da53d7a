"""What the text tower learns: texts, and for each the row `[F]` of the image tower's classifier that stands for it.

Rows of ImageNet's classes are the classifier's own, those of what the classes are kinds of are means, and all others are the teacher's.
"""

import re
from dataclasses import dataclass

import numpy as np
import wordnet
from space import unit
from teacher import VISIBLE

# Categories of WordNet whose names are learned as bare words: act, cognition, group, location, person, phenomenon, shape, substance.
OTHERS = {4, 9, 14, 15, 18, 19, 25, 27}
ADJECTIVES = """red orange yellow green blue purple pink brown black white grey golden silver wooden metal plastic glass leather paper stone brick steel
small big large tiny huge tall short long round square flat old new young broken dirty clean empty full open closed wet dry dark bright colourful striped spotted
shiny rusty furry fluffy smooth hot cold sleeping sitting standing running flying parked moving folded hanging toy cartoon electric handmade wild baby""".split()
JOINED = ["{} and {}", "{} with a {}", "{} on a {}", "{} next to a {}", "{} in a {}", "{} on the {}", "{} near the {}"]
PHRASES = 25_000
# Longest gloss that is learned as a text of its own (characters).
GLOSS_MAX = 90
NOTHING = """none of these|none of the above|none|nothing|something else|anything else|other|others|unknown|unknown object|no object|no match|none of them|
not any of these|neither|background|the background|an empty scene|empty scene|nothing in particular|nothing of interest|uncertain|not sure""".replace("\n", "").split("|")


@dataclass
class Texts:
    """`texts [N]`, their `rows [N, F]` (0 for those of nothing), the number of their kind in `KINDS`, and how common they are `[N]` (0 to 1)."""

    texts: list
    rows: np.ndarray
    kinds: np.ndarray
    common: np.ndarray


KINDS = ["classes", "kinds", "things", "words", "phrases", "glosses", "nothing"]


def plural(name):
    if re.search(r"(s|x|z|ch|sh)$", name):
        return f"{name}es"
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}s"


class Collection:
    """Texts as they are found; the first row that is given for a text stays."""

    def __init__(self):
        self.found = {}

    def add(self, kind, texts, rows, common):
        for text, row, times in zip(texts, rows, common):
            if text.strip():
                self.found.setdefault(text.lower(), (kind, row.astype(np.float16), times))

    def row(self, text):
        return self.found[text.lower()][1].astype(np.float64)


def seen_names(synsets):
    """The names of all that can be seen."""
    return list(dict.fromkeys(lemma for synset in synsets.values() if synset.category in VISIBLE for lemma in synset.lemmas))


def other_names(synsets):
    lemmas = (lemma for synset in synsets.values() if synset.category in OTHERS and not synset.instance for lemma in synset.lemmas)
    return list(dict.fromkeys([*lemmas, *wordnet.words("adj"), *wordnet.words("verb")]))


def everything(synsets, senses, teacher, classes, names, extra=(), log=print):
    """All texts; `extra` are names that are learned as common things whatever they are."""
    found = Collection()
    counts = wordnet.frequent()
    often = lambda texts: np.array([min(counts.get(text.lower(), 0), 3) / 3 for text in texts])
    # A name of several classes stands between them.
    by_name = {}
    for place, (offset, name) in enumerate(zip(classes, names)):
        for lemma in dict.fromkeys([name, *synsets[offset].lemmas]):
            by_name.setdefault(lemma.lower(), []).append(unit(teacher.rows[place]))
    # Of a name in the list and as another class's synonym, the list's is meant.
    for place, name in enumerate(names):
        by_name[name.lower()] = [unit(teacher.rows[other]) for other, same in enumerate(names) if same == name]
    rows = [unit(np.mean(rows, 0)) for rows in by_name.values()]
    found.add("classes", by_name, rows, [1.0] * len(rows))
    many = [plural(name) for name in by_name]
    found.add("kinds", many, rows, [0.3] * len(rows))
    log(f"{len(found.found)} names of classes")

    for offset, mean in teacher.kinds.items():
        lemmas = [lemma for lemma in synsets[offset].lemmas if senses.of(lemma) == offset]
        rows = unit(unit(mean) + teacher(lemmas, [offset] * len(lemmas))) if lemmas else []
        found.add("kinds", lemmas, rows, [1.0] * len(lemmas))
        found.add("kinds", [plural(lemma) for lemma in lemmas], rows, [0.5] * len(lemmas))
    log(f"{len(found.found)} with what they are kinds of")

    things = [*extra, *seen_names(synsets)]
    rows = teacher(things, [senses.of(name) for name in things])
    common = often(things)
    common[: len(extra)] = 1
    found.add("things", things, rows, common)
    log(f"{len(found.found)} with things")
    usual = [place for place, name in enumerate(things) if common[place] > 0]
    found.add("things", [plural(things[place]) for place in usual], rows[usual], common[usual] / 2)

    others = other_names(synsets)
    rows = teacher(others, [None] * len(others))
    found.add("words", others, rows, often(others))
    log(f"{len(found.found)} with other words")

    random = np.random.default_rng(0)
    usual = [things[place] for place in usual]
    pick = lambda: usual[random.integers(len(usual))]
    described = [(f"{ADJECTIVES[random.integers(len(ADJECTIVES))]} {noun}", noun) for noun in (pick() for _ in range(PHRASES))]
    bare = teacher([text for text, _ in described], [None] * len(described))
    rows = unit(2 * np.stack([found.row(noun) for _, noun in described]) + bare)
    found.add("phrases", [text for text, _ in described], rows, np.ones(len(rows)))
    joined = [(pick(), pick()) for _ in range(PHRASES)]
    texts = [JOINED[random.integers(len(JOINED))].format(*pair) for pair in joined]
    rows = [unit(2 * found.row(one) + found.row(other)) for one, other in joined]
    found.add("phrases", texts, rows, np.ones(len(rows)))

    glossed = {}
    for name in seen_names(synsets):
        offset = senses.of(name)
        if offset and len(synsets[offset].gloss) <= GLOSS_MAX:
            glossed.setdefault(synsets[offset].gloss, found.row(name))
    found.add("glosses", glossed, glossed.values(), np.ones(len(glossed)))
    found.add("nothing", NOTHING, np.zeros((len(NOTHING), len(teacher.rows[0]))), np.ones(len(NOTHING)))
    log(f"{len(found.found)} with phrases and glosses")
    kinds, rows, common = zip(*found.found.values())
    return Texts(list(found.found), np.stack(rows), np.array([KINDS.index(kind) for kind in kinds]), np.array(common))
