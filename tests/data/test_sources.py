"""Every known layout gives the same conversation; what is wrong with a source is told with file, line and field."""

import json

import datasets
import pytest

from s1_jax.data.sources import LAYOUTS, Conversation, read_conversations
from s1_jax.errors import UserError

ROWS = {
    "s1k": {"question": "q", "thinking_trajectories": ["a", "b"], "attempt": "x", "solution": None},
    "s1k_1_1": {
        "question": "q", "deepseek_thinking_trajectory": "a\nb", "deepseek_attempt": "x",
        "gemini_thinking_trajectory": "g", "gemini_attempt": "g",
    },
    "s1k_tokenized": {"question": "q", "thinking_trajectories": ["a", "b"], "attempt": "x", "text": "whole"},
    "traces": {"question": "q", "thinking": "a", "attempt": "x", "answer": "gold"},
    "plain": {"question": "q", "thinking": "a", "answer": "x"},
}  # fmt: skip
EXPECTED = {
    "s1k": Conversation("q", ["a", "b"], "x"),
    "s1k_1_1": Conversation("q", "a\nb", "x"),
    "s1k_tokenized": Conversation(text="whole"),
    "traces": Conversation("q", "a", "x"),
    "plain": Conversation("q", "a", "x"),
}


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def conversations(path, split="train", layout="auto", mapping=None):
    return [conversation for _, conversation in read_conversations(str(path), split, layout, mapping)]


def test_every_layout_has_a_case():
    assert set(ROWS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", ROWS)
def test_layouts_are_known_by_their_columns(layout, tmp_path):
    jsonl = write_jsonl(tmp_path / "rows.jsonl", [ROWS[layout]])
    assert conversations(jsonl) == [EXPECTED[layout]]
    datasets.Dataset.from_list([ROWS[layout]]).to_parquet(tmp_path / "rows.parquet")
    assert conversations(tmp_path / "rows.parquet") == [EXPECTED[layout]]


def test_a_csv_file_has_the_names_in_its_first_line(tmp_path):
    (tmp_path / "rows.csv").write_text('question,thinking,answer\nq,"a, ""b""\nc",x\n')
    assert conversations(tmp_path / "rows.csv") == [Conversation("q", 'a, "b"\nc', "x")]


def test_a_layout_may_be_named_and_others_mapped(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS["s1k_1_1"] | {"id": 7}])
    gemini = {"question": "question", "thinking": "gemini_thinking_trajectory", "answer": "gemini_attempt"}
    assert conversations(path, mapping=gemini) == [Conversation("q", "g", "g")]
    tokenized = write_jsonl(tmp_path / "tokenized.jsonl", [ROWS["s1k_tokenized"]])
    assert conversations(tokenized, layout="s1k") == [EXPECTED["s1k"]]
    with pytest.raises(UserError, match=r"no layout fits the columns found .*plain: question, thinking, answer"):
        conversations(path, layout="plain")
    with pytest.raises(UserError, match="choose auto or one of"):
        conversations(path, layout="s1")
    with pytest.raises(UserError, match="must map"):
        conversations(path, mapping={"question": "question"})


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path):
    line = json.dumps(ROWS["plain"] | {"question": "naïve 中文 \u2028 😀"}, ensure_ascii=False).encode()
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "rows.jsonl").write_bytes(start + line)
        assert conversations(tmp_path / "rows.jsonl")[0].question == "naïve 中文 \u2028 😀"


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "rows.parquet"
    for question in ("old", "new"):
        datasets.Dataset.from_list([ROWS["plain"] | {"question": question}]).to_parquet(path)
        assert conversations(path)[0].question == question


def test_unknown_columns_are_listed_beside_the_known_layouts(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a"}])
    with pytest.raises(UserError, match=r"found \(input, output\). Known: .*thinking_trajectories.*data.columns"):
        conversations(path)


def test_ids_are_the_rows_own_or_file_and_line(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS["plain"], ROWS["plain"] | {"id": 7}])
    assert [row.id for row, _ in read_conversations(path, "train")] == ["rows.jsonl:1", "7"]


def test_a_folder_is_read_in_order_of_name_or_by_split(tmp_path):
    write_jsonl(tmp_path / "all/b.jsonl", [ROWS["plain"] | {"question": "2"}])
    write_jsonl(tmp_path / "all/a.jsonl", [ROWS["plain"] | {"question": "1"}])
    (tmp_path / "all/README.md").write_text("not data")
    assert [c.question for c in conversations(tmp_path / "all")] == ["1", "2"]

    hub_like = tmp_path / "hub/data"
    hub_like.mkdir(parents=True)
    for split in ("train", "test"):
        rows = datasets.Dataset.from_list([ROWS["plain"] | {"question": split}])
        rows.to_parquet(hub_like / f"{split}-00000-of-00001.parquet")
    assert [c.question for c in conversations(tmp_path / "hub", split="test")] == ["test"]
    with pytest.raises(UserError, match="no files of split 'validation'"):
        conversations(tmp_path / "hub", split="validation")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "q", ', r"line 3: not JSON"),
        (b"\xff\xfe", r"line 3: not JSON in UTF-8"),
        (b"[1]", r"line 3: a list where an object is needed"),
        (b'{"question": "q", "answer": "x"}', r"line 3: field 'thinking' is missing"),
        (b'{"question": null, "thinking": "a", "answer": "x"}', r"line 3: field 'question' is null"),
        (b'{"question": " ", "thinking": "a", "answer": "x"}', r"line 3: field 'question' is empty"),
        (b'{"question": "q", "thinking": ["a", 1], "answer": "x"}', r"line 3: field 'thinking' is of type int"),
        (b'{"question": "q", "thinking": "a", "answer": ["x"]}', r"line 3: field 'answer' is of type list"),
        (b'{"question": "q", "thinking": "\\ud83d", "answer": "x"}', r"line 3: field 'thinking' contains half of"),
    ],
)
def test_a_malformed_row_names_file_line_and_field(line, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    # a blank line counts but holds no row; U+2028 ends no line
    good = json.dumps(ROWS["plain"] | {"answer": "\u2028"}, ensure_ascii=False).encode()
    path.write_bytes(good + b"\n\n" + line + b"\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, " + message):
        conversations(path)


def test_sources_that_hold_nothing(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "rows.txt").write_text("question\n")
    (tmp_path / "rows.csv").write_text("question\nwhat,who\n")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "empty.jsonl": "contains no rows",
        "rows.txt": "not a data file; supported are .jsonl, .parquet, .csv",
        "rows.csv": "rows.csv, row 1: the number of cells differs",
        "broken.parquet": "cannot be read as Parquet",
        "folder": "contains no .jsonl, .parquet or .csv",
        "absent.jsonl": "no such file",
        "absent/folder": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            conversations(tmp_path / name)


def test_a_hub_id_that_cannot_be_loaded_is_one_clear_line():
    with pytest.raises(UserError, match="no local path and could not be loaded as a hub data set") as error:
        conversations("nobody-here/no-such-set")
    assert "\n" not in str(error.value)
