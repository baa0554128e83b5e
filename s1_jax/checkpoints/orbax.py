"""Training state on disk, through Orbax: saved while training continues (except on CPU), restored onto any mesh.

A step is a folder that gets its name, or in a bucket its last file, only when it is complete. A kill during a save
therefore leaves the steps before it. Digests of all saved arrays are stored too, and restored arrays are compared with
them.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from s1_jax.checkpoints.digest import Digest, digests, json_digest, named
from s1_jax.errors import RunError, UserError
from s1_jax.model.transformer import Params
from s1_jax.runtime.json_input import loads
from s1_jax.runtime.processes import any_of, is_first, meet
from s1_jax.runtime.storage import as_path, in_bucket

REASON_LENGTH = 200  # characters of a reader's error that a message repeats
META = "checked"  # file of the meta and the digests, in the folder `meta`; versions without digests had another

# once one read has failed, which is raised, asyncio would log tracebacks of the reads that nobody waits for any more
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class DamagedError(Exception):
    """Raised for a checkpoint that differs from what was saved."""


class Checkpointer:
    """Writer and reader of the checkpoints in one folder, of which the newest `keep` are kept.

    A checkpoint consists of a `state`, any pytree of arrays, and `meta`, a JSON object: the config, and the position in
    the data as a global count of examples, which means the same for any number of processes.
    """

    def __init__(self, folder: str | Path, keep: int):
        self.folder = _absolute(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(barrier_sync_fn=_meet_unless_failed),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=_handlers())

    def latest_step(self) -> int | None:
        """Return the newest step saved, or None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Begin to save, and return once `state` may be donated. Waits for the previous save first.

        On CPU it returns once the state is on disk. Otherwise the next step would need memory for a second state while
        the first is written, and would compute on the cores that write it. On other devices the state is first copied
        to the host's memory, and training continues while the copy is written.

        Raises RunError if a save failed, or if the disk has no room for this one; earlier checkpoints stay.
        """
        self.wait()
        needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), _free_bytes(self.folder)
        full = free < needed  # checked first: when a save runs out of disk, each of its threads prints messages
        if any_of(full):
            here = f"{needed:,} bytes to write, {free:,} free in {self.folder}"
            raise RunError(f"no room to save step {step}: {here if full else 'another process says so'}")
        described = ocp.args.JsonSave(_described(meta, digests(state)))
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=described))
        if jax.default_backend() == "cpu":
            self.wait()

    def restore(self, target: Any) -> tuple[Any, dict[str, Any]]:
        """Restore the newest checkpoint that can be read, and return it with its meta.

        `target` is the state's tree of jax.ShapeDtypeStruct, each with the sharding of its array, on any mesh. A
        checkpoint is damaged if some process cannot read it, or if its arrays or meta differ from those that were saved
        (not checked in checkpoints without digests, from earlier versions). A damaged one is moved aside with a
        warning, and the one before it is used. Raises UserError if none can be read, or if the newest is of another
        model or optimizer.
        """
        # rebuilt, because Orbax refuses the leaves that jax.eval_shape makes under an abstract mesh
        leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), target)
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._restore_step(step, leaves)
            except DamagedError as error:
                damaged[step] = str(error)
                continue
            self._set_aside(damaged, used=step)
            return found
        said = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise UserError(f"{self.folder} has no checkpoint that can be read" + (f" ({said})" if said else ""))

    def wait(self) -> None:
        """Wait until every save is on disk. Raises RunError if one failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # Orbax's writers raise errors of many types
            raise RunError(f"a save into {self.folder} failed: {_reason(error)}") from error

    def close(self) -> None:
        """Wait as `wait` does, and release the folder."""
        self.wait()
        self._manager.close()

    def _restore_step(self, step: int, leaves: Any) -> tuple[Any, dict[str, Any]]:
        """Restore a step's state and meta.

        Raises DamagedError, in all processes if in one, and UserError as `restore` does.
        """
        path, reason = self.folder / str(step), None
        try:
            meta, saved = _read_meta(path)
            self._check_same(step, saved, leaves)
            state = _read_state(path, leaves)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes the readers raise errors of many types
            reason = _reason(error)
        if any_of(reason is not None):
            raise DamagedError(reason or "another process cannot read it")
        reason = _differing(saved, state)
        if any_of(reason is not None):
            raise DamagedError(reason or "another process found it changed")
        return state, meta

    def _check_same(self, step: int, saved: dict[str, Digest] | None, leaves: Any) -> None:
        """Raise UserError if other arrays are asked for than were saved: no damage, and no older step would help."""
        if saved is None:
            there = {name: tuple(x.shape) for name, x in named(self._manager.item_metadata(step)["state"].tree).items()}
        else:
            there = {name: shape for name, (_, shape, _) in saved.items()}
        asked = {name: tuple(leaf.shape) for name, leaf in named(leaves).items()}
        differing = sorted(name for name in there.keys() | asked.keys() if there.get(name) != asked.get(name))
        if differing:
            name = differing[0]
            raise UserError(
                f"step {step} in {self.folder} is of another model or optimizer: {len(differing)} arrays differ, first "
                f"{name} (saved: {there.get(name, 'absent')}, asked for: {asked.get(name, 'absent')})"
            )

    def _set_aside(self, damaged: dict[int, str], used: int) -> None:
        """Rename damaged steps, so that they can be saved again but nothing is lost."""
        for step, reason in damaged.items():
            path = self.folder / str(step)
            warnings.warn(f"checkpoint {path} is damaged ({reason}); resuming from step {used}", stacklevel=3)
            if is_first():
                path.rename(_free_name(self.folder / f"damaged-{step}"))
        if damaged:
            meet("damaged checkpoints are set aside")
            self._manager.reload()


