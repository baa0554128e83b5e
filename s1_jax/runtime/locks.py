"""Locks that let only one run at a time write into a folder or a file.

The writer holds an flock on a small lock file, in which it names itself. The lock ends with the process, however that
ends; a lock file that is left behind locks nobody out. Buckets and some file systems have no such locks: there nothing
keeps two runs apart.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import jax

from s1_jax.errors import UserError
from s1_jax.runtime.processes import any_of, is_first
from s1_jax.runtime.storage import in_bucket

LOCK = ".s1_jax.lock"
RECORDS = "records.jsonl"  # what `evaluate` and `grade` write into the folder that they lock
LONGEST = 500  # bytes that are read of a lock file


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for the block; the folder is created, and removed again if it stays empty.

    In a run of several processes every process must enter; the first holds the lock for all of them. Raises UserError
    that names the process which holds the lock.
    """
    with _locked(folder, folder / LOCK):
        yield


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock of one file, or of a folder that appears under this name later; the folder above is created.

    A file named records.jsonl shares the lock of its folder, so that no command writes into the records of a running
    sweep. Raises UserError as `locked_folder` does.
    """
    real = path if in_bucket(path) else Path(os.path.realpath(path))  # whichever link leads to it
    with _locked(path, real.with_name(LOCK if real.name == RECORDS else f".{real.name}{LOCK}")):
        yield


@contextmanager
def _locked(path: Path, lock: Path) -> Iterator[None]:
    if in_bucket(path):
        yield
        return
    several = jax.distributed.is_initialized()  # without several processes, no backend is started for a lock
    holding = not several or is_first()
    new = [folder for folder in lock.parents if not folder.exists()] if holding else []
    descriptor, refused = None, False
    try:
        if holding:
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = _taken(lock)
            except BlockingIOError:
                refused = True
        if any_of(refused) if several else refused:
            said = f"{path} is being written by another run ({_holder(lock)})"
            raise UserError(f"{said}; wait for it to end, stop it, or choose another output")
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                lock.unlink()  # before it is released: then it may be another process's
            os.close(descriptor)
        for folder in new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _taken(lock: Path) -> int | None:
    """Take the lock and return its file descriptor; None where no lock file can be made.

    The command's own first write into that place then says what is wrong with it.

    Raises BlockingIOError if another process holds it.
    """
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        except FileNotFoundError:
            pass  # its last holder has just removed it: make a new one
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        os.close(descriptor)
    with suppress(OSError):  # a full disk: the lock holds, but names nobody
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_own_name()}\n".encode(errors="replace"))
    return descriptor


def _own_name() -> str:
    """Name this process without its options, which may hold secrets."""
    command = sys.modules["__main__"]
    name = getattr(getattr(command, "__spec__", None), "name", None) or Path(sys.argv[0]).name
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}: {name}, since {since}"


def _holder(lock: Path) -> str:
    with suppress(OSError), lock.open("rb") as file:
        said = file.read(LONGEST).decode(errors="replace").strip()
        if said and said.isprintable():
            return said
    return "a process that does not name itself"
