"""Hugging Face checkpoints in and out, tensor by tensor.

Memory: a tensor goes from the mapped file to the devices as it is stored. There it is cast, transposed and written into
a preallocated [L, ...] stack, which is donated and so updated in place. The host never holds a stack, nor a second copy
of a tensor in another type. Exporting goes the same way back. L is the number of layers.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from s1_jax.checkpoints.folder import copy_tokenizer, resolve, whole_folder
from s1_jax.checkpoints.tensor_file import DTYPES, NAME_SHOWN, StoredTensor, read_header, same_values, write
from s1_jax.checkpoints.tokenizer import load_tokenizer as load_tokenizer
from s1_jax.config import ModelConfig, StoredConfig
from s1_jax.config.model_fields import Fields
from s1_jax.errors import UserError
from s1_jax.model import stored_weights
from s1_jax.model.attention import rope_frequencies
from s1_jax.model.transformer import Params, abstract_params, param_axes
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.json_input import read_object
from s1_jax.runtime.storage import as_path
from s1_jax.sharding import Layout

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBEDDING, HEAD, FREQUENCIES = "model.embed_tokens.weight", "lm_head.weight", "rotary_emb.inv_freq"
SHARD_BYTES = 5_000_000_000
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
UNPICKLE = (  # weights_only: the files can run no code
    'convert them once: python -c "import glob, torch; from safetensors.torch import save_file; '
    "files = glob.glob('%(folder)s/pytorch_model*.bin'); "
    "found = {k: v.clone() for f in files for k, v in torch.load(f, weights_only=True).items()}; "
    "save_file(found, '%(folder)s/model.safetensors', {'format': 'pt'})\""
)
HEADS = ("lm_head.", "score.")  # outside the backbone, so Hugging Face puts no "model." before their names
NAMES_SHOWN = 4  # names that an error lists for each kind of problem
Kept = Literal["plain", "transposed", "int8"]
KEEP: dict[Kept, Callable[[jax.Array], Any]] = {
    "plain": lambda kernel: kernel,
    "transposed": stored_weights.transposed,
    "int8": stored_weights.rounded,
}


def load_config(path: str | Path) -> ModelConfig:
    """Read the config of a checkpoint in a folder or on the hub.

    If config.json ties the embeddings but the folder stores an output head that differs from them, the head is used, as
    in transformers, and a warning says so. Raises UserError if the config describes a model that is not supported.
    """
    folder = resolve(path)
    file = folder / "config.json"
    config = ModelConfig.from_dict(read_object(file), str(file))
    if config.tie_word_embeddings and _stores_another_head(folder):
        warnings.warn(
            f"{file} has tie_word_embeddings true, but {HEAD} differs from {EMBEDDING}: it is used, and not tied",
            stacklevel=1,
        )
        return dataclasses.replace(config, tie_word_embeddings=False)
    return config


def _stores_another_head(folder: Path) -> bool:
    try:
        stored = {tensor.name: tensor for tensor in stored_tensors(folder)}
    except UserError:  # no weights, or damaged ones: loading them reports it
        return False
    return HEAD in stored and EMBEDDING in stored and not same_values(stored[HEAD], stored[EMBEDDING])


def load_params(
    path: str | Path,
    *,
    dtype: Any = None,
    layout: Layout | None = None,
    stacked: bool = True,
    kept: Kept = "plain",
) -> tuple[ModelConfig, Params]:
    """Load the model in a folder or behind a hub id.

    Parameters have type `dtype`, by default the file's, and are sharded by `layout`, by default on the first device.
    Layers are `stacked`, as in training, or separate, as in decoding (see `transformer.unstack`). The weights of
    separate layers have the form `kept`, one of those in model/stored_weights.py; "transposed" is for one device. Host
    memory beyond the parameters stays below two of the file's largest tensors. Raises one UserError that lists
    everything that is wrong with the checkpoint.
    """
    folder = resolve(path)
    config = load_config(folder)
    tensors = stored_tensors(folder)
    if config.tie_word_embeddings and EMBEDDING not in {tensor.name for tensor in tensors}:
        # some checkpoints store the tied tensor under the head's name
        tensors = [dataclasses.replace(t, name=EMBEDDING) if t.name == HEAD else t for t in tensors]
    form: Any = {"dtype": dtype, "layout": layout, "stacked": stacked, "kept": kept}
    return config, load_tree(folder, config, abstract_params(config), param_axes(config), tensors=tensors, **form)


def load_tree(
    folder: Path,
    config: ModelConfig,
    shapes: Params,
    axes: Params,
    *,
    dtype: Any = None,
    layout: Layout | None = None,
    stacked: bool = True,
    kept: Kept = "plain",
    tensors: list[StoredTensor] | None = None,
) -> Params:
    """Load any tree of parameters around `config`'s layers, with the options of `load_params`.

    `shapes` has its abstract arrays, `axes` their logical axes. `tensors` are by default those that the folder stores.
    """
    tensors = stored_tensors(folder) if tensors is None else tensors
    stored = _match(config, shapes, tensors, folder, any_dtype=dtype is not None)
    _compare_frequencies(config, tensors, folder)
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, dtype or DTYPES[stored[path][0].dtype])
        for path, leaf in flatten_dict(shapes, sep=".").items()
    }
    if layout is None:
        shardings: dict[str, Sharding] = dict.fromkeys(wanted, SingleDeviceSharding(jax.local_devices()[0]))
    else:
        shardings = flatten_dict(layout.tree(axes, unflatten_dict(wanted, sep=".")), sep=".")
    params: dict[tuple[str | int, ...], Any] = {}
    for name, leaf in wanted.items():
        tensors, sharding, (stack, transposed) = stored[name], shardings[name], _form(name)
        if stack and not stacked:
            one = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
            first, *rest = name.split(".")
            for i, tensor in enumerate(tensors):
                x = _place(one, [tensor], _of_layer(sharding), False, transposed)
                params[first, i, *rest] = KEEP[kept](x) if rest[-1] == "kernel" else x
        else:
            params[tuple(name.split("."))] = _place(leaf, tensors, sharding, stack, transposed)
    return unflatten_dict(params)


def load_for_decoding(
    path: str | Path, stored: StoredConfig, dtype: Any, layout: Layout | None = None
) -> tuple[ModelConfig, Params]:
    """Load a model with separate layers and weights stored as `stored` says; `dtype` is the compute type."""
    return load_params(path, layout=layout, **decoding_form(stored, dtype, layout))


def decoding_form(stored: StoredConfig, dtype: Any, layout: Layout | None) -> dict[str, Any]:
    """Return the options of `load_params` that `load_for_decoding` sets."""
    if stored.weights == "int8":
        return {"dtype": jnp.dtype(dtype), "stacked": False, "kept": "int8"}
    weights = jnp.dtype(stored.resolved(jnp.dtype(dtype).name).weights)
    alone = layout is None or layout.mesh.size == 1
    kept = "transposed" if alone and jax.default_backend() == "cpu" else "plain"
    return {"dtype": weights, "stacked": False, "kept": kept}


def save_params(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    dtype: Any = None,
    tokenizer_from: str | Path | None = None,
    described: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as transformers reads it: config.json and safetensors, in several files above SHARD_BYTES.

    Tensors have type `dtype`, by default that of the parameters. The tokenizer's files are copied from
    `tokenizer_from`, a folder or hub id. The values of `described` go into config.json and override those of `config`.
    The folder appears under its name only when it is complete; an earlier checkpoint there is replaced. Every process
    of a run must call this; the first one writes. Raises UserError if `path` has any other content.
    """
    flat = flatten_dict(params, sep=".")
    sources, shapes = {}, {}
    for key, leaf in sorted(flat.items()):  # the same model gives the same file
        kept = np.dtype(dtype or leaf.dtype)
        for layer, name in enumerate(hf_names(key, config)):
            sources[name] = (key, layer)
            shapes[name] = jax.ShapeDtypeStruct(hf_shape(key, leaf.shape), kept)

    def fetch(name: str) -> np.ndarray:
        key, layer = sources[name]
        return _to_host(_reader(*_form(key), shapes[name].dtype)(flat[key], layer))

    source = None if tokenizer_from is None else resolve(tokenizer_from)
    files = _split(shapes)
    with whole_folder(as_path(path)) as target:
        if jax.process_index() == 0:
            if len(files) > 1:
                index: dict[str, Any] = {"metadata": {"total_size": sum(map(_nbytes, shapes.values()))}}
                index["weight_map"] = {name: file for file, names in files.items() for name in names}
                write_whole(target / INDEX, json.dumps(index, indent=2) + "\n")
            for file, names in files.items():
                write(target / file, {name: shapes[name] for name in names}, fetch)
            write_config(target, config, shapes, tokenizer_from=source, described=described)
        else:
            for name in (name for names in files.values() for name in names):
                fetch(name)  # every process has to take part in gathering a tensor


