"""Convert a model between the layouts of Hugging Face and Orbax: `python -m s1_jax.convert --source DIR --target DIR`.

The source decides the direction:

- A folder or hub id in Hugging Face layout (config.json, model.safetensors) becomes an Orbax folder of the parameters,
  with config.json and the tokenizer's files beside them.
- Such an Orbax folder, the folder of a training run or its checkpoints/ becomes a folder in Hugging Face layout, made
  from the latest step.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from s1_jax.checkpoints import hf, orbax
from s1_jax.checkpoints.folder import resolve, whole_folder
from s1_jax.config.convert import ConvertConfig
from s1_jax.errors import UserError
from s1_jax.runtime.cli import parse, program, run_main
from s1_jax.runtime.locks import locked_file
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.terminal import say

PROG = program("convert")


def main(argv: list[str] | None = None) -> None:
    """Convert a model, in the direction that its source decides. Raises UserError if it cannot be converted."""
    config = parse(ConvertConfig, sys.argv[1:] if argv is None else argv, PROG, description=__doc__)
    target = as_path(config.target)
    dtype = None if config.dtype is None else jnp.dtype(config.dtype)
    with locked_file(target):
        if target.exists():
            raise UserError(f"{target} exists; name a folder that does not, or remove it first")
        steps = steps_folder(as_path(config.source))
        if steps is None:
            to_orbax(config.source, target, dtype)
        else:
            to_hf(steps, target, dtype)
    say(f"{target} is written in {'Orbax' if steps is None else 'Hugging Face'} layout")


def steps_folder(source: Path) -> Path | None:
    """Return the folder of Orbax steps at or in `source`; None if it is neither a training run nor an Orbax folder."""
    for folder in (source / "checkpoints", source):
        if folder.is_dir() and any(child.name.isdecimal() and child.is_dir() for child in folder.iterdir()):
            return folder
    return None


def to_orbax(source: str, target: Path, dtype: Any) -> None:
    """Write a Hugging Face checkpoint as step 0 of an Orbax folder, with its config and tokenizer."""
    folder = resolve(source)
    config, params = hf.load_params(folder, dtype=dtype)
    with whole_folder(target) as partial:
        checkpointer = orbax.Checkpointer(partial, keep=1)
        checkpointer.save(0, {"params": params}, meta={})
        checkpointer.close()
        hf.write_config(partial, config, params, tokenizer_from=folder)


def to_hf(steps: Path, target: Path, dtype: Any) -> None:
    """Write the newest step of an Orbax folder as a Hugging Face checkpoint."""
    params, meta = orbax.restore_params(steps)
    origin = origin_folder(steps, meta)
    # decided by the trained parameters, because the folder that training started from may have changed since
    config = dataclasses.replace(hf.load_config(origin), tie_word_embeddings="lm_head" not in params)
    hf.save_params(target, config, params, dtype=dtype, tokenizer_from=origin)


def origin_folder(steps: Path, meta: dict[str, Any]) -> Path:
    """Find the model's config.json and tokenizer: beside the steps, or in the model that the run started from."""
    if (steps / "config.json").is_file():
        return steps
    try:
        path = meta["config"]["model"]["path"]
    except (KeyError, TypeError):
        raise UserError(f"{steps} has no config.json, and its steps do not say which model they began from") from None
    try:
        return resolve(path)
    except UserError as error:
        raise UserError(f"this run's config and tokenizer are those of its model.path, {path}: {error}") from None


if __name__ == "__main__":
    run_main(main)
