"""Collecting: every source gives its questions, none twice, and what is wrong is said by file and row."""

import hashlib
import json
import random
import sys
from collections import Counter

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s1_jax.config.curate import CollectConfig, CurateConfig
from s1_jax.curation import similar
from s1_jax.curation.collect import collect, collect_inputs
from s1_jax.curation.sources import PUBLIC, SYNTHETIC
from s1_jax.curation.stages import Count, Stage, counts_of, run_stages
from s1_jax.errors import UserError
from s1_jax.runtime.progress import progress_bar
from s1_jax.tasks import gpqa_diamond

QUESTIONS_OF_THE_PAPER, SOURCES_OF_THE_PAPER = 59_029, 16
PLANETS = {
    "Question": "Which planet is closest to the Sun?",
    "Correct Answer": "Mercury",
    "Incorrect Answer 1": "Venus",
    "Incorrect Answer 2": "Earth",
    "Incorrect Answer 3": "Mars",
    "Explanation": "Its orbit is the smallest.",
    "Record ID": "rec1",
}
ARENA = {"problem": "a?", "solution": "b", "language": "EN", "modality": "text-only"}
CHOICES = {"passage": " It rained. \n", "question": "Why?", "options": ["(A)Sun", "(B)Cloud"], "label": "B"}
HUB = {  # data set (its subset, its file) and split -> rows; what is not named has none
    ("Idavidrein/gpqa", "gpqa_extended", "train"): [PLANETS, PLANETS | {"Question": "Of the diamond?"}],
    ("Idavidrein/gpqa", "gpqa_diamond", "train"): [PLANETS | {"Question": "Of the  diamond?"}],
    ("di-zhang-fdu/AIME_1983_2024", None, "train"): [
        {"Year": 2021, "Question": "n?", "Answer": 70},
        {"Year": 2022, "Question": "m?", "Answer": 71},
    ],
    ("simplescaling/openaimath", None, "train"): [{"problem": "1+1?", "solution": "\\boxed{2}"}],
    ("GAIR/OlympicArena", "CS", "val"): [ARENA, ARENA | {"language": "ZH"}, ARENA | {"modality": "multi-modal"}],
    ("TIGER-Lab/TheoremQA", None, "test"): [
        {"Question": "v?", "Answer": "3.5", "Picture": None},
        {"Question": "w?", "Answer": "4", "Picture": {"bytes": b""}},
    ],
    ("AI-MO/NuminaMath-CoT", None, "train"): [
        {"source": "aops_forum", "problem": "f?", "solution": "g"},
        {"source": "olympiads", "problem": "one of the 500?", "solution": "h"},
        {"source": "olympiads", "problem": "another?", "solution": "h"},
    ],
    ("simplescaling/numinamath_500", None, "train"): [{"problem": "One of the 500?"}],
    ("KbsdJames/Omni-MATH", None, "test"): [{"problem": "o?", "solution": "p"}],
    ("OpenDFM/SciEval", None, "test"): [
        {"question": "X,Y\nOptimal ligand:\n\nAnswer:", "answer": ["X"], "task_name": "t", "topic": None},
        {"question": "Unanswered?", "answer": None, "task_name": "t", "topic": None},
    ],
    ("Hothan/OlympiadBench", "OE_TO_physics_en_COMP", "train"): [{"question": "q?", "solution": ["r", "s"]}],
    ("daman1209arora/jeebench", None, "test"): [{"question": "j?", "gold": "ABD"}],
    ("simplescaling/s1-prob", None, "train"): [{"question": "E[X]?", "solution": "0"}],
    ("0xharib/xword1", None, "train"): [{"input": "### Clue: Not on (3)", "output": "OFF"}],
    ("codegenning/usacobench_formatted", None, "test"): [{"question": " Cows. \n"}],
    ("simplescaling/s1-teasers", None, "train"): [{"Question": " Heads? ", "Answer": "1/2"}],
    ("lighteval/agi_eval_en", "data/lsat-ar.jsonl"): [CHOICES | {"other": None}],
    ("lighteval/agi_eval_en", "data/sat-math.jsonl"): [CHOICES | {"passage": None, "other": {"solution": "Wet."}}],
    ("lighteval/agi_eval_en", "data/aqua-rat-dev.jsonl"): [CHOICES | {"passage": None, "other": {"solution": "So B."}}],
    ("lighteval/agi_eval_en", "data/math.jsonl"): [
        {"question": "hard?", "options": None, "answer": "5", "other": {"solution": "five", "level": 5}},
        {"question": "easy?", "options": None, "answer": "4", "other": {"solution": "four", "level": 4}},
    ],
    ("livecodebench/code_generation_lite", "test3.jsonl"): [
        {"question_content": "Sort. ", "difficulty": "hard"},
        {"question_content": "Add.", "difficulty": "easy"},
    ],
}
COLLECTED = {
    "aime": [("n?", "70")],
    "math": [("1+1?", "\\boxed{2}")],
    "olympic_arena": [("a?", "b")],
    "theoremqa": [("v?", "3.5")],
    "numina": [("f?", "g"), ("one of the 500?", "h")],
    "omni_math": [("o?", "p")],
    "scieval": [("X,Y\nWhat is the optimal ligand?", "X")],
    "olympiad_bench": [("q?", "r")],
    "jeebench": [("j?", "ABD")],
    "agieval": [
        ("Why?\n(A)Sun\n(B)Cloud", "Wet.\n\nAnswer: B"),
        ("It rained.\n\nWhy?\n(A)Sun\n(B)Cloud", "Answer: B"),
        ("Why?", "So B."),
        ("hard?", "five"),
    ],
    "s1_prob": [("E[X]?", "0")],
    "xword": [
        (
            "Solve the crossword puzzle. You are presented with a clue as input and the number of letters in brackets."
            "\n\nNot on (3)",
            "OFF",
        )
    ],
    "usaco": [("Cows.", None)],
    "s1_teasers": [("Heads?", "1/2")],
    "live_code_bench": [("Sort.", None)],
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's rows, which a test may change."""
    rows = dict(HUB)

    def found(*place):
        if isinstance(rows.get(place), Exception):
            raise rows[place]
        return rows.get(place, [])

    def hf_hub_download(name, file, repo_type, revision):
        path = tmp_path / "hub" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return write(path, *found(name, file))

    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, split: found(name, subset, split))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return rows


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(run_dir, *sources, paths=(), **options):
    """The stage's table and its counts."""
    config = CurateConfig(collect=CollectConfig(sources, tuple(paths), **{"near_duplicates": None} | options))
    with progress_bar(shown=False) as bar:
        path = run_stages([Stage("collect", collect, ("collect",), collect_inputs)], config, run_dir, bar)
    return pq.read_table(path).to_pylist(), counts_of(path)