def write_config(
    folder: Path,
    config: ModelConfig,
    tensors: Any,
    *,
    tokenizer_from: Path | None,
    described: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json for a model with these `tensors` (any tree), with another folder's tokenizer and special ids.

    Call it last, because config.json marks a folder as complete (see `whole_folder`).
    """
    values = config.to_dict() | dict(described or {})
    if tokenizer_from is not None:
        copy_tokenizer(tokenizer_from, folder)
        if (tokenizer_from / "config.json").is_file():
            given = read_object(tokenizer_from / "config.json")
            values |= {key: given[key] for key in SPECIAL_IDS if given.get(key) is not None}
    # if types are mixed, the widest is named; transformers 4 reads torch_dtype, 5 reads dtype
    widest = max({np.dtype(leaf.dtype) for leaf in jax.tree.leaves(tensors)}, key=lambda dtype: dtype.itemsize).name
    values |= {"dtype": widest, "torch_dtype": widest}
    write_whole(folder / "config.json", json.dumps(values, indent=2) + "\n")


def hf_names(path: str, config: ModelConfig) -> list[str]:
    """Return Hugging Face's names of the tensors behind one of our parameters: one, or L in layer order."""
    name = path.removesuffix(".kernel") + ".weight" if path.endswith(".kernel") else path
    if _form(path)[0]:
        return [f"model.layers.{i}.{name.removeprefix('layers.')}" for i in range(config.num_hidden_layers)]
    return [name if path.startswith(HEADS) else f"model.{name}"]


def hf_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the tensors that `hf_names` names: without [L], and transposed for a weight matrix."""
    stacked, transposed = _form(path)
    shape = shape[1:] if stacked else shape
    return shape[::-1] if transposed else shape


def _form(path: str) -> tuple[bool, bool]:
    """Return whether a parameter is a stack of layers, and whether it is the transpose of what is stored."""
    return path.startswith("layers."), path.endswith(".kernel")


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """List all tensors of a checkpoint folder. Raises UserError if there are none, or if a file is damaged."""
    if (folder / SINGLE).is_file():
        files = [SINGLE]
    elif (folder / INDEX).is_file():
        files = _files_of_index(folder / INDEX)
    elif any(folder.glob("*.bin")) or (folder / "pytorch_model.bin.index.json").is_file():
        refusal = "contains pickled weights (.bin), which can run code when opened"
        raise UserError(f"{folder} {refusal}; {UNPICKLE % {'folder': folder}}")
    else:
        raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}")
    tensors: list[StoredTensor] = []
    problems = []
    for file in files:
        try:
            tensors += read_header(folder / file)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return tensors


def _files_of_index(path: Path) -> list[str]:
    """List the files of a checkpoint with an index. Raises UserError on names that lead out of its folder."""
    index = Fields(read_object(path), str(path))
    weight_map = index.section("weight_map")
    files = sorted({weight_map.text(name) for name in weight_map.values})
    inside = [file for file in files if file == Path(file).name and file not in ("", "..") and "\0" not in file]
    outside = [repr(file[:NAME_SHOWN]) for file in files if file not in set(inside)]
    if outside or not files:
        problem = f"{_some(outside)} lies outside the folder, which is refused" if outside else "no weight_map"
        raise UserError(f"{path}: {problem}")
    return files


def _match(
    config: ModelConfig, shapes: Params, tensors: list[StoredTensor], folder: Path, any_dtype: bool
) -> dict[str, list[StoredTensor]]:
    """Find the stored tensors behind each parameter, in layer order. Raises one UserError with every problem."""
    by_name = {tensor.name: tensor for tensor in tensors}
    counts = Counter(tensor.name for tensor in tensors)
    problems: dict[str, list[str]] = {kind: [] for kind in ("missing", "unexpected", "wrong shape", "wrong dtype")}
    problems["duplicate"] = [name for name, count in counts.items() if count > 1]
    matched, known = {}, set()
    for path, leaf in flatten_dict(shapes, sep=".").items():
        names, shape = hf_names(path, config), hf_shape(path, leaf.shape)
        known.update(names)
        matched[path] = found = [by_name[name] for name in names if name in by_name]
        problems["missing"] += [name for name in names if name not in by_name]
        for tensor in found:
            if tensor.shape != shape:
                problems["wrong shape"].append(f"{tensor.name} is {list(tensor.shape)}, not {list(shape)}")
            if tensor.dtype not in DTYPES:
                problems["wrong dtype"].append(f"{tensor.name} is {tensor.dtype}, not {', '.join(DTYPES)}")
        kinds = sorted({t.dtype for t in found} & set(DTYPES))
        if len(kinds) > 1 and not any_dtype:
            problems["wrong dtype"].append(f"{path} differs over layers ({', '.join(kinds)}); ask for one dtype")
    problems["unexpected"] = [name for name in by_name if name not in known and not _redundant(name)]
    said = [f"{kind}: {_some(names)}" for kind, names in problems.items() if names]
    if said:
        raise UserError(f"{folder} does not contain the model that its config.json describes; {' | '.join(said)}")
    return matched


def _redundant(name: str) -> bool:
    """Whether a tensor that no parameter takes may be ignored: some releases store such tensors.

    No parameter takes an output head that equals the embedding it is tied to (see `load_config`), or that of a reward
    model. `_compare_frequencies` checks the frequencies of rotary positions.
    """
    return name.endswith(FREQUENCIES) or name == HEAD


def _compare_frequencies(config: ModelConfig, tensors: list[StoredTensor], folder: Path) -> None:
    """Warn if a checkpoint stores other frequencies of rotary positions than config.json's, which are used."""
    frequencies, _ = rope_frequencies(config)
    for tensor in tensors:
        if tensor.name.endswith(FREQUENCIES) and tensor.dtype in DTYPES and tensor.shape == frequencies.shape:
            stored = tensor.rows(0, tensor.shape[0])
            kind = jnp.finfo(stored.dtype)
            atol = float(kind.smallest_subnormal)
            if not np.allclose(stored.astype(np.float32), frequencies, rtol=8 * float(kind.eps), atol=atol):
                said = "contains frequencies other than those of config.json; the latter are used, as in transformers"
                warnings.warn(f"{folder}: {tensor.name} {said}", stacklevel=1)
                return


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(name[: 3 * NAME_SHOWN] for name in names[:NAMES_SHOWN]) + more


def _place(
    leaf: jax.ShapeDtypeStruct, stored: list[StoredTensor], sharding: Sharding, stacked: bool, transposed: bool
) -> jax.Array:
    """Load one parameter onto its devices, from its tensor or its L tensors."""
    incoming = _file_sharding(sharding, stacked, transposed)

    def put(tensor: StoredTensor) -> jax.Array:
        begin, end = _own_rows(tensor.shape, incoming)
        rows = tensor.rows(begin, end)

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first, last, _ = index[0].indices(tensor.shape[0])
            return _staged(rows[(slice(first - begin, last - begin), *index[1:])])

        return jax.make_array_from_callback(tensor.shape, incoming, part)

    param = _empty(leaf.shape, leaf.dtype, sharding)()
    for layer, tensor in enumerate(stored):
        # without waiting, several tensors would be in memory at once
        param = jax.block_until_ready(_writer(stacked, transposed, sharding)(param, put(tensor), layer))
    return param


def _own_rows(shape: tuple[int, ...], sharding: Sharding) -> tuple[int, int]:
    """Return the range of a tensor's rows that this process's devices need: all of them if columns are sharded."""
    needed = [index[0].indices(shape[0]) for index in sharding.addressable_devices_indices_map(shape).values() if index]
    return min(first for first, *_ in needed), max(last for _, last, _ in needed)


def _staged(part: np.ndarray) -> np.ndarray:
    """Copy to separate pages: aligned, so that a CPU device makes no copy, and freed at once, unlike malloc's."""
    copy = np.frombuffer(mmap.mmap(-1, max(part.nbytes, 1)), part.dtype, part.size).reshape(part.shape)
    np.copyto(copy, part)
    return copy


def _file_sharding(sharding: Sharding, stacked: bool, transposed: bool) -> Sharding:
    """Return the sharding of a tensor as stored that gives each device its shard of the parameter."""
    sharding = _of_layer(sharding) if stacked else sharding
    if not isinstance(sharding, NamedSharding) or not transposed:
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[::-1]))


