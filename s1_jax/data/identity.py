"""Digests of a run's examples, by which a resumed run checks that it has the same ones in the same order.

The digest of all examples is saved in every checkpoint. Short digests of the single examples are saved in the run's
folder, to name the first one that differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError
from s1_jax.runtime.files import read_earlier, write_whole

FILE = "examples.json"  # in the run's folder
SHORT = 8  # hexadecimal digits per example in the file


class Identity(NamedTuple):
    """Digests of the training and held-out examples: token ids, loss masks and order, but not their ids."""

    digest: str  # SHA-256 of all
    training: str  # SHORT digits per example
    held_out: str

    def keep(self, run_dir: Path) -> None:
        """Write the file by which `check_same` finds the first difference."""
        write_whole(run_dir / FILE, json.dumps(self._asdict()) + "\n")


def identity_of(training: Corpus, held_out: Corpus) -> Identity:
    """Compute the digests of a run's examples."""
    of_all, shorts = hashlib.sha256(), []
    for corpus in (training, held_out):
        digests = [
            hashlib.sha256(example.token_ids.tobytes() + example.loss_mask.tobytes()).hexdigest()
            for example in corpus.examples
        ]
        of_all.update(f"{len(digests)}:{''.join(digests)}".encode())
        shorts.append("".join(digest[:SHORT] for digest in digests))
    return Identity(of_all.hexdigest(), *shorts)


def check_same(before: str, now: Identity, run_dir: Path, names: Sequence[Sequence[str]], shown: Path) -> None:
    """Raise UserError if `before`, the digest in a checkpoint, is not that of the examples now.

    `names` are the ids of the training and of the held-out examples now; `shown` is the folder's name in messages.
    """
    if before == now.digest:
        return
    kept = read_earlier(run_dir / FILE, bound=False) or {}
    said = "which of them differ is unknown"
    if kept.get("digest") == before and all(isinstance(kept.get(name), str) for name in Identity._fields):
        differences = (
            _difference("training", kept["training"], now.training, names[0]),
            _difference("held-out", kept["held_out"], now.held_out, names[1]),
        )
        said = next(filter(None, differences), said)
    raise UserError(
        f"{shown} contains a run on other examples: {said}; restore the data of that run, or choose another --run-dir"
    )


def _difference(kind: str, old: str, new: str, ids: Sequence[str]) -> str | None:
    """Describe the first difference in words; None if there is none."""
    before, now = ([text[i : i + SHORT] for i in range(0, len(text), SHORT)] for text in (old, new))
    if before == now:
        return None
    pairs = zip(before, now, strict=False)
    index = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(before), len(now)))
    counts = f"{len(now):,}" if len(now) == len(before) else f"{len(now):,} now, {len(before):,} before"
    if sorted(before) == sorted(now):
        counts += ", all in another order"
    what = f"number {index + 1} (id {ids[index]}) differs" if index < len(now) else "the last ones are missing"
    return f"of the {kind} examples ({counts}), {what}" + (" or is new" if len(now) > len(before) else "")
