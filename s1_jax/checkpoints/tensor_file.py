"""The safetensors format, read and written one tensor at a time.

A file consists of eight bytes with the length of the header, a JSON header (name -> dtype, shape, data_offsets) and the
raw little-endian data. It is read here, without the safetensors library, for three reasons. Views of the mapped file
take no memory of this process, in bfloat16 too. One process of several can read only its own rows from a bucket. A
header that names a tensor twice is an error.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from s1_jax.config.model_fields import Fields
from s1_jax.errors import UserError
from s1_jax.runtime.json_input import DuplicateKey, loads
from s1_jax.runtime.storage import CHUNK, check_input, in_bucket, read_ranges, size_of

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
ITEM_BYTES = {  # all types of the format, including those that no model of ours is stored in
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK = 2**24  # bytes of float32 that are compared at a time
NAME_SHOWN = 100  # characters of a tensor's name that an error repeats
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file; `dtype` is the format's name of the type, which may be missing in DTYPES."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Return the rows of the tensor from `begin` up to `end`, read-only.

        They are pages of the mapped file, not memory of this process. From a bucket, only these rows are read.
        """
        shape = (end - begin, *self.shape[1:])
        size = prod(self.shape[1:]) * DTYPES[self.dtype].itemsize
        first, last = self.offset + begin * size, self.offset + end * size
        if in_bucket(self.path):
            chunks = [(start, min(start + CHUNK, last)) for start in range(first, last, CHUNK)]
            return np.frombuffer(b"".join(read_ranges(self.path, chunks)), DTYPES[self.dtype]).reshape(shape)
        with open(self.path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.frombuffer(mapped, DTYPES[self.dtype], prod(shape), first)
        return np.require(flat.reshape(shape), requirements="A")  # a header may leave the data misaligned


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors have the same numbers, in any types. Reads a block of rows of each at a time."""
    if one.shape != other.shape or not one.shape or not {one.dtype, other.dtype} <= DTYPES.keys():
        return False
    rows = max(1, BLOCK // max(1, 4 * prod(one.shape[1:])))
    for begin in range(0, one.shape[0], rows):
        x, y = (tensor.rows(begin, min(begin + rows, one.shape[0])) for tensor in (one, other))
        if one.dtype == other.dtype and np.array_equal(x.view(np.uint8), y.view(np.uint8)):
            continue  # comparing bytes is much faster than comparing numbers
        if not np.array_equal(x.astype(np.float32), y.astype(np.float32)):
            return False
    return True


def read_header(path: Path) -> list[StoredTensor]:
    """List all tensors of a safetensors file, in the order of their data.

    Raises UserError, which names the file, if its header is not JSON, names a tensor twice or does not follow the
    format. Raises it too if the data of the tensors overlap, leave gaps or do not end where the file ends.
    """
    try:
        check_input(path)
        with path.open("rb") as file:
            data_start = 8 + (length := int.from_bytes(file.read(8), "little"))
            size = size_of(path)
            if length > MAX_HEADER_BYTES or data_start > size:
                raise ValueError("its header is longer than the file")
            header = loads(file.read(length))
        return _tensors(path, header, data_start, size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except DuplicateKey as error:
        raise UserError(f"the header of {path} is damaged: {error}") from None
    except ValueError as error:
        hint = "cut short, or a Git LFS pointer that was never pulled?"
        raise UserError(f"{path} is not a whole safetensors file ({hint}): {error}") from None


def _tensors(path: Path, header: Any, data_start: int, size: int) -> list[StoredTensor]:
    """List the tensors that a header describes. Raises ValueError, or UserError if a field has a wrong value."""
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        fields = Fields(entry, f"the header of {path}: {name[:NAME_SHOWN]}")
        dtype, shape = fields.text("dtype"), fields.integers("shape")
        begin, end = fields.integers("data_offsets", count=2)
        wanted = prod(shape) * ITEM_BYTES[dtype] if dtype in ITEM_BYTES else end - begin
        if begin > end or end - begin != wanted:
            raise ValueError(f"the data of {name[:NAME_SHOWN]} does not fit its shape or the file")
        found.append((begin, end, StoredTensor(path, name, dtype, shape, data_start + begin)))
    found.sort(key=lambda one: one[:2])
    offset = 0
    for begin, end, tensor in found:
        if begin != offset:
            what = "overlaps other data" if begin < offset else f"begins after a gap of {begin - offset:,} bytes"
            raise ValueError(f"the data of {tensor.name[:NAME_SHOWN]} {what}")
        offset = end
    if data_start + offset != size:
        raise ValueError(f"its tensors end at byte {data_start + offset:,} of a file of {size:,}")
    return [tensor for _, _, tensor in found]


def write(path: Path, shapes: Mapping[str, Any], fetch: Callable[[str], np.ndarray]) -> None:
    """Write a safetensors file, with one tensor in memory at a time.

    `shapes` maps names to anything with .shape and .dtype (one of DTYPES); `fetch(name)` makes the array of that shape
    and dtype. The bytes have reached the disk, or the bucket, when this returns.
    """
    names = sorted(
        shapes, key=lambda name: -shapes[name].dtype.itemsize
    )  # wider types first, so that every tensor is aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers requires it
    end = 0
    for name in names:
        shape, dtype = shapes[name].shape, np.dtype(shapes[name].dtype)
        begin, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            file.write(np.ascontiguousarray(fetch(name)).view(np.uint8).data)
        if not in_bucket(path):
            file.flush()
            os.fsync(file.fileno())
