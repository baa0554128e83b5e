"""Detection of near duplicates: MinHash finds the candidates, and their words decide.

The similarity is the Jaccard index of the sets of shingles: pairs of neighboring words in lower case, without
punctuation but with the signs of formulas, since x + 1 is not x - 1. Single words would not be enough: many problems
ask for the largest value for positive reals a, b and c.
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

HASHES = 128  # per signature
RECALL = 0.99  # least probability that a pair at the threshold becomes a candidate
WORD = re.compile(r"[^\W_]+|[-+*/=<>^!]")

Pair = tuple[int, int, float]


def check_installed() -> None:
    """Raise UserError if datasketch is missing; called before hours of reading, not after."""
    try:
        import datasketch  # noqa: F401
    except ImportError:
        raise UserError("near duplicates need datasketch: pip install 's1_jax[curate]'") from None


def near_duplicates(texts: Sequence[str], threshold: float, bar: Progress | None = None) -> list[Pair]:
    """Find texts to drop so that no two remaining ones are this similar: (later, earlier, similarity), by `later`.

    The earlier text stays, and is the most similar one of those that stay. In a chain of texts each similar to the
    next, every other one may stay. A text without words is similar to no other. The time is linear in the number of
    texts unless most of them are similar.
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
    """Find the most similar of `others` for each text that has one this similar: (text, other, similarity), by text.

    Raises what `near_duplicates` raises.
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
    """Return sorted 64-bit hashes of all pairs of neighboring words, or of the only word; uint64 [shingles]."""
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
    """Build an index with bands as long as the recall allows; longer bands give fewer false candidates."""
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
    """Return the most similar candidate (the first among equals); None if none is similar enough."""
    own, best = set(text.tolist()), None
    for index in sorted(candidates):
        other = others[index]
        if min(len(other), len(own)) < threshold * max(len(other), len(own)):
            continue
        both = len(own.intersection(other.tolist()))
        similarity = both / (len(own) + len(other) - both)
        if similarity >= threshold and (best is None or similarity > best[1]):
            best = index, similarity
    return best
