"""Texts that say nearly the same: MinHash names the candidates, their words decide.

Similarity is Jaccard's, of the sets of shingles: two neighbouring words, in lower case, without punctuation but with
the signs a formula is made of, since x + 1 is not x - 1. Single words would not do: so many problems want the greatest
value for positive reals a, b and c.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import Progress

from s1_jax.errors import UserError

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

HASHES = 128  # of a signature
RECALL = 0.99  # at least: probability that a pair just at the threshold becomes a candidate
WORD = re.compile(r"[^\W_]+|[-+*/=<>^!]")

Pair = tuple[int, int, float]


def check_installed() -> None:
    """Raises UserError where datasketch is missing: before hours of reading, not after."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise UserError("near duplicates are found with datasketch: pip install 's1_jax[curate]'") from None


def near_duplicates(texts: Sequence[str], threshold: float, bar: Progress | None = None) -> list[Pair]:
    """Texts to leave out so that no two that stay are this similar: (later, earlier, similarity), by `later`.

    The earlier one stays, and is the most similar of those that do: in a chain of texts each like the next, every other
    one may stay. A text without words is like no other. Time is linear in texts unless most of them are alike.
    """
    index, shingles = _index(threshold), [_shingles(text) for text in texts]
    pairs = []
    for here, signature in enumerate(_signatures(shingles, "near duplicates", bar)):
        if not len(shingles[here]):
            continue
        if match := _best(shingles[here], shingles, index.query(signature), threshold):
            pairs.append((here, *match))
        else:
            index.insert(here, signature)
    return pairs


def nearest(texts: Sequence[str], others: Sequence[str], threshold: float, bar: Progress | None = None) -> list[Pair]:
    """The most similar of `others` to each text that has one this similar: (text, other, similarity), by text.

    Raises what `near_duplicates` does.
    """
    index, known = _index(threshold), [_shingles(text) for text in others]
    for there, signature in enumerate(_signatures(known)):
        if len(known[there]):
            index.insert(there, signature)
    shingles = [_shingles(text) for text in texts]
    pairs = []
    for here, signature in enumerate(_signatures(shingles, "nearest texts", bar)):
        if len(shingles[here]) and (match := _best(shingles[here], known, index.query(signature), threshold)):
            pairs.append((here, *match))
    return pairs


def _shingles(text: str) -> np.ndarray:
    """uint64 [shingles], sorted: 64 bits of a hash stand for two words, or for the only one there is."""
    words = WORD.findall(text.lower())
    pairs = {f"{first} {second}" for first, second in itertools.pairwise(words)} or set(words)
    hashes = [int.from_bytes(hashlib.blake2b(pair.encode(), digest_size=8).digest(), "big") for pair in pairs]
    return np.sort(np.asarray(hashes, np.uint64))


def _signatures(shingles: Sequence[np.ndarray], what: str = "", bar: Progress | None = None) -> Iterator[MinHash]:
    from datasketch import MinHash

    made = MinHash.generator((one.tolist() for one in shingles), num_perm=HASHES, hashfunc=int, scheme="affine64")
    task = None if bar is None else bar.add_task(what, total=len(shingles), note="")
    for signature in made:
        yield signature
        if bar is not None and task is not None:
            bar.advance(task)


def _index(threshold: float) -> MinHashLSH:
    """Bands as long as the recall allows: the longer, the fewer candidates that are none."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not above 0 and at most 1")
    check_installed()
    from datasketch import MinHashLSH

    lengths = range(1, HASHES // 2 + 1)
    rows = max((rows for rows in lengths if 1 - (1 - threshold**rows) ** (HASHES // rows) >= RECALL), default=1)
    return MinHashLSH(num_perm=HASHES, params=(HASHES // rows, rows))


def _best(
    text: np.ndarray, others: Sequence[np.ndarray], candidates: Sequence[int], threshold: float
) -> tuple[int, float] | None:
    """The most similar candidate, the first of several; none where none is similar enough."""
    own, best = set(text.tolist()), None
    for place in sorted(candidates):
        other = others[place]
        if min(len(other), len(own)) < threshold * max(len(other), len(own)):
            continue
        both = len(own.intersection(other.tolist()))
        similarity = both / (len(own) + len(other) - both)
        if similarity >= threshold and (best is None or similarity > best[1]):
            best = place, similarity
    return best