def restore_params(folder: str | Path) -> tuple[Params, dict[str, Any]]:
    """Restore only the parameters of the newest checkpoint, and return them with its meta.

    They have the types that were saved and are on the first device. The folder, which a run may be writing to, is not
    changed. Raises UserError if there is nothing to read.
    """
    folder = _absolute(folder)
    folders = [child for child in folder.iterdir() if child.name.isdecimal() and child.is_dir()]
    steps = [int(child.name) for child in folders if is_whole(child)]
    if not steps:
        raise UserError(f"{folder} has no checkpoint")
    path = folder / str(max(steps))
    device = SingleDeviceSharding(jax.local_devices()[0])
    try:
        saved = ocp.PyTreeCheckpointHandler().metadata(path / "state").tree["params"]
        leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved)
        meta, digests_saved = _read_meta(path)
        state = _read_state(path, {"params": leaves})
        if reason := _differing(digests_saved, state):
            raise DamagedError(reason)
    except Exception as error:  # as in `_restore_step`
        raise UserError(f"{path} cannot be read: {_reason(error)}") from None
    return state["params"], meta


def is_whole(step: Path) -> bool:
    """Whether a step's folder is complete; in a bucket, it has its final name before that."""
    return bool(ocp.utils.is_checkpoint_finalized(step))


def _absolute(folder: str | Path) -> Path:
    path = as_path(folder)
    return path if in_bucket(path) else path.absolute()


def _free_bytes(folder: Path) -> float:
    return math.inf if in_bucket(folder) else shutil.disk_usage(folder).free


def _meet_unless_failed(*, key: str, timeout_ms: int) -> None:
    """Wait for all processes as Orbax does, except in one whose save failed: the others wait for that one elsewhere."""
    if sys.exc_info()[1] is not None:  # Orbax calls this in a `finally`
        raise
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _handlers() -> dict[str, Any]:
    # compression saves a twelfth of the disk space, but needs memory for a second copy of the whole state
    return {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "meta": ocp.JsonCheckpointHandler(META)}


def _read_state(path: Path, leaves: Any) -> Any:
    """Read the part of a step's state that `leaves` names.

    The handler is called directly, because Orbax's manager waits for all processes after a restore, even if one failed.
    """
    args = ocp.checkpoint_utils.construct_restore_args(leaves)
    state = ocp.args.PyTreeRestore(leaves, restore_args=args, partial_restore=True)
    return _handlers()["state"].restore(path / "state", args=state)


def _described(meta: dict[str, Any], saved: dict[str, Digest]) -> dict[str, Any]:
    return {"digest": json_digest([meta, saved]), "meta": meta, "arrays": saved}


def _read_meta(path: Path) -> tuple[dict[str, Any], dict[str, Digest] | None]:
    """Read a step's meta and the digests of its arrays, which are None if an earlier version saved it.

    Raises DamagedError, or an error of the readers, if they differ from what was saved.
    """
    file = path / "meta" / META
    if not file.exists():
        meta = ocp.JsonCheckpointHandler().restore(path / "meta", args=ocp.args.JsonRestore())
        if not isinstance(meta, dict):
            raise DamagedError("its meta is no JSON object")
        return dict(meta), None
    try:
        known = loads(file.read_bytes(), ours=True)
        meta, arrays = known["meta"], known["arrays"]
        same = known["digest"] == json_digest([meta, arrays])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"meta/{META}: {error}") from None
    if not same:
        raise DamagedError(f"meta/{META} is not what was saved")
    return meta, {name: (dtype, tuple(shape), checksum) for name, (dtype, shape, checksum) in arrays.items()}


def _differing(saved: dict[str, Digest] | None, state: Any) -> str | None:
    """Return a message that names an array of a state which differs from the one saved; None if no difference is known.

    An array that is restored in another type than it was saved in cannot be compared.
    """
    if saved is None:
        return None
    for name, (dtype, shape, checksum) in digests(state).items():
        if saved[name][0] == dtype and saved[name] != (dtype, shape, checksum):
            return f"{name} is not what was saved"
    return None


def _free_name(path: Path) -> Path:
    """Return `path`, or if it exists the first of `path`-2, `path`-3, ... that does not."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def _reason(error: Exception) -> str:
    """Return the first line of an error, without the dump of settings that tensorstore appends."""
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0].partition(" [tensorstore_spec")[0][-REASON_LENGTH:]


def _without_late_reads(before: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Make a hook for unraisable errors that drops those of late reads and passes all others to `before`.

    If one array cannot be read, the reads of the others end in an event loop that is closed by then. Each would print a
    traceback, at any time until the process ends.
    """

    def hook(failed: Any) -> None:
        if not (isinstance(failed.exc_value, RuntimeError) and "Event loop is closed" in str(failed.exc_value)):
            before(failed)

    return hook


sys.unraisablehook = _without_late_reads(sys.unraisablehook)
