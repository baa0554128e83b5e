"""Folders: one that appears under its name only when whole, and the local folder behind a hub id."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import jax

from s1_jax.config import UserError

EXPECTED = "a model is a folder with config.json and model.safetensors, or a hub id such as Qwen/Qwen2.5-0.5B"
DOWNLOADED = ("*.json", "*.safetensors", "*.txt", "*.jinja")
TOKENIZER_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def run_folder(path: str) -> Path:
    """A run's folder. Raises UserError on a URL: buckets are not written to yet, mount one instead."""
    if "://" in path:
        raise UserError(f"run_dir {path} is a URL; give a folder, for instance one that the bucket is mounted at")
    return Path(path)


def resolve(path: str | Path) -> Path:
    """`path` where it is a folder; else the snapshot of the hub id it names, downloaded (no pickles).

    Raises UserError where it is neither, or the hub cannot be reached.
    """
    text = os.path.expanduser(str(path))
    if Path(text).is_dir():
        return Path(text)
    if Path(text).exists():
        raise UserError(f"{path} is a file; {EXPECTED}")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        raise UserError(f"no folder {path}; {EXPECTED}")
    try:
        return Path(huggingface_hub.snapshot_download(text, allow_patterns=list(DOWNLOADED)))
    except Exception as error:  # the client raises its own, its transport's and the system's errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no folder {path} here, and the model hub did not give it: {reason}") from None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write into, renamed to `path` at the end: a kill leaves nothing half there.

    An earlier checkpoint at `path` is replaced. Raises UserError where `path` holds anything else. With several
    processes all write into the same folder, and the first one renames.
    """
    if path.exists() and not (path / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not a checkpoint; name another folder")
    partial, previous = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.previous")
    if jax.process_index() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        if jax.process_index() == 0:
            shutil.rmtree(previous, ignore_errors=True)
            if path.exists():
                path.rename(previous)
            partial.rename(path)
            shutil.rmtree(previous, ignore_errors=True)
    finally:
        if jax.process_index() == 0:
            shutil.rmtree(partial, ignore_errors=True)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer's files and the generation config, those that are there, from one folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
