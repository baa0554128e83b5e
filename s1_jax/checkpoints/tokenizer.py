"""The tokenizer in a model's folder, loaded as its own tokenizer.json describes it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s1_jax.checkpoints.folder import WITHOUT_WEIGHTS, copy_tokenizer, resolve
from s1_jax.errors import UserError
from s1_jax.runtime.json_input import read_object
from s1_jax.runtime.storage import in_bucket, one_line

SETTINGS, WHOLE, PARTS = "tokenizer_config.json", "tokenizer.json", ("vocab.json", "merges.txt")
OBJECTS = (SETTINGS, "special_tokens_map.json", "added_tokens.json")  # small, so checked before transformers reads them
END = "<|endoftext|>"  # end and padding token of a Qwen2 tokenizer that names no others
REASON_SHOWN = 400  # characters of the library's error that a message repeats
PROBE = "A probe: 12 + 3"


def load_tokenizer(path: str | Path) -> Any:
    """Load the transformers tokenizer of a checkpoint in a folder or on the hub, without its weights.

    It splits text as tokenizer.json says. For every model of type qwen2, transformers' AutoTokenizer replaces the
    file's normalizer and pre-tokenizer by Qwen2's. A model that was trained with others would get tokens that it never
    saw.

    Raises UserError, which names the folder and the problem, if there is no tokenizer that can be read.
    """
    folder = resolve(path, WITHOUT_WEIGHTS)
    whole, settings = folder / WHOLE, folder / SETTINGS
    if not settings.is_file():
        raise UserError(f"{folder} has no tokenizer ({SETTINGS} and {WHOLE})")
    if not whole.is_file() and not all((folder / name).is_file() for name in PARTS):
        raise UserError(f"{folder} has no vocabulary: neither {WHOLE} nor {' and '.join(PARTS)}")
    given = {name: read_object(folder / name) for name in OBJECTS if (folder / name).is_file()}
    if not whole.is_file() and "auto_map" in given[SETTINGS]:
        raise UserError(
            f"{settings}: the tokenizer is Python code of the folder's own (auto_map), which is never run; "
            f"save it as {WHOLE} where that code is trusted"
        )
    if not in_bucket(folder):
        return _load(folder, folder)
    with TemporaryDirectory() as here:
        copy_tokenizer(folder, Path(here))
        if (folder / "config.json").is_file():
            (Path(here) / "config.json").write_bytes((folder / "config.json").read_bytes())
        return _load(Path(here), folder)


def _load(folder: Path, origin: Path) -> Any:
    """Load the tokenizer of a local folder with the files of `origin`, which errors name."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # slow to import, and not needed for weights

    whole = (folder / WHOLE).is_file()
    try:
        kind = PreTrainedTokenizerFast if whole else AutoTokenizer
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        given = read_object(folder / SETTINGS)
        for name in ("eos_token", "pad_token"):
            if name not in given and getattr(tokenizer, name) is None and END in tokenizer.get_vocab():
                setattr(tokenizer, name, END)
        tokenizer.decode(tokenizer.encode(PROBE))  # settings of a wrong type fail only when they are used
        if not isinstance(tokenizer.chat_template, str | dict | None):
            raise TypeError(f"chat_template is {tokenizer.chat_template!r}, not a string")
    except BaseException as error:  # tokenizers raises bare Exception, and a panic is not even that
        if not _is_of_library(error):
            raise
        files = f"{SETTINGS} and the rest" if whole else " and ".join(PARTS)
        if whole and (of_file := _reason(folder / WHOLE, origin / WHOLE)):
            files, error = WHOLE, of_file
        said = one_line(error)[:REASON_SHOWN]
        raise UserError(f"the tokenizer in {origin} cannot be read ({files}): {said}") from None
    return tokenizer


def _reason(file: Path, origin: Path) -> BaseException | None:
    """Return the error of reading tokenizer.json by itself, or None if it can be read."""
    from tokenizers import Tokenizer

    read_object(origin)
    try:
        Tokenizer.from_file(str(file))
    except BaseException as error:
        if not _is_of_library(error):
            raise
        return error
    return None


def _is_of_library(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
