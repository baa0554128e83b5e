"""The end-of-text tokens that a checkpoint itself declares."""

from __future__ import annotations

from pathlib import Path

from s1_jax.checkpoints.folder import WITHOUT_WEIGHTS, resolve
from s1_jax.config.model_fields import Fields
from s1_jax.runtime.json_input import read_object


def declared_stops(path: str | Path, vocab_size: int) -> tuple[int, ...]:
    """Return `eos_token_id` of generation_config.json, or of config.json if there is no such file, with each id once.

    As in transformers, a generation_config.json without the field declares nothing. Ids outside a vocabulary of
    `vocab_size`, which no model can sample, are left out. Raises UserError if the field is neither a whole number nor a
    list of whole numbers.
    """
    folder = resolve(path, WITHOUT_WEIGHTS)
    file = folder / "generation_config.json"
    if not file.exists():
        file = folder / "config.json"
    fields = Fields(read_object(file), str(file))
    declared = fields.values.get("eos_token_id")
    ids = [] if declared is None else declared if isinstance(declared, list) else [declared]
    if any(type(i) is not int for i in ids):
        fields.refuse("eos_token_id", declared, "it must be a token id or a list of token ids")
    return tuple(sorted({i for i in ids if 0 <= i < vocab_size}))
