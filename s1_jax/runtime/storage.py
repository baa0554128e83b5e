"""Paths in a Google Cloud Storage bucket: `gs://BUCKET/FOLDER` works wherever a path is taken.

Objects appear whole or not at all, and cannot be appended to. So weights, checkpoints and data are read and written
there directly, while the files that a run appends to are written to the local disk and then copied (`mirrored`).
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
COPY_SECONDS = 10.0  # a kill loses at most this much of records and metrics
CHUNK = 2**25  # bytes of one read or write of a long object
CLIENTS = ("aiohttp", "gcsfs", "google", "requests")  # packages whose errors mean that a bucket cannot be reached


def as_path(place: str | Path) -> Path:
    """Make a path of text: a local Path, or for `gs://` an etils.epath.Path.

    The latter has pathlib's methods, except for the fields of `stat` (see `size_of`), appending and locks. Raises
    UserError on an empty path or another kind of URL, and if the bucket client is not installed.
    """
    text = str(place)
    if not text.strip():  # Path("") is the current folder
        raise UserError("an empty path; name a file or a folder")
    if "://" not in text:
        return Path(text).expanduser()
    if not text.startswith(BUCKETS) or not text[len(BUCKETS) :].split("/")[0]:
        raise UserError(f"{text}: the only URLs that can be paths are gs://BUCKET/FOLDER")
    _set_up_client(text)
    from etils import epath  # slow to import

    return cast(Path, epath.Path(text))


def in_bucket(path: Path) -> bool:
    """Whether a path of `as_path` is in a bucket."""
    return str(path).startswith(BUCKETS)


def check_input(path: Path) -> None:
    """Raise UserError if `path` is a device or a pipe, such as /dev/zero, from which reading may never end.

    Call it before opening any file that a user has named. A missing file passes; opening it fails later.
    """
    if not in_bucket(path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a device or a pipe; name a file")


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    about: Any = path.stat()
    return about.length if in_bucket(path) else about.st_size


def files_below(folder: Path) -> list[str]:
    """List all files below a folder, following links, as sorted relative paths separated by "/"."""
    if in_bucket(folder):
        import fsspec

        place = str(folder).removeprefix(BUCKETS).rstrip("/") + "/"
        found = fsspec.filesystem("gcs").find(str(folder))
        return sorted(name.removeprefix(place) for name in found if not name.endswith("/"))
    names, seen = [], set[str]()
    for here, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [
            name for name in folders if os.path.realpath(os.path.join(here, name)) not in seen
        ]  # a link to a folder above
        names += [Path(here, name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in names if (folder / name).is_file())


def read_ranges(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read the byte ranges (begin, end) of a file; in a bucket, several at once."""
    if in_bucket(path):
        import fsspec

        begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
        read = fsspec.filesystem("gcs").cat_ranges([str(path)] * len(ranges), begins, ends, on_error="raise")
        return [bytes(part) for part in read]
    check_input(path)
    with path.open("rb") as file:
        return [os.pread(file.fileno(), end - begin, begin) for begin, end in ranges]


def remove_folder(path: Path) -> None:
    """Remove a folder with everything in it, if it exists."""
    if in_bucket(path):
        cast(Any, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, made of at most its first two lines."""
    said = str(error).strip() or type(error).__name__
    if isinstance(error, FileNotFoundError):  # the bucket client gives only the URL
        said = f"not found: {said}"
    return " ".join(said.splitlines()[:2])


def explained(error: BaseException) -> str | None:
    """Explain an error of the bucket client in one line; None for any other error."""
    if type(error).__module__.split(".")[0] not in CLIENTS:
        return None
    return f"the bucket cannot be reached: {one_line(error)}"


class Mirror:
    """A local folder whose files are copied to a folder in a bucket; for a local place, that folder itself.

    `place` is the folder that the user named; large files go there directly. Small files are read and written in
    `local`.
    """

    def __init__(self, place: Path, names: str):
        self.place, self._names = place, names
        self.local = place
        if in_bucket(place):
            self.local = Path(
                tempfile.mkdtemp(prefix="s1_jax-"), place.name
            )  # keeps the name, which some code shows as the name of the run
            self.local.mkdir()
        self._copied = dict[str, tuple[int, int]]()  # relative path -> modification time and size of the copied version
        self._lock = threading.Lock()

    def fetch(self) -> None:
        """Make the local files equal to those directly in the place; local changes since the last `keep` are lost."""
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
        """Copy new and changed files to the place, then remove files there that were removed locally."""
        if not in_bucket(self.place):
            return
        with self._lock:
            found = {str(path.relative_to(self.local)): path for path in self.local.rglob("*") if path.is_file()}
            for name, path in found.items():
                try:
                    state = _state(path)  # taken before reading, so that later appends go with the next copy
                    if self._copied.get(name) != state:
                        with path.open("rb") as source, (self.place / name).open("wb") as target:
                            shutil.copyfileobj(source, target, CHUNK)
                        self._copied[name] = state
                except FileNotFoundError:
                    if path.exists():
                        raise  # the bucket is missing, not the file
            for name in self._copied.keys() - found.keys():
                (self.place / name).unlink(missing_ok=True)
                del self._copied[name]

    def remove(self) -> None:
        """Remove the local copy of a place in a bucket."""
        if in_bucket(self.place):
            shutil.rmtree(self.local.parent, ignore_errors=True)

    def shown(self, path: Path) -> Path:
        """Return the path in the place of a file in `local`, to be shown to the user."""
        return self.place / path.relative_to(self.local)


@contextmanager
def mirrored(place: str | Path, names: str = "*") -> Iterator[Mirror]:
    """Open a folder, local or in a bucket, to read files and append to them.

    For a bucket, files directly in the folder whose names match `names` are downloaded first, and changes are copied
    back every COPY_SECONDS. Raises UserError if the bucket cannot be read. Raises RunError if the last copy fails; then
    the files stay in a local folder that the error names.
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
    """Copy until `left` is set; warn once about a bucket that cannot be reached for a while."""
    warned = False
    while not left.wait(COPY_SECONDS):
        try:
            mirror.keep()
        except Exception as error:
            if not warned:
                warnings.warn(f"{mirror.place} cannot be written now ({one_line(error)}); retrying", stacklevel=1)
            warned = True


def _set_up_client(place: str) -> None:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{place}: buckets need gcsfs, the extra gcs of this project: pip install 's1_jax[gcs]'")
    import fsspec

    os.environ.setdefault("EPATH_USE_TF", "false")  # the same client even if TensorFlow is installed
    # a cached listing would miss what other processes or tensorstore wrote
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it also raises what it logs


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size
