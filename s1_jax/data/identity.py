"""What a run's examples are, in few bytes: a resumed run must see the same ones, in the same order.

The digest of all stands in every checkpoint. What few bytes each example has of its own stand in the run's folder, to
name the first one that differs.
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
SHORT = 8  # hexadecimal digits of one example in the file


class Identity(NamedTuple):
    """Of the training and the held-out examples: token ids, loss masks and order; their names do not count."""

    digest: str  # SHA-256 of all
    training: str  # SHORT digits an example
    held_out: str

    def keep(self, run_dir: Path) -> None:
        """Writes the file that `check_same` names the first difference by."""
        write_whole(run_dir / FILE, json.dumps(self._asdict()) + "\n")


def identity_of(training: Corpus, held_out: Corpus) -> Identity:
    """The identity of a run's examples."""
    of_all, shorts = hashlib.sha256(), []
    for corpus in (training, held_out):
        digests = [
            hashlib.sha256(example.token_ids.tobytes() + example.loss_mask.tobytes()).hexdigest()
            for example in corpus.examples
        ]
        of_all.update(f"{len(digests)}:{''.join(digests)}".encode())
        shorts.append("".join(digest[:SHORT] for digest in digests))
    return Identity(of_all.hexdigest(), *shorts)


def check_same(before: str, now: Identity, run_dir: Path, names: Sequence[Sequence[str]], place: Path) -> None:
    """Raises UserError where `before`, a checkpoint's digest, is not that of the examples there are now.

    `names` are the ids of the training and of the held-out examples now, `place` is what the folder is called.
    """
    if before == now.digest:
        return
    kept = read_earlier(run_dir / FILE, bound=False) or {}
    said = "which of them cannot be told"
    if kept.get("digest") == before and all(isinstance(kept.get(name), str) for name in Identity._fields):
        differences = (
            _difference("training", kept["training"], now.training, names[0]),
            _difference("held-out", kept["held_out"], now.held_out, names[1]),
        )
        said = next(filter(None, differences), said)
    raise UserError(
        f"{place} holds a run on other examples: {said}; bring back the data it had, or choose another --run-dir"
    )


def _difference(kind: str, old: str, new: str, ids: Sequence[str]) -> str | None:
    """The first difference in words; None where there is none."""
    before, now = ([text[i : i + SHORT] for i in range(0, len(text), SHORT)] for text in (old, new))
    if before == now:
        return None
    pairs = zip(before, now, strict=False)
    index = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(before), len(now)))
    counts = f"{len(now):,}" if len(now) == len(before) else f"{len(now):,}, where there were {len(before):,}"
    if sorted(before) == sorted(now):
        counts += ", all in another order"
    what = f"number {index + 1} (id {ids[index]}) is another" if index < len(now) else "the last ones are missing"
    return f"of the {kind} examples ({counts}) {what}" + (" or new" if len(now) > len(before) else "")
