"""Places in a bucket: `gs://BUCKET/FOLDER` wherever a path is taken.

Objects appear whole or not at all, and cannot be appended to. So weights, checkpoints and data are read and written
there directly, while the files a run appends to are written on this machine's disk and followed by copies (`mirrored`).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from s1_jax.errors import RunError, UserError

BUCKETS = "gs://"
COPY_SECONDS = 10.0  # what a kill loses at most of records and metrics
CHUNK = 2**25  # bytes of one read or write of a long object
CLIENTS = ("aiohttp", "gcsfs", "google", "requests")  # packages whose errors tell that a bucket cannot be reached


def as_path(place: str | Path) -> Path:
    """A path on this machine, or in a bucket: then an etils.epath.Path, which has pathlib's methods, but for `stat`'s
    fields (`size_of`), appending and locks.

    Raises UserError on an empty path or another kind of URL, and where the client of buckets is not installed.
    """
    text = str(place)
    if not text.strip():  # as a path it would be the current folder
        raise UserError("an empty path; name a file or a folder")
    if "://" not in text:
        return Path(text).expanduser()
    if not text.startswith(BUCKETS) or not text[len(BUCKETS) :].split("/")[0]:
        raise UserError(f"{text}: of URLs only gs://BUCKET/FOLDER is known")
    _set_up_client(text)
    from etils import epath  # slow to import

    return cast(Path, epath.Path(text))


def in_bucket(path: Path) -> bool:
    """Whether `as_path` made it of a URL."""
    return str(path).startswith(BUCKETS)


def check_input(path: Path) -> None:
    """Raises UserError where `path` is a device or a pipe, which may never end or never begin: /dev/zero, a FIFO.

    Whatever opens a file that a user has named asks this first. What is not there is for the reading to say.
    """
    if not in_bucket(path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a device or a pipe; name a file")


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    about: Any = path.stat()
    return about.length if in_bucket(path) else about.st_size


def files_below(folder: Path) -> list[str]:
    """All files of a folder and its subfolders, links followed, as sorted paths within it with "/" between."""
    if in_bucket(folder):
        import fsspec

        place = str(folder).removeprefix(BUCKETS).rstrip("/") + "/"
        found = fsspec.filesystem("gcs").find(str(folder))
        return sorted(name.removeprefix(place) for name in found if not name.endswith("/"))
    names, seen = [], set[str]()
    for here, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(here, name)) not in seen]  # a circle
        names += [Path(here, name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in names if (folder / name).is_file())


def read_ranges(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """A file's bytes from each begin up to its end; in a bucket several are under way at once."""
    if in_bucket(path):
        import fsspec

        begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
        read = fsspec.filesystem("gcs").cat_ranges([str(path)] * len(ranges), begins, ends, on_error="raise")
        return [bytes(part) for part in read]
    check_input(path)
    with path.open("rb") as file:
        return [os.pread(file.fileno(), end - begin, begin) for begin, end in ranges]


