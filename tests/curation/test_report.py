"""Report: counts, groups and lengths against plain Python, the plot, what may not be shown, overlap."""

import json
import statistics
import struct
from collections import defaultdict

import pyarrow as pa
import pytest

from s1_jax.curation.report import (
    example_lines,
    funnel_rows,
    group_rows,
    length_rows,
    markdown_table,
    overlap_with,
    save_funnel_plot,
)
from s1_jax.curation.stages import Count
from s1_jax.errors import UserError
from tests.curation.pools import made_up, table

COUNTS = [
    Count("collect", "duplicates", 971, 59029),
    Count("generate", "", 0, 59029),
    Count("filter", "no_trace", 4913, 54116),
    Count("filter", "images", 0, 54116),
    Count("filter", "bold_numbers", 2535, 51581),
    Count("select", "easy", 27085, 24496),
    Count("select", "not chosen", 23496, 1000),
]


def test_funnel():
    assert funnel_rows(COUNTS) == [
        ("stage", "rule", "dropped", "left"),
        ("collect", "duplicates", "971", "59,029"),
        ("filter", "no_trace", "4,913", "54,116"),
        ("filter", "images", "0", "54,116"),
        ("filter", "bold_numbers", "2,535", "51,581"),
        ("select", "easy", "27,085", "24,496"),
        ("select", "not chosen", "23,496", "1,000"),
    ]
    assert markdown_table([("a", "b"), ("x|y", "1")]) == ["| a | b |", "| --- | ---: |", "| x\\|y | 1 |"]


@pytest.mark.parametrize("counts", [COUNTS, COUNTS[:1], [Count("collect", "", 0, 0)]])
def test_the_plot(tmp_path, counts):
    path = tmp_path / "funnel.png"
    save_funnel_plot(path, counts)
    first = path.read_bytes()
    width, height = struct.unpack(">II", first[16:24])
    assert first[:4] == b"\x89PNG" and width == 1440 and height > 150
    save_funnel_plot(path, counts)
    assert path.read_bytes() == first


def test_groups_and_lengths():
    columns = made_up(80, 1)
    tokens = defaultdict(list)
    for domain, count in zip(columns["domain"], columns["thinking_tokens"], strict=True):
        tokens[domain or "unknown"].append(count)
    groups = sorted(tokens.items(), key=lambda group: (-len(group[1]), group[0]))
    expected = [(name, str(len(group)), f"{statistics.fmean(group):,.0f}") for name, group in groups]
    assert group_rows(table(columns), "domain")[1:] == expected
    (_, (total, mean, least, *_, most)) = length_rows(table(columns))
    counts = columns["thinking_tokens"]
    assert (total, least, most) == (f"{sum(counts):,}", f"{min(counts):,}", f"{max(counts):,}")
    assert mean == f"{statistics.fmean(counts):,.0f}"
    assert length_rows(table(made_up(0)))[1] == ("-",) * 7


def test_examples_are_cut_and_none_is_of_gpqa():
    columns = made_up(6) | {"source": ["gpqa", "Idavidrein/gpqa", "math", "math", "aime", None]}
    columns["question"][2] = "# a `` b\n" + "word " * 100
    text = "\n".join(example_lines(table(columns)))
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("###")] == [
        "### math",
        "### aime",
        "### unknown",
    ]
    assert "**question:** `` # a ` ` b word" in text and " ... ``" in text
    assert columns["question"][0] not in text and columns["question"][3] not in text
    assert max(map(len, text.splitlines())) < 350


def test_overlap(tmp_path):
    columns = made_up(6)
    others = [
        {"question": columns["question"][0]},
        {"question": " " + columns["question"][1].upper() + "\n"},
        {"question": None, "qhash": columns["id"][2]},
        {"question": None, "qhash": "0" * 16},
        {"question": None},
        {"question": "Another one?"},
    ]
    path = tmp_path / "others.jsonl"
    path.write_text("\n".join(map(json.dumps, others)))
    assert overlap_with(str(path), table(columns)) == ("others.jsonl", 3, 6)
    path.write_text('{"problem": "?"}')
    with pytest.raises(UserError, match="line 1: no column 'question'; it has problem"):
        overlap_with(str(path), pa.table({"id": ["a"], "question": ["b"]}))
