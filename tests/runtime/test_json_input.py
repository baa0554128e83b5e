"""JSON from outside: what is read, what is refused with file and line, and that time grows with the text alone."""

import json
import math

import pytest

from s1_jax.errors import UserError
from s1_jax.runtime.json_input import MAX_DEPTH, loads, parse_json, read_json, read_jsonl, read_object
from s1_jax.runtime.storage import as_path

MARK = b"\xef\xbb\xbf"
DIGITS = b"7" * 5000
LINES = {  # file -> (line, object) of each row
    "plain": (b'{"a": 1}\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
    "no last newline": (b'{"a": 1}\n{"a": 2}', [(1, {"a": 1}), (2, {"a": 2})]),
    "byte-order mark": (MARK + b'{"a": 1}\n', [(1, {"a": 1})]),
    "files put together": (MARK + b'{"a": 1}\n' + MARK + b'{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
    "carriage returns": (b'{"a": 1}\r\n\r\n{"a": 2}\r\n', [(1, {"a": 1}), (3, {"a": 2})]),
    "blank lines": (b'\n \t\n{"a": 1}\n\n\n{"a": 2}\n\n', [(3, {"a": 1}), (6, {"a": 2})]),
    "blank but for the mark": (MARK + b'\n{"a": 1}\n', [(2, {"a": 1})]),
    "separators of Unicode": (
        json.dumps({"a": "x\u2028y\u2029z\x85 \x0b\x0c"}, ensure_ascii=False).encode() + b"\n",
        [(1, {"a": "x\u2028y\u2029z\x85 \x0b\x0c"})],
    ),
    "a number of 4,000 digits": (b'{"a": ' + b"7" * 4000 + b"}", [(1, {"a": int("7" * 4000)})]),
    "half of a surrogate pair": (b'{"a": "\\ud83d"}', [(1, {"a": "\ud83d"})]),
    "a number of many decimals": (b'{"a": 0.' + b"1" * 9000 + b"}", [(1, {"a": 1 / 9})]),
    "as deep as may be": (
        b'{"a": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
        [(1, loads('{"a": ' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"))],
    ),
    "brackets in a text": (json.dumps({"a": "[{" * 1000}).encode(), [(1, {"a": "[{" * 1000})]),
    "the same key in two objects": (b'{"a": {"b": 1}, "c": {"b": 2}}', [(1, {"a": {"b": 1}, "c": {"b": 2}})]),
    "nothing": (b"", []),
}
REFUSED = {  # second line -> what is said
    "cut short": (b'{"a": ', "not JSON (Expecting value at column 7)"),
    "an open string": (b'{"a": "x', "not JSON (Unterminated string starting at column 7)"),
    "two objects": (b'{"a": 1} {"a": 2}', "not JSON (Extra data at column 10)"),
    "single quotes": (b"{'a': 1}", "not JSON ("),
    "a comma too many": (b'{"a": 1,}', "not JSON ("),
    "a control character": (b'{"a": "\x01"}', "not JSON (Invalid control character at column 8)"),
    "zeros that a crash left": (bytes(20), "not JSON (Expecting value at column 1)"),
    "not UTF-8": (b'{"a": "\xff"}', "not JSON in UTF-8 ("),
    "a surrogate in bytes": (b'{"a": "\xed\xa0\xbd"}', "not JSON in UTF-8 ("),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "save it as UTF-8"),
    "5,000 digits": (
        b'{"a": ' + DIGITS + b"}",
        f"the number {'7' * 40}... has 5,000 digits",
    ),
    "5,000 digits below 0": (b'{"a": [-' + DIGITS + b"]}", "has 5,000 digits"),
    "a number beyond floats": (b'{"a": 1e999}', "the number 1e999 is too large"),
    "NaN": (b'{"a": NaN}', "NaN is not a number in JSON"),
    "Infinity": (b'{"a": [Infinity]}', "Infinity is not a number in JSON"),
    "minus Infinity": (b'{"a": -Infinity}', "-Infinity is not a number in JSON"),
    "100,000 brackets": (b'{"a": ' + b"[" * 100_000, "nested more than 200 deep"),
    "100,000 objects": (b'{"a":' * 100_000, "nested more than 200 deep"),
    "one too deep": (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested more than 200 deep"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice in one object"),
    "a key twice within": (b'{"x": [{"a": 1, "a": 1}]}', "the key 'a' occurs twice in one object"),
    "a key twice, once escaped": (b'{"a": 1, "\\u0061": 1}', "the key 'a' occurs twice in one object"),
    "a list": (b"[1]", "a list where an object is needed"),
    "a text": (b'"a"', "a str where an object is needed"),
    "null": (b"null", "a NoneType where an object is needed"),
    "a number": (b"7", "a int where an object is needed"),
    "a separator of Unicode alone": ("\u2028".encode(), "not JSON ("),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_are_read(name, tmp_path):
    contents, rows = LINES[name]
    (tmp_path / "rows.jsonl").write_bytes(contents)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows


@pytest.mark.parametrize("name", REFUSED)
def test_a_line_that_is_no_row_is_one_line_that_names_it(name, tmp_path):
    line, said = REFUSED[name]
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(UserError) as raised:
        next(rows)
    assert str(raised.value).startswith(f"{tmp_path}/rows.jsonl, line 2: ") and said in str(raised.value)
    assert len(str(raised.value)) < len(str(tmp_path)) + 160 and "\n" not in str(raised.value)


def test_a_file_of_one_text(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(MARK + b'{\n "a": [1.5, null, true]\n}\n')
    assert read_json(path) == read_object(path) == {"a": [1.5, None, True]}
    path.write_text('{\n "a": 1,\n "b" 2\n}')
    with pytest.raises(UserError, match=r"config\.json: not JSON \(Expecting ':' delimiter at line 3 column 6\)"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: a list where an object is needed"):
        read_object(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        read_object(path)
    with pytest.raises(UserError, match=r"absent\.json is missing"):
        read_json(tmp_path / "absent.json")
    for read in (read_json, lambda path: list(read_jsonl(path))):
        with pytest.raises(UserError, match=f"{tmp_path} cannot be read: Is a directory"):
            read(tmp_path)


def test_what_this_project_wrote_may_hold_infinity():
    text = json.dumps({"clip": math.inf, "score": -math.inf})
    assert loads(text, ours=True) == {"clip": math.inf, "score": -math.inf}
    with pytest.raises(UserError, match="^here: not JSON"):
        parse_json(text, "here")
    with pytest.raises(ValueError, match="occurs twice"):
        loads('{"a": 1, "a": 1}', ours=True)


def test_the_same_in_a_bucket(bucket):
    path = as_path("gs://s1-test/rows.jsonl")
    path.write_bytes(b'{"a": "\xe2\x80\xa8"}\r\n\n{"a": NaN}\n')
    rows = read_jsonl(path)
    assert next(rows) == (1, {"a": "\u2028"})
    with pytest.raises(UserError, match=r"gs://.*rows\.jsonl, line 3: not JSON"):
        next(rows)
    with pytest.raises(UserError, match=r"absent\.json is missing"):
        read_json(path.parent / "absent.json")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{" + ",".join(f'"{i}": {i}' for i in range(200_000)) + "}", 200_000),
        ("{" + ",".join(f'"{i % 199_999}": 1' for i in range(200_000)) + "}", None),
        ("[" * 100_000, None),
        ("[" + "[]," * 200_000 + "[]]", 200_001),
        ("[" + "12345," * 200_000 + "1]", 200_001),
        ("{" * 100_000, None),
    ],
    ids=["keys", "a key twice", "brackets", "lists", "numbers", "braces"],
)
def test_long_texts_take_no_longer_than_their_length(text, count):
    """What is quadratic here would take minutes."""
    if count is None:
        with pytest.raises(ValueError, match=r"nested|twice|not JSON"):
            loads(text)
    else:
        assert len(loads(text)) == count
