"""Headers of safetensors files and indexes that are not what the format says: one line that names the file."""

from __future__ import annotations

import json
import os
import struct

import pytest

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.tensor_file import read_header
from s1_jax.errors import UserError

LINE = 600  # characters, the path aside


def one(begin=0, end=4, dtype="F32", shape=(1,), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def written(folder, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


HEADERS = {  # what is wrong -> header, bytes of data, what is said
    "overlap": ({"a": one(), "b": one()}, 4, "the data of b overlaps other data"),
    "overlap in part": ({"a": one(0, 8, shape=[2]), "b": one(4, 8)}, 8, "the data of b overlaps other data"),
    "gap": ({"a": one(), "b": one(8, 12)}, 12, "the data of b begins after a gap of 4 bytes"),
    "gap at the beginning": ({"a": one(4, 8)}, 8, "the data of a begins after a gap of 4 bytes"),
    "more data": ({"a": one()}, 8, "its tensors end at byte"),
    "less data": ({"a": one()}, 3, "its tensors end at byte"),
    "no tensors and data": ({}, 1, "its tensors end at byte 10 of a file of 11"),
    "backwards": ({"a": one(4, 0, "XYZ")}, 4, "the data of a does not fit its shape"),
    "wrong length": ({"a": one(0, 8)}, 8, "the data of a does not fit its shape"),
    "wrong length of another type": ({"a": one(0, 4, "I64")}, 4, "the data of a does not fit its shape"),
    "negative offset": ({"a": one(-4, 0)}, 0, r"a: data_offsets is \[-4, 0\]; it must be a list of 2 whole numbers"),
    "large offset": ({"a": one(0, 2**64)}, 4, "data_offsets is .*; it must be a list of 2 whole numbers from 0 on"),
    "three offsets": ({"a": one() | {"data_offsets": [0, 4, 8]}}, 4, "it must be a list of 2 whole numbers from 0 on"),
    "offsets of text": ({"a": one("0", "4")}, 4, "data_offsets is"),
    "offsets of bools": ({"a": one(False, True, "U8")}, 1, "data_offsets is"),
    "negative shape": ({"a": one(shape=[-1, -1])}, 4, r"a: shape is \[-1, -1\]; it must be a list of whole numbers"),
    "shape of floats": ({"a": one(shape=[1.0])}, 4, r"a: shape is \[1.0\]"),
    "shape of nothing": ({"a": one(shape=None)}, 4, "a: shape is null"),
    "large shape": ({"a": one(shape=[2**62] * 50)}, 4, "the data of a does not fit its shape"),
    "dtype of a number": ({"a": one(dtype=5)}, 4, "a: dtype is 5; it must be a string"),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 4]}}, 4, "a lacks dtype"),
    "no object": ({"a": [1]}, 4, r"a contains \[1\], not a JSON object"),
    "a list": (b"[]", 0, "its header is no JSON object"),
    "a number": (b"5", 0, "its header is no JSON object"),
    "no UTF-8": (b'{"\xff": 1}', 0, "not JSON in UTF-8"),
    "nested": (b"[" * 100_000, 0, "nested more than 200 deep"),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", 0, "5,000 digits, too many"),
    "infinite": (b'{"a": 1e999}', 0, "too large"),
    "twice": (b'{"a": 1, "a": 2}', 0, "the key 'a' occurs twice"),
    "twice in a tensor": (b'{"a": {"dtype": "F32", "dtype": "F32"}}', 0, "the key 'dtype' occurs twice"),
    "a long name": ({"x" * 10**6: one(0, 8)}, 8, "the data of x* does not fit"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_one_line(tmp_path, name):
    header, size, said = HEADERS[name]
    path = written(tmp_path, header, bytes(size))
    with pytest.raises(UserError, match=said) as error:
        read_header(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and len(text) < LINE + 2 * len(str(path))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100, 10**8 + 1])
def test_a_header_longer_than_the_file(tmp_path, length):
    with pytest.raises(UserError, match="its header is longer than the file"):
        read_header(written(tmp_path, {}, length=length))


def test_what_the_format_allows_is_read(tmp_path):
    """Tensors in any order, of no elements, of types we have no use for, and text beside them."""
    header = {"b": one(4, 12, "I64"), "a": one(), "__metadata__": {"format": "pt"}}
    header |= {"none": one(4, 4, shape=[0, 3]), "f4": one(12, 14, "F4", [4])}
    assert [tensor.name for tensor in read_header(written(tmp_path, header, bytes(14)))] == ["a", "none", "b", "f4"]


def test_many_keys_take_no_time_that_grows_with_their_square(tmp_path):
    """Which would be minutes here."""
    text = "{" + ",".join(f'"k{i}": 1' for i in range(200_000)) + ',"k0": 2}'
    with pytest.raises(UserError, match="the key 'k0' occurs twice"):
        read_header(written(tmp_path, text.encode()))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    (tmp_path / hf.INDEX).write_text('{"weight_map": {"x": "a.safetensors"}}')
    with pytest.raises(UserError, match=r"a.safetensors is a device or a pipe"):
        hf.stored_tensors(tmp_path)


INDEXES = {  # index -> what is said
    "[]": "a list where an object is needed",
    "{}": "no weight_map",
    '{"weight_map": {}}': "no weight_map",
    '{"weight_map": []}': r"weight_map is \[\]; it must be an object",
    '{"weight_map": {"x": 5}}': "weight_map: x is 5; it must be a string",
    '{"weight_map": {"x": null}}': "weight_map: x is null; it must be a string",
    '{"weight_map": {"x": "../a"}}': "'../a' lies outside the folder",
    '{"weight_map": {"x": "/etc/passwd"}}': "'/etc/passwd' lies outside the folder",
    '{"weight_map": {"x": ""}}': "'' lies outside the folder",
    '{"weight_map": {"x": "."}}': r"'\.' lies outside the folder",
    '{"weight_map": {"x": "a\\u0000b"}}': "lies outside the folder",
    json.dumps({"weight_map": {"x": "y" * 1000}}): "cannot be read: File name too long",
    json.dumps({"weight_map": {str(i): f"../{i}" for i in range(10**4)}}): "and 9996 more lies outside",
    "[" * 100_000: "nested more than 200 deep",
}


@pytest.mark.parametrize("number", range(len(INDEXES)))
def test_an_index_that_is_none_is_one_line(tmp_path, number):
    text, said = list(INDEXES.items())[number]
    (tmp_path / hf.INDEX).write_text(text)
    with pytest.raises(UserError, match=said) as error:
        hf.stored_tensors(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
