"""Choice of the files of a folder that make up a split, by the rules of `datasets.load_dataset(folder)`.

    data/train-00000-of-00001.parquet     split train, if any file has a name of this form
    test/rows.jsonl                       else the name of a subfolder contains a split: train, valid, dev, eval, ...
    s1k_test.jsonl                        else the name of a file does
    rows.jsonl                            else all files are one split

`configs` in the folder's README.md take precedence. There are three differences from `datasets`: case is ignored, so
TEST.jsonl is not training data; files of unsupported kinds are ignored; and if no name contains a split, the files
serve as whichever split is asked for.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from s1_jax.errors import UserError
from s1_jax.runtime.storage import files_below

KINDS = ((".parquet", ".jsonl"), (".csv",))  # CSV files count only if there are no others
CARD = "README.md"
NAMES_SHOWN = 3  # file names in a message
Splits = dict[str, list[str]]  # name -> files, as paths within the folder


def split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of this split in a local folder or one in a bucket.

    Raises UserError, listing the splits found, if there are none, and if README.md cannot be understood.
    """
    names = _data_files(folder)
    if not names:
        raise UserError(f"{folder} contains no .jsonl, .parquet or .csv file")
    splits = _by_card(folder, names) or _by_name(names)
    if splits is None:
        chosen = names
    elif split in splits:
        chosen = splits[split]
    else:
        there = "; ".join(f"{name} ({_some(files)})" for name, files in splits.items())
        raise UserError(f"{folder} has no files of split {split!r}; it has {there}. Ask for one, or name a single file")
    return [folder / name for name in _of_one_kind(folder, chosen)]


def _data_files(folder: Path) -> list[str]:
    """List the files of supported kinds, without hidden files and those in hidden or private folders."""
    from datasets.data_files import FILES_TO_IGNORE  # slow to import

    def visible(name: PurePosixPath) -> bool:
        hidden = any(part.startswith(".") for part in name.parts)
        private = any(part.startswith("__") for part in name.parent.parts)
        return not hidden and not private and name.name not in FILES_TO_IGNORE

    names = [name for name in map(PurePosixPath, files_below(folder)) if visible(name)]
    found = ([str(name) for name in names if name.suffix in kinds] for kinds in KINDS)
    return next((names for names in found if names), [])


def _by_name(names: Sequence[str]) -> Splits | None:
    """Return the splits that the names indicate; None if they indicate none."""
    from datasets.data_files import DEFAULT_PATTERNS_ALL, _get_data_files_patterns

    lower = [name.lower() for name in names]
    patterns = _get_data_files_patterns(lambda pattern: _matching(pattern, lower))
    if patterns == DEFAULT_PATTERNS_ALL:
        return None
    return _resolved(patterns, names, lower)


def _by_card(folder: Path, names: Sequence[str]) -> Splits | None:
    """Return the splits of the default config in README.md; None if there is none."""
    from datasets.data_files import sanitize_patterns

    configs = _configs(folder / CARD)
    if not configs:
        return None
    try:
        default = configs.get_default_config_name()
        if default is None:
            raise ValueError(f"it has the configs {', '.join(configs)}, and none of them is the default")
        config = configs[default]
        within = posixpath.normpath(config.get("data_dir") or ".")
        inside = {posixpath.relpath(name, within): name for name in names}
        inside = {short: name for short, name in inside.items() if not short.startswith("../")}
        if config.get("data_files") is None:
            splits = _by_name(list(inside)) if inside else None
            splits = {"train": list(inside)} if splits is None else splits
        else:
            splits = _resolved(sanitize_patterns(config["data_files"]), list(inside), list(inside))
        if not any(splits.values()):
            raise ValueError(f"the files that it names for {', '.join(splits)} do not exist")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / CARD}: {error}; correct its `configs`, or give a single file") from None
    return {split: [inside[short] for short in shorts] for split, shorts in splits.items() if shorts}


def _configs(card: Path) -> Any:
    """Return the `configs` in the metadata of a README.md, by name."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return {}
    try:
        text = card.read_bytes().decode("utf-8-sig")
        if not text.lstrip().startswith("---"):
            return {}
        return MetadataConfigs.from_dataset_card_data(DatasetCard(text).data)
    except Exception as error:  # from YAML and two libraries
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"the metadata of {card} cannot be read: {said}") from None


def _resolved(patterns: dict[Any, list[str]], names: Sequence[str], matched: Sequence[str]) -> Splits:
    """Resolve each split's patterns to file names without duplicates; patterns are matched against `matched`."""
    by_match: dict[str, list[str]] = {}
    for name, match in zip(names, matched, strict=True):
        by_match.setdefault(match, []).append(name)
    splits: Splits = {}
    for split, several in patterns.items():
        found = dict.fromkeys(match for pattern in several for match in _matching(pattern, matched))
        splits[str(split)] = [name for match in found for name in by_match[match]]
    return splits


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    from fsspec.utils import glob_translate

    fits = re.compile(glob_translate(posixpath.normpath(pattern)))
    return [name for name in names if fits.match(name)]


def _of_one_kind(folder: Path, names: Sequence[str]) -> list[str]:
    """Keep the more frequent of two kinds of files (else Parquet), as `datasets` does, and warn about the others."""
    order = [kind for kinds in KINDS for kind in kinds]
    counts = Counter(PurePosixPath(name).suffix for name in names)
    kind = max(counts, key=lambda kind: (counts[kind], -order.index(kind)))
    left_out = [name for name in names if not name.endswith(kind)]
    if left_out:
        warnings.warn(f"{folder}: only {kind} files are read, not {_some(left_out)}", stacklevel=1)
    return [name for name in names if name.endswith(kind)]


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
