"""Tasks load what they should, and say which line and field is at fault."""

import json

import pytest

from s1_jax.config import TaskConfig
from s1_jax.errors import UserError
from s1_jax.tasks import TASKS, Problem, load_task

OWN_FORMS = {"gpqa_diamond", "gpqa_main", "gsm8k", "olympiadbench"}


@pytest.fixture
def rows(tmp_path):
    def write(*lines):
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
        return str(path)

    return write


def test_synthetic_problems_are_seeded_and_a_smaller_limit_is_a_prefix():
    few, more, other = (load_task(TaskConfig(limit=n, seed=seed)).problems for n, seed in ((5, 0), (9, 0), (5, 1)))
    assert more[:5] == few and other != few
    assert len({problem.question for problem in more}) == 9
    assert len(load_task(TaskConfig()).problems) == 500


@pytest.mark.parametrize("name", sorted({*TASKS} - OWN_FORMS))
def test_every_task_reads_a_file(name, rows):
    path = rows({"id": 7, "problem": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": 4})
    problems = load_task(TaskConfig(name=name, path=path)).problems
    assert problems == (Problem(7, "1+1?", "2"), Problem("problems.jsonl:2", "2+2?", "4"))


@pytest.mark.parametrize("name", ["id", "unique_id", "problem_idx"])
def test_ids_have_several_names(name, rows):
    problems = load_task(TaskConfig("hmmt_feb25", rows({name: 7, "problem": "1+1?", "answer": "2"}))).problems
    assert problems == (Problem(7, "1+1?", "2"),)


def test_limit(rows):
    path = rows(*({"problem": f"{i}?", "answer": i} for i in range(5)), "broken, but not read\n")
    assert [problem.gold for problem in load_task(TaskConfig(name="jsonl", path=path, limit=3)).problems] == [
        "0",
        "1",
        "2",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"answer": "2"}, ["line 2", "problem or question"]),
        ({"problem": "?"}, ["line 2", "answer"]),
        ({"problem": "?", "answer": True}, ["line 2", "answer", "True"]),
        ({"problem": "?", "answer": ["2"]}, ["line 2", "answer"]),
        ({"problem": "", "answer": "2"}, ["line 2", "problem"]),
        ({"problem": "?", "answer": "2", "id": 1.5}, ["line 2", "id"]),
        ({"problem": "?", "answer": "2", "id": "1"}, ["line 2", "'1'", "earlier row has the same id"]),
        ({"problem": "\ud83d?", "answer": "2"}, ["line 2", "problem", "not valid Unicode"]),
        ("not json\n", ["line 2"]),
        ('{"problem": "?", "answer": ' + "7" * 5000 + "}\n", ["line 2", "5,000 digits"]),
        ('{"problem": "?", "answer": "2", "answer": "3"}\n', ["line 2", "'answer' occurs twice"]),
    ],
)
def test_bad_rows_name_line_and_field(rows, line, words):
    path = rows({"id": 1, "problem": "1+1?", "answer": "2"}, line)
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(name="jsonl", path=path))
    assert all(word in str(error.value) for word in [path, *words])


def test_bad_configs(rows):
    for config, word in [
        (dict(name="aime"), "aime24"),
        (dict(name="jsonl"), "--task.path"),
        (dict(limit=0), "limit"),
        (dict(name="jsonl", path=rows()), "no problems"),
    ]:
        with pytest.raises(UserError, match=word):
            load_task(TaskConfig(**config))


def test_aime24_in_s1s_own_form(shared_data):
    aime = load_task(TaskConfig(name="aime24", path=str(shared_data / "aime24" / "aime24_nofigures.jsonl")))
    assert len(aime.problems) == 30 and aime.problems[0].id == 60
    assert all(0 <= int(problem.gold) <= 999 for problem in aime.problems)
