"""Files that a restart reads are replaced whole: at any moment a name holds the old file or the new one, never a part.

What is written goes into a temporary sibling first, whose name no other process has, and takes the file's name once it
is on disk. Objects in a bucket appear whole anyway.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from s1_jax.errors import UserError
from s1_jax.runtime.json_input import read_object
from s1_jax.runtime.storage import in_bucket

TEMPORARY = ".partial"
UNNAMED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a write, without the file's name
KEPT_OF_NAME = 40  # characters: with those that are added, a name must stay below 255 bytes


def write_whole(path: Path, contents: str | bytes) -> None:
    """Replaces a file, here or in a bucket, as a whole; text is UTF-8. Raises OSError; then the file is as before."""
    with whole_file(path) as beside:
        beside.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end of the `with`; after an error it is removed.

    In a bucket, and where `path` is a device or a pipe, it is `path` itself. Links are followed. What a killed process
    left of an earlier try is removed. Raises OSError where the file cannot be put in its place.
    """
    if in_bucket(path) or (path.exists() and not path.is_file()):
        yield path
        return
    path = Path(os.path.realpath(path))
    begin = f".{path.name[:KEPT_OF_NAME]}."
    _remove_leftovers(path.parent, begin)
    beside = path.with_name(f"{begin}{uuid4().hex}{TEMPORARY}")
    try:
        with beside.open("wb") as file:
            with suppress(OSError):  # a file system without locks: what a kill leaves of this one stays
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield beside
            os.fsync(file.fileno())
            os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(beside)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the name that nobody knows
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def appended(path: Path) -> Iterator[TextIO]:
    """A local file opened to append UTF-8 text to. Raises OSError, which names the file, where it cannot be written."""
    with named(path), path.open("a", encoding="utf-8") as file:
        yield file


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives a failed write within the `with`, such as one to a full disk, the name of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in UNNAMED:
            error.filename = str(path)
        raise


def read_earlier(path: Path, bound: bool) -> dict[str, Any] | None:
    """The JSON object that an earlier start wrote; None where there is no file, or a broken one that binds nothing.

    Earlier versions could leave half a file. Raises UserError, with what to do, where it is broken and `bound`: there
    is more that goes by it.
    """
    if not path.exists():
        return None
    try:
        return read_object(path, ours=True)
    except UserError as error:
        if not bound:
            return None
        raise UserError(f"{error}; bring it back, or remove it: the same command then writes it anew") from None


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on disk, where its file system can do so."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _remove_leftovers(folder: Path, begin: str) -> None:
    """Removes temporary files of processes that are gone: those that nobody holds a lock on."""
    for path in folder.glob(f"{escape(begin)}{'?' * 32}{TEMPORARY}"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
