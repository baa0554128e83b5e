"""Folders of models: found from a path, a URL or a hub id, and written so that they appear only when complete."""

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
WRITTEN_LAST = "config.json"  # last file written into a model's folder; without it the folder is no model
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
BLOCKS = 64  # number that a fingerprint reads, evenly spread over a file; smaller files are read whole


def resolve(path: str | Path, files: tuple[str, ...] = DOWNLOADED) -> Path:
    """Return the folder of a model: `path` itself, local or in a bucket, or the snapshot of a hub id.

    Only the files of a hub id that match `files` are downloaded; the default leaves out pickles. Raises UserError if
    `path` is neither a folder nor a hub id, or if the bucket or the hub cannot be reached.
    """
    if in_bucket(folder := as_path(path)):
        try:
            if (folder / "config.json").exists():
                return folder
        except Exception as error:  # errors of the bucket's client, and of its transport
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
    """Compute a SHA-256 of a model's config, tokenizer and weights, each file by its size and evenly spread blocks."""
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
    """Yield a temporary sibling of `path` to write into, and rename it to `path` at the end.

    A kill therefore leaves no incomplete folder at `path`. In a bucket, where folders cannot be renamed, `path` itself
    is yielded, and it is complete once it has WRITTEN_LAST. An earlier checkpoint at `path` is replaced. Raises
    UserError if `path` has any other content. All processes write into the same folder; the first one renames it.
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
    """Raise UserError if `path` exists and is neither a checkpoint nor empty, so that it must not be replaced."""
    if not path.exists() or (path / WRITTEN_LAST).exists():
        return
    # in a bucket, an export that was killed has no config.json either
    there = [] if path.is_file() else [file for file in path.iterdir() if not (in_bucket(path) and _is_of_model(file))]
    if path.is_file() or there:
        raise UserError(f"{path} exists and is not a checkpoint; name another folder")


def _is_of_model(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name in (*TOKENIZER_FILES, "model.safetensors.index.json")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and the generation config, as far as they exist, from one folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            write_whole(target / name, (source / name).read_bytes())
