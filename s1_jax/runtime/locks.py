"""One run writes into a folder or file at a time.

Whoever writes holds a lock of the system's (flock) on a small file of its own, in which it says who it is. The lock
ends with the process, however that ends; a file that is left behind binds nobody. A bucket has no such locks, and some
file systems have none either: there nothing keeps two runs apart.
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
LONGEST = 500  # bytes that are read of a lock


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Within, the folder is this run's alone to write into; it is made for that, and removed if it stays empty.

    Of several processes of one run the first holds the lock for all; each must enter. Raises UserError that names the
    process which holds it.
    """
    with _locked(folder, folder / LOCK):
        yield


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """The same for one file, or for a folder that appears under its name later; what is made is the folder above."""
    real = path if in_bucket(path) else Path(os.path.realpath(path))  # by whatever name it is called
    with _locked(path, real.with_name(f".{real.name}{LOCK}")):
        yield


@contextmanager
def _locked(path: Path, lock: Path) -> Iterator[None]:
    if in_bucket(path):
        yield
        return
    several = jax.distributed.is_initialized()  # asked first: without several, no backend is started for this
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
            raise UserError(f"{said}; wait for it, end it, or name another place")
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                lock.unlink()  # while it is held: later it may be another process's
            os.close(descriptor)
        for folder in new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _taken(lock: Path) -> int | None:
    """The lock's file descriptor, held; None where there can be no lock: what else is written there shows why.

    Raises BlockingIOError where another process holds it.
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
            pass  # whoever held it has removed it: a new one is made
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        os.close(descriptor)
    with suppress(OSError):  # a full disk: the lock holds, without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_own_name()}\n".encode(errors="replace"))
    return descriptor


def _own_name() -> str:
    """Without the command's options: they may hold what is not to be written down."""
    command = sys.modules["__main__"]
    name = getattr(getattr(command, "__spec__", None), "name", None) or Path(sys.argv[0]).name
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}: {name}, since {since}"


def _holder(lock: Path) -> str:
    with suppress(OSError), lock.open("rb") as file:
        said = file.read(LONGEST).decode(errors="replace").strip()
        if said and said.isprintable():
            return said
    return "a process that does not say who it is"