def _of_layer(sharding: Sharding) -> Sharding:
    """Return the sharding of one layer of a stack."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))


@lru_cache
def _empty(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Any:
    return jax.jit(partial(jnp.zeros, shape, dtype), out_shardings=sharding)


@lru_cache
def _writer(stacked: bool, transposed: bool, sharding: Sharding) -> Any:
    def put(param: jax.Array, x: jax.Array, layer: jax.Array) -> jax.Array:
        x = (x.T if transposed else x).astype(param.dtype)
        x = x[None] if stacked else x
        # a parameter that is not stacked has its only tensor at index 0
        return jax.lax.dynamic_update_slice(param, x, (layer,) + (0,) * (x.ndim - 1))

    return jax.jit(put, donate_argnums=0, out_shardings=sharding)


@lru_cache
def _reader(stacked: bool, transposed: bool, dtype: np.dtype) -> Any:
    def get(param: jax.Array, layer: jax.Array) -> jax.Array:
        x = param[layer] if stacked else param
        return (x.T if transposed else x).astype(dtype)

    return jax.jit(get)


def _to_host(x: jax.Array) -> np.ndarray:
    return np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)


def _nbytes(spec: jax.ShapeDtypeStruct) -> int:
    return spec.size * spec.dtype.itemsize


def _split(shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, list[str]]:
    """Return file name -> tensor names, in order; each file has at most SHARD_BYTES, or one tensor."""
    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, spec in shapes.items():
        if shards[-1] and _nbytes(spec) > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= _nbytes(spec)
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": names for i, names in enumerate(shards, 1)}