def texts(rows):
    return [(row["question"], row["solution"]) for row in rows]


def test_the_sources_are_the_papers():
    assert len(PUBLIC) == SOURCES_OF_THE_PAPER
    assert sum(pool.in_paper for pool in PUBLIC.values()) == QUESTIONS_OF_THE_PAPER
    assert set(COLLECTED) | {"gpqa"} == set(PUBLIC)


@pytest.mark.parametrize("name", COLLECTED)
def test_every_source_has_its_fields_and_filter(hub, tmp_path, name):
    rows, _ = run(tmp_path, name)
    assert texts(rows) == COLLECTED[name]
    for row in rows:
        assert row["source"] == name and row["domain"] is row["thinking"] is row["attempt"] is None
        assert row["id"] == hashlib.sha256(row["question"].encode()).hexdigest()[:16]


def test_gpqa_is_without_the_diamond_and_knows_its_letter(hub, tmp_path):
    ((question, solution),) = texts(run(tmp_path / "a", "gpqa")[0])
    letter = solution.removeprefix("Its orbit is the smallest.\n\nAnswer: ")
    assert question.startswith(PLANETS["Question"]) and f"\n{letter}) Mercury" in question
    assert {line.split(") ")[1] for line in question.split("\n")[2:]} == {"Mercury", "Venus", "Earth", "Mars"}
    assert gpqa_diamond.grade(letter, letter).correct


