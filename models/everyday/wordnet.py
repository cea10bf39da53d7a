"""WordNet 3.0, from Debian's package `wordnet-base`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("/usr/share/wordnet")


@dataclass
class Synset:
    """One sense: its names, what it is a kind of, what it is a part of, and its gloss."""

    offset: str
    category: int
    lemmas: list
    gloss: str
    above: list = field(default_factory=list)
    wholes: list = field(default_factory=list)
    below: list = field(default_factory=list)
    parts: list = field(default_factory=list)
    instance: bool = False


def nouns(folder=FOLDER):
    """Synsets by their number, as ImageNet writes it: `n01440764`."""
    found = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        fields, gloss = line.split(" | ", 1)
        words = fields.split()
        count = int(words[3], 16)
        lemmas = [re.sub(r"\(\w+\)$", "", words[4 + 2 * place]).replace("_", " ") for place in range(count)]
        # A gloss is a definition, then examples in quotation marks.
        synset = Synset(f"n{words[0]}", int(words[1]), lemmas, gloss.split('; "')[0].strip())
        at = 4 + 2 * count
        for place in range(int(words[at])):
            symbol, target, part = words[at + 1 + 4 * place :][:3]
            if part != "n":
                continue
            if symbol in ("@", "@i"):
                synset.above.append(f"n{target}")
                synset.instance |= symbol == "@i"
            elif symbol in ("#p", "#m", "#s"):
                synset.wholes.append(f"n{target}")
        found[synset.offset] = synset
    for synset in found.values():
        for above in synset.above:
            found[above].below.append(synset.offset)
        for whole in synset.wholes:
            found[whole].parts.append(synset.offset)
    return found


def ancestors(synsets, offset):
    """All that a synset is a kind of, with the least number of steps to each."""
    steps, ring, distance = {}, [offset], 0
    while ring:
        distance += 1
        ring = [above for one in ring for above in synsets[one].above if above not in steps]
        for above in ring:
            steps.setdefault(above, distance)
    return steps


def senses(synsets, folder=FOLDER):
    """The synsets of each name in lower case, the most frequent sense first."""
    found = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith(" "):
            fields = line.split()
            offsets = [f"n{offset}" for offset in fields[-int(fields[2]) :]]
            found[fields[0].replace("_", " ")] = [offset for offset in offsets if offset in synsets]
    return found


def frequent(folder=FOLDER):
    """Names in lower case, with how many of their senses occur in the texts that WordNet's authors tagged."""
    lines = (folder / "index.noun").read_text().splitlines()
    found = {}
    for line in lines:
        if not line.startswith(" "):
            fields = line.split()
            found[fields[0].replace("_", " ")] = int(fields[-int(fields[2]) - 1])
    return found


def words(part, folder=FOLDER):
    """Names of a part of speech: `adj`, `verb` or `adv`."""
    lines = (folder / f"index.{part}").read_text().splitlines()
    return [line.split()[0].replace("_", " ") for line in lines if not line.startswith(" ")]