def remove_folder(path: Path) -> None:
    """Removes a folder with all it holds, where there is one."""
    if in_bucket(path):
        cast(Any, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def one_line(error: BaseException) -> str:
    """What an error says, without more than the two lines that a bucket's client takes."""
    said = str(error).strip() or type(error).__name__
    if isinstance(error, FileNotFoundError):  # of which the client gives the URL alone
        said = f"not found: {said}"
    return " ".join(said.splitlines()[:2])


def explained(error: BaseException) -> str | None:
    """One line on a bucket that could not be reached; None for an error that is none of its client's."""
    if type(error).__module__.split(".")[0] not in CLIENTS:
        return None
    return f"the bucket cannot be reached: {one_line(error)}"


class Mirror:
    """Files on this machine whose copies follow into a bucket; where the place is no bucket, the place itself.

    `place` is what was named: what is large goes there directly. `local` is where small files are read and written.
    """

    def __init__(self, place: Path, names: str):
        self.place, self._names = place, names
        self.local = place
        if in_bucket(place):
            self.local = Path(tempfile.mkdtemp(prefix="s1_jax-"), place.name)  # some name a run by its folder
            self.local.mkdir()
        self._copied = dict[str, tuple[int, int]]()  # path within -> time and size when it was copied
        self._lock = threading.Lock()

    def fetch(self) -> None:
        """Makes what lies directly in the place, as it is now, what lies here. What `keep` has not copied is lost."""
        if not in_bucket(self.place):
            return
        with self._lock:
            found = {path.name: path for path in self.place.iterdir()} if self.place.exists() else {}
            for name, path in found.items():
                if fnmatch(name, self._names) and not path.is_dir():
                    (self.local / name).write_bytes(path.read_bytes())
                    self._copied[name] = _state(self.local / name)
            for name in [name for name in self._copied if "/" not in name and name not in found]:
                (self.local / name).unlink()
                del self._copied[name]

    def keep(self) -> None:
        """Copies what is new or has changed into the place, then removes there what was removed here."""
        if not in_bucket(self.place):
            return
        with self._lock:
            found = {str(path.relative_to(self.local)): path for path in self.local.rglob("*") if path.is_file()}
            for name, path in found.items():
                try:
                    state = _state(path)  # before it is read: what is appended meanwhile goes with the next copy
                    if self._copied.get(name) != state:
                        with path.open("rb") as source, (self.place / name).open("wb") as target:
                            shutil.copyfileobj(source, target, CHUNK)
                        self._copied[name] = state
                except FileNotFoundError:
                    if path.exists():
                        raise  # it is the bucket that is not there
            for name in self._copied.keys() - found.keys():
                (self.place / name).unlink(missing_ok=True)
                del self._copied[name]

    def remove(self) -> None:
        """Removes what was written here, of a place in a bucket."""
        if in_bucket(self.place):
            shutil.rmtree(self.local.parent, ignore_errors=True)

    def shown(self, path: Path) -> Path:
        """The path, in the place, of a file that lies in `local`."""
        return self.place / path.relative_to(self.local)


@contextmanager
def mirrored(place: str | Path, names: str = "*") -> Iterator[Mirror]:
    """A folder to read and append to files in, also in a bucket: within, copies follow every COPY_SECONDS.

    Of what the folder holds, files directly in it whose names match `names` are brought here first. Raises UserError
    where the bucket cannot be read, RunError where what was written here could not be copied in the end, and then
    leaves it here and names the place.
    """
    mirror = Mirror(as_path(place), names)
    if not in_bucket(mirror.place):
        yield mirror
        return
    try:
        mirror.fetch()
    except Exception as error:
        mirror.remove()
        raise UserError(f"{place} cannot be read: {one_line(error)}") from None
    left = threading.Event()
    follower = threading.Thread(target=_follow, args=(mirror, left), daemon=True)
    follower.start()
    try:
        yield mirror
    finally:
        left.set()
        follower.join()
        try:
            mirror.keep()
        except Exception as error:
            said = f"{place} cannot be written ({one_line(error)}); its files are in {mirror.local}"
            raise RunError(said) from None
        mirror.remove()


def _follow(mirror: Mirror, left: threading.Event) -> None:
    """Copies until `left`; a bucket that cannot be reached for a while is warned about once."""
    warned = False
    while not left.wait(COPY_SECONDS):
        try:
            mirror.keep()
        except Exception as error:
            if not warned:
                warnings.warn(f"{mirror.place} cannot be written now ({one_line(error)}); trying on", stacklevel=1)
            warned = True


def _set_up_client(place: str) -> None:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{place}: buckets need gcsfs, the extra gcs of this project: pip install 's1_jax[gcs]'")
    import fsspec

    os.environ.setdefault("EPATH_USE_TF", "false")  # one client, also where TensorFlow happens to be installed
    # it would answer from listings it made before other processes, or tensorstore, wrote
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it logs it also raises


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size