def test_gpqas_order_of_choices_depends_on_seed_and_question_alone(hub, tmp_path):
    many = [PLANETS | {"Question": f"Which planet, case {number}?"} for number in range(50)]
    hub["Idavidrein/gpqa", "gpqa_extended", "train"] = many
    random.seed(1)
    once = texts(run(tmp_path / "a", "gpqa")[0])
    random.seed(2)
    hub["Idavidrein/gpqa", "gpqa_extended", "train"] = many[::-1]
    assert texts(run(tmp_path / "b", "gpqa")[0])[::-1] == once
    assert len({solution for _, solution in once}) == 4
    assert texts(run(tmp_path / "c", "gpqa", seed=1)[0])[::-1] != once


def test_what_is_drawn_is_alike_of_all_groups_and_does_not_depend_on_the_order(hub, tmp_path, monkeypatch):
    rows = [
        {"question": f"{task} {topic} {number}?", "answer": ["A"], "task_name": task, "topic": topic}
        for task, topics in {"big": "abc", "small": "d"}.items()
        for topic in topics
        for number in range(40 if topic == "a" else 10)
    ]
    monkeypatch.setitem(PUBLIC, "scieval", PUBLIC["scieval"]._replace(chosen=12))
    hub["OpenDFM/SciEval", None, "test"] = rows
    drawn, _ = run(tmp_path / "a", "scieval")
    groups = Counter(row["question"].rsplit(" ", 1)[0] for row in drawn)
    assert groups == {"big a": 2, "big b": 2, "big c": 2, "small d": 6}
    hub["OpenDFM/SciEval", None, "test"] = rows[::-1]
    assert run(tmp_path / "b", "scieval")[0] == drawn
    assert run(tmp_path / "c", "scieval", seed=1)[0] != drawn
    assert run(tmp_path / "d", "scieval", limit=5)[0] == drawn[:5]


