"""Folders: one that appears under its name only when whole, and the one behind a path, a URL or a hub id."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub

from s1_jax.errors import UserError
from s1_jax.runtime.files import sync_folder, write_whole
from s1_jax.runtime.processes import is_first, meet
from s1_jax.runtime.storage import as_path, check_input, in_bucket, one_line, read_ranges, remove_folder, size_of

EXPECTED = (
    "a model is a folder with config.json and model.safetensors, here or at gs://, or a hub id such as "
    "Qwen/Qwen2.5-0.5B"
)
WRITTEN_LAST = "config.json"  # of a model's folder: without it, it is none
WITHOUT_WEIGHTS = ("*.json", "*.txt", "*.jinja")
DOWNLOADED = (*WITHOUT_WEIGHTS, "*.safetensors")
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
BLOCK = 2**20  # bytes
BLOCKS = 64  # of a weights file, evenly spread, that its fingerprint reads; smaller files are read whole


def resolve(path: str | Path, files: tuple[str, ...] = DOWNLOADED) -> Path:
    """Return the folder of a model: `path` itself, local or in a bucket, or the snapshot of a hub id.

    Of a hub id, only files that match `files` are downloaded, and never pickles. Raises UserError if `path` is neither
    a folder nor a hub id, or if the bucket or the hub cannot be reached.
    """
    if in_bucket(folder := as_path(path)):
        try:
            if (folder / "config.json").exists():
                return folder
        except Exception as error:  # its client's, and its transport's
            raise UserError(f"{path}: {one_line(error)}") from None
        raise UserError(f"no config.json in {path}; {EXPECTED}")
    text = os.path.expanduser(str(path))
    check_input(Path(text))
    if Path(text).is_dir():
        return Path(text)
    if Path(text).exists():
        raise UserError(f"{path} is a file; {EXPECTED}")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        raise UserError(f"no folder {path}; {EXPECTED}")
    try:
        return Path(huggingface_hub.snapshot_download(text, allow_patterns=list(files)))
    except Exception as error:  # the client raises its own, its transport's and the system's errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no folder {path} here, and the model hub did not give it: {reason}") from None


def fingerprint(source: Path) -> str:
    """SHA-256 over the model's config, tokenizer and weights, the latter by their sizes and evenly spread blocks."""
    digest = hashlib.sha256()
    for path in sorted([source / "config.json", *source.glob("tokenizer*.json"), *source.glob("*.safetensors")]):
        size = size_of(path)
        digest.update(f"{path.name} {size}\n".encode())
        begins = [i * max(BLOCK, (size - BLOCK) // (BLOCKS - 1)) for i in range(min(BLOCKS, -(-size // BLOCK)))]
        for block in read_ranges(path, [(begin, min(begin + BLOCK, size)) for begin in begins]):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write into, renamed to `path` at the end: a kill leaves nothing half there.

    A bucket has no folders to rename: there it is `path` itself, and WRITTEN_LAST tells that it is whole. An earlier
    checkpoint at `path` is replaced. Raises UserError where `path` holds anything else. With several processes all
    write into the same folder, and the first one renames.
    """
    check_replaceable(path)
    if in_bucket(path):
        meet("the folder is looked at")
        if is_first():
            (path / WRITTEN_LAST).unlink(missing_ok=True)
            remove_folder(path)
        yield path
        return
    partial, previous = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.previous")
    if is_first():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        if is_first():
            shutil.rmtree(previous, ignore_errors=True)
            if path.exists():
                path.rename(previous)
            partial.rename(path)
            sync_folder(path.parent)
            shutil.rmtree(previous, ignore_errors=True)
    finally:
        if is_first():
            shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(path: Path) -> None:
    """Raises UserError where `path` is neither a checkpoint nor empty, so that none can be written in its place."""
    if not path.exists() or (path / WRITTEN_LAST).exists():
        return
    # in a bucket, what a kill left of an export has no config.json either
    there = [] if path.is_file() else [file for file in path.iterdir() if not (in_bucket(path) and _is_of_model(file))]
    if path.is_file() or there:
        raise UserError(f"{path} exists and is not a checkpoint; name another folder")


def _is_of_model(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name in (*TOKENIZER_FILES, "model.safetensors.index.json")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer's files and the generation config, those that are there, from one folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            write_whole(target / name, (source / name).read_bytes())
