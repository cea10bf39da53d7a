"""The text tower's tokenizer: CLIP's byte-level BPE, with merges learned from the texts that the tower is trained on."""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from demo_model import END, START, train_tokenizer  # noqa: E402


def trained(texts, vocabulary):
    """A tokenizer of `vocabulary` tokens. As in CLIP's there is a token for every byte, and one for every byte at the end of a word, so that it takes any
    text: a word that was never seen is spelled."""
    learned = json.loads(train_tokenizer(texts, vocabulary).to_str())
    model = learned["model"]
    letters = sorted(token for token in model["vocab"] if len(token) == 1)
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    ends = [f"{letter}</w>" for letter in letters]
    merges = merges[: vocabulary - len(letters) - len(ends) - 2]
    tokens = [*letters, *ends, *dict.fromkeys("".join(pair) for pair in merges), START, END]
    model["vocab"] = {token: number for number, token in enumerate(tokens)}
    model["merges"] = merges
    for added in learned["added_tokens"]:
        added["id"] = model["vocab"][added["content"]]
    learned["post_processor"]["sep"][1] = model["vocab"][END]
    learned["post_processor"]["cls"][1] = model["vocab"][START]
    return Tokenizer.from_str(json.dumps(learned))