@pytest.mark.parametrize(
    ("source", "place", "rows", "said"),
    [
        ("math", ("simplescaling/openaimath", None, "train"), FileNotFoundError("gone\nfor good"), "(gone)"),
        ("gpqa", ("Idavidrein/gpqa", "gpqa_diamond", "train"), ConnectionError("is a gated dataset"), "gated"),
        ("jeebench", ("daman1209arora/jeebench", None, "test"), RuntimeError("scripts are no longer"), "scripts"),
        ("agieval", ("lighteval/agi_eval_en", "data/math.jsonl"), FileNotFoundError("404"), "data/math.jsonl of hub"),
        (
            "s1_prob",
            ("simplescaling/s1-prob", None, "train"),
            [{"question": "a?"}],
            "row 1: field 'solution' is missing",
        ),
        ("xword", ("0xharib/xword1", None, "train"), [{"input": "Not on (3)", "output": "OFF"}], "has no '### Clue: '"),
        ("omni_math", ("KbsdJames/Omni-MATH", None, "test"), [{"problem": True, "solution": "b"}], "of type bool"),
    ],
)
def test_what_cannot_be_read_is_named_and_left_out_as_a_whole(hub, tmp_path, capsys, source, place, rows, said):
    hub[place] = [*HUB[place], *rows] if isinstance(rows, list) else rows
    if isinstance(rows, list):
        said = said.replace("row 1", "row 2")
    collected, _ = run(tmp_path, source, "usaco")
    assert texts(collected) == COLLECTED["usaco"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{source}: ")]
    assert line.startswith(f"{source}: skipped: ") and said in line and "--again-from collect" in line
    reports = {report["name"]: report for report in json.loads((tmp_path / "collect" / "sources.json").read_text())}
    assert said in reports[source]["skipped"] and reports["usaco"]["skipped"] is None
    assert reports["usaco"] | {"in_paper": 519, "new": 1, "without_solution": 1} == reports["usaco"]
    with pytest.raises(UserError, match=f"no question in {source}"):
        run(tmp_path / "alone", source)


def test_the_users_rows(tmp_path, capsys):
    jsonl = write(
        tmp_path / "pool.v2.jsonl",
        {
            "id": 7,
            "question": "a?",
            "solution": 5,
            "source_type": "A/b",
            "thinking_trajectories": ["Hm."],
            "attempt": "5",
        },
        {"id": 7, "question": "A? ", "solution": "5"},
        {"problem": "c?", "domain": "14"},
        {"question": None},
        {"question": " \n"},
    )
    parquet = tmp_path / "pool.parquet"
    pq.write_table(pa.table({"question": ["d?"], "solution": ["e"], "source": ["mine"], "thinking": ["So."]}), parquet)
    rows, counts = run(tmp_path / "run", paths=[jsonl, str(parquet)])
    columns = ("question", "solution", "source", "domain", "thinking", "attempt")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("a?", "5", "A/b", None, "Hm.", "5"),
        ("c?", None, "pool.v2", "14", None, None),
        ("d?", "e", "mine", None, "So.", None),
    ]
    assert list(rows[0]) == ["id", *columns]
    assert counts == [
        Count("collect", "no question", 2, 4),
        Count("collect", "repeated", 1, 3),
        Count("collect", "near duplicate", 0, 3),
    ]
    assert f"{jsonl}: 2 questions of 5, 1 without a solution" in capsys.readouterr().out
    assert len(run(tmp_path / "limited", paths=[jsonl, str(parquet)], limit=1)[0]) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"questoin": "b?", "id": 2}', "line 2: no column question or problem; it has questoin, id"),
        ('{"question": "b?", "solu', "line 2: not JSON"),
        ('{"question": "b?", "id": 1}', r"line 2: another question \(.*line 1\) has the same id '1'"),
        ('{"question": ["b?", 1], "solution": {"a": 1}}', "line 2: field 'solution' is of type dict; it must be a str"),
        ('{"question": true}', "line 2: field 'question' is of type bool"),
        ('{"question": "\\ud835"}', "line 2: field 'question' contains half of a surrogate pair"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, line, said):
    path = tmp_path / "pool.jsonl"
    path.write_text(f'{{"question": "a?", "id": 1}}\n{line}\n')
    with pytest.raises(UserError, match=f"pool.jsonl, {said}"):
        run(tmp_path / "run", paths=[str(path)])
    assert not (tmp_path / "run" / "1_collect.parquet").exists()


def test_near_duplicates_go_and_are_written_down(tmp_path, monkeypatch):
    asked = []

    def near_duplicates(texts, threshold, bar=None):
        asked.append((list(texts), threshold))
        return [(2, 0, 0.9), (3, 1, 0.95)]

    monkeypatch.setattr(similar, "near_duplicates", near_duplicates)
    questions = ["a b c", "d e f", "a b c!", "d e f!", "g"]
    path = write(tmp_path / "pool.jsonl", *({"question": text} for text in questions))
    rows, counts = run(tmp_path / "run", paths=[path], near_duplicates=0.7)
    assert [row["question"] for row in rows] == ["a b c", "d e f", "g"] and asked == [(questions, 0.7)]
    assert counts[-1] == Count("collect", "near duplicate", 2, 3)
    pairs = [json.loads(line) for line in (tmp_path / "run" / "collect" / "duplicates.jsonl").open()]
    assert pairs[0] == {
        "similarity": 0.9,
        "id": hashlib.sha256(b"a b c!").hexdigest()[:16],
        "question": "a b c!",
        "stays": rows[0]["id"],
        "stays_question": "a b c",
    }
    assert len(pairs) == 2


