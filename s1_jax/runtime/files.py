"""Atomic replacement of files: at any moment a name holds the whole old file or the whole new one.

The new contents go into a temporary file beside it, whose name is unique, and that file is renamed once it is on disk.
Objects in a bucket appear whole anyway.
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
UNNAMED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a write, which do not name the file
KEPT_OF_NAME = 40  # characters of the file's name in the temporary one, which must stay below 255 bytes


def write_whole(path: Path, contents: str | bytes) -> None:
    """Replace a file, local or in a bucket, atomically; text is written as UTF-8.

    Raises OSError, and then leaves the file as it was.
    """
    with whole_file(path) as beside:
        beside.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` at the end of the block; after an error it is removed.

    In a bucket, and if `path` is a device or a pipe, the yielded path is `path` itself. Links are followed. Temporary
    files of killed processes are removed. Raises OSError if `path` cannot be replaced.
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
            with suppress(OSError):  # a file system without locks: a kill leaves this file behind
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield beside
            os.fsync(file.fileno())
            os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(beside)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the temporary name
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def appended(path: Path) -> Iterator[TextIO]:
    """Open a local file to append UTF-8 text to. Raises OSError that names the file if it cannot be written."""
    with named(path), path.open("a", encoding="utf-8") as file:
        yield file


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the name of the file to a failed write within the block, for instance on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in UNNAMED:
            error.filename = str(path)
        raise


def read_earlier(path: Path, bound: bool) -> dict[str, Any] | None:
    """Read the JSON object that an earlier start wrote; None if there is no file, or a broken one that is not `bound`.

    Earlier versions could leave half a file. `bound` says that other files depend on this one: if it is broken then,
    UserError is raised, with what to do.
    """
    if not path.exists():
        return None
    try:
        return read_object(path, ours=True)
    except UserError as error:
        if not bound:
            return None
        raise UserError(f"{error}; restore it, or remove it: the same command then writes it again") from None


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if its file system supports that."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _remove_leftovers(folder: Path, begin: str) -> None:
    """Remove the temporary files of ended processes, which are those that nobody holds a lock on."""
    for path in folder.glob(f"{escape(begin)}{'?' * 32}{TEMPORARY}"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