def test_of_two_the_one_of_the_source_named_first_stays(hub, tmp_path):
    hub["AI-MO/NuminaMath-CoT", None, "train"] = [{"source": "aops_forum", "problem": " N ?", "solution": "long"}]
    for sources, solution in ((("aime", "numina"), "70"), (("numina", "aime"), "long")):
        rows, counts = run(tmp_path / sources[0], *sources)
        assert [(row["source"], row["solution"]) for row in rows] == [(sources[0], solution)]
        assert counts[1] == Count("collect", "repeated", 1, 1)


def test_rows_beyond_one_group(tmp_path, monkeypatch):
    rows = [{"question": f"{number}?"} for number in range(10)]
    path = write(tmp_path / "pool.jsonl", *rows)
    for size in (3, 5, 100):
        monkeypatch.setattr("s1_jax.curation.collect.ROWS_OF_GROUP", size)
        assert [{"question": row["question"]} for row in run(tmp_path / str(size), paths=[path])[0]] == rows


def test_synthetic_problems_are_seeded_and_right(tmp_path):
    rows, _ = run(tmp_path / "a", SYNTHETIC, limit=200)
    assert rows == run(tmp_path / "b", SYNTHETIC, limit=200)[0]
    assert rows != run(tmp_path / "c", SYNTHETIC, limit=200, seed=1)[0]
    assert len({row["id"] for row in rows}) == 200
    for row in rows:
        start, steps = row["question"].removeprefix("Start: ").split(". Steps: ")
        steps = steps.removesuffix(". Result mod 100?").split()
        assert int(row["solution"]) == (int(start) + sum(int(step[1:]) for step in steps)) % 100
    with pytest.raises(UserError, match="is endless; set collect.limit"):
        run(tmp_path / "d", SYNTHETIC)


def test_a_changed_file_is_collected_again(tmp_path):
    (tmp_path / "pool" / "data").mkdir(parents=True)
    for file, path in (("pool/data/train-0.jsonl", "pool"), ("alone.jsonl", "alone.jsonl")):
        for text in "ab":
            write(tmp_path / file, {"question": text})
            assert [row["question"] for row in run(tmp_path / "run", paths=[str(tmp_path / path)])[0]] == [text]


def test_options_are_checked(tmp_path):
    with pytest.raises(UserError, match="unknown source 'maths'; known: gpqa, aime, math"):
        run(tmp_path, "maths")
    with pytest.raises(UserError, match="set collect.sources or collect.paths"):
        run(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        run(tmp_path, paths=["./none.jsonl"])
    for options in ({"limit": 0}, {"near_duplicates": 0.0}, {"near_duplicates": 1.5}):
        with pytest.raises(UserError, match=f"collect.{next(iter(options))} is "):
            CollectConfig(**options)


def test_the_released_questions_have_the_ids_they_were_released_with(shared_data, tmp_path):
    path = shared_data / "s1k_released" / "s1k_released_questions_solutions.jsonl"
    released = [json.loads(line) for line in path.open()]
    rows, counts = run(tmp_path / "run", paths=[str(path)])
    assert [count.dropped for count in counts] == [88, 6, 0]  # GPQA's are nulled; six pairs differ in white space
    assert {row["id"] for row in rows} < {row["qhash"] for row in released}
    near, counts = run(tmp_path / "near", paths=[str(path)], near_duplicates=0.8)
    assert 5 < counts[-1].dropped < 20 and len(near) == counts[-1].left


def test_what_near_duplicates_need_is_asked_for_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    config = CurateConfig(collect=CollectConfig(paths=(str(tmp_path / "no such file.jsonl"),)))
    with pytest.raises(UserError, match="pip install"), progress_bar(shown=False) as bar:
        collect(config, None, tmp_path, bar)
