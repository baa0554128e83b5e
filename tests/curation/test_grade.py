"""Attempts against reference solutions: rules where they are sure, a judge for the rest, nothing where neither can."""

import hashlib
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s1_jax.config.curate import CurateConfig, EndpointConfig, GradeStageConfig
from s1_jax.curation import grade as module
from s1_jax.curation.answers import Answer
from s1_jax.curation.grade import (
    KEPT,
    Grade,
    final_answer,
    grade,
    grade_by_rules,
    grade_inputs,
    judge_prompt,
    verdict_of,
)
from s1_jax.curation.stages import Source
from s1_jax.records.lines import read_records
from s1_jax.runtime.progress import progress_bar
from tests.curation.stand_in_endpoint import StandInEndpoint

OPEN = Grade(None, "none", True)
RIGHT = {by: Grade(True, by) for by in ("number", "text", "math", "letter")}
JUDGED = CurateConfig(grade=GradeStageConfig(judge=EndpointConfig(model="judge")))
ROWS = [  # question, solution, attempt, solver_1
    ("What is 1 + 1?", "It is $\\boxed{2}$.", "\\boxed{2}", "\\boxed{3}"),
    ("Half of one?", "\\boxed{\\frac{1}{2}}", "\\boxed{\\frac13}", "\\boxed{0.5}"),
    ("Prove that 1 > 0.", "It is a square. $\\boxed{1>0}$", "1 is 1 squared.", None),
    ("Write a program.", None, "print()", "\\boxed{2}"),
    ("What is 1 + 1?", "It is $\\boxed{2}$.", None, ""),
]


def graded(folder, rows=ROWS, config=CurateConfig(), solvers=1):
    names = ["question", "solution", "attempt", *(f"solver_{k}" for k in range(1, solvers + 1))]
    columns = {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
    columns["solver_1_error"] = pa.nulls(len(rows), pa.string())
    pq.write_table(pa.table(columns), folder / "before.parquet")
    with progress_bar(shown=False) as bar:
        made = grade(config, Source(folder / "before.parquet"), folder, bar)
    assert made.rows is None and not made.dropped
    return {name: column.to_pylist() for name, column in made.columns.items()}


@pytest.fixture
def judge(monkeypatch):
    """Stands in for `ask_all`; `judge.says` decides, `judge.asked` has every prompt."""

    class Judge:
        says = staticmethod(lambda prompt: Answer("", "The values are the same.\nYes", None))
        asked: list[str] = []  # noqa: RUF012

        def ask_all(self, who, prompts, folder, bar, what):
            assert who.model == "judge"
            self.asked = [*self.asked, *prompts]
            return [self.says(prompt) for prompt in prompts]

    judge = Judge()
    monkeypatch.setattr(module, "ask_all", judge.ask_all)
    return judge


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so there are $\\boxed{010}$ of them", "010"),
        ("first \\boxed{2}, so again $\\boxed{2}$", "2"),
        ("$\\boxed{2}$ or $\\boxed{5}$", None),
        ("the box is never closed: \\boxed{2", None),
        ("42", "42"),
        (" [2.0, 1.32]\n", "[2.0, 1.32]"),
        ("### Answer: TRIP OUT \n ### Explanation: Definition: get high", "TRIP OUT"),
        ("It doubles.\n**Final answer:** 8", "8"),
        ("Answer: 1\nAnswer: 2", None),
        ("It is \\boxed{12}.\nAnswer: C", None),  # value and choice
        ("**Answer:** $\\boxed{12}$", "12"),
        ("Line one.\nLine two.", None),
        ("x" * 201, None),
        ("\\boxed{}", None),
    ],
)
def test_the_answer_of_a_solution(solution, answer):
    assert final_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "text", "said"),
    [
        ("\\boxed{010}", "\\boxed{10}", RIGHT["number"]),
        ("10", "There are\n\nAnswer: 10", RIGHT["number"]),
        ("10", "\\boxed{11}", Grade(False, "number")),
        ("6.17", "\\boxed{6.168}", Grade(False, "number", True)),  # rounded, says a judge
        ("\\boxed{\\frac{1}{2}}", "\\boxed{\\dfrac12}", RIGHT["math"]),
        ("\\boxed{\\frac{1}{2}}", "\\boxed{\\frac13}", Grade(False, "math", True)),
        ("\\boxed{\\sin(x)}", "\\boxed{\\sin x}", RIGHT["math"]),
        ("Answer: TRIP OUT\nExplanation: ...", "\\boxed{\\text{Trip  out}}", RIGHT["text"]),
        ("Answer: TRIP OUT\nExplanation: ...", "\\boxed{\\text{stumble}}", OPEN),
        ("x+1", "\\boxed{x+1}", RIGHT["text"]),
        ("B", "\\boxed{\\text{(b)}}", RIGHT["letter"]),
        ("B", "Answer: B) Mercury", RIGHT["letter"]),
        ("B", "\\boxed{C}", Grade(False, "letter")),
        ("BD", "Answer: (D), (B)", RIGHT["letter"]),
        ("BD", "\\boxed{B}", Grade(False, "letter")),
        ("B", "\\boxed{\\text{Mercury}}", OPEN),
        ("3", "Since $x=3$ holds,\nthe whole is 5.", OPEN),  # a formula in prose is no answer
        ("3", "\\boxed{\\text{no integer } x = 3}", OPEN),
        ("1,2", "\\boxed{2 \\text{ and } 1}", RIGHT["math"]),
        ("3", "Since $x=3$ it is 5", OPEN),
        ("3", "$x = 3$\n$y = 5$", OPEN),  # which of them?
        ("a long proof.\nIn lines.", "\\boxed{3}", OPEN),
        (None, "\\boxed{3}", Grade(None, "no solution")),
        ("  \n", "\\boxed{3}", Grade(None, "no solution")),
        ("3", None, Grade(None, "no answer")),
        ("3", " ", Grade(False, "no answer")),
    ],
)
def test_rules(solution, text, said):
    assert grade_by_rules("Which one is it?", solution, text) == said


@pytest.mark.parametrize("question", ["Prove $x=1$.", "Show that x is 1.", "show also that x is 1"])
def test_no_rule_grades_a_proof(question):
    assert grade_by_rules(question, "\\boxed{x=1}", "\\boxed{x=1}") == OPEN


def test_without_a_judge_what_is_open_stays_as_it_is(tmp_path, capsys):
    assert graded(tmp_path) == {
        "correct": [True, False, None, None, None],
        "graded_by": ["number", "math", "none", "no solution", "no answer"],
        "solver_1_correct": [False, True, None, None, False],
    }
    table = capsys.readouterr().out
    assert re.search(r"^graded by +attempt +right +solver 1 +right$", table, re.MULTILINE)
    assert re.search(r"^no solution +1 +0 +1 +0$", table, re.MULTILINE)
    assert re.search(r"^all +5 +1 +5 +1$", table, re.MULTILINE)


def test_the_judge_sees_what_is_open_and_its_word_counts(tmp_path, judge, capsys):
    judge.says = lambda prompt: Answer("", f"So it is.\n**{'Yes' if 'Prove' in prompt else 'No'}.**", None)
    columns = graded(tmp_path, config=JUDGED)
    assert columns["correct"] == [True, False, True, None, None]
    assert columns["graded_by"] == ["number", "judge", "judge", "no solution", "no answer"]
    assert sorted(judge.asked) == sorted(judge_prompt(*row[:3]) for row in ROWS[1:3])
    assert all(part in judge.asked[1] for part in ROWS[2][:3])
    assert "asked about 2 texts and decided nothing about 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer", [Answer("", "I cannot say.", None), Answer("", "", None), Answer("", "Yes", "cut off")]
)
def test_a_judge_that_says_neither_leaves_it_to_the_rules(tmp_path, judge, capsys, answer):
    judge.says = lambda prompt: answer
    columns = graded(tmp_path, config=JUDGED)
    assert columns["correct"] == [True, False, None, None, None]
    assert columns["graded_by"] == ["number", "math", "none", "no solution", "no answer"]
    assert "asked about 2 texts and decided nothing about 2" in capsys.readouterr().out


def test_a_judge_at_an_endpoint_is_asked_once(tmp_path):
    folder = tmp_path / "grade"
    folder.mkdir()
    with StandInEndpoint() as endpoint:
        endpoint.says = lambda prompt: "Whole.\nYes" if "Prove" in prompt else (400, "{}")
        config = CurateConfig(grade=GradeStageConfig(judge=EndpointConfig("judge", endpoint.url)))
        columns = graded(folder, config=config)
        assert columns["graded_by"] == ["number", "math", "judge", "no solution", "no answer"]
        assert columns["correct"] == [True, False, True, None, None] and len(endpoint.asked) == 2
        endpoint.says = lambda prompt: "No"
        assert graded(folder, config=config)["graded_by"][1:3] == ["judge", "judge"] and len(endpoint.asked) == 3


def test_solvers_are_judged_too(tmp_path, judge):
    rows = [("Prove it.", "A proof.", "One.", "Two.", "Three.")]
    judge.says = lambda prompt: Answer("", "No" if "Two." in prompt else "Yes", None)
    columns = graded(tmp_path, rows, JUDGED, solvers=2)
    assert columns == {
        "correct": [True],
        "graded_by": ["judge"],
        "solver_1_correct": [False],
        "solver_2_correct": [True],
    }


def test_what_a_stopped_stage_had_graded_is_not_graded_again(tmp_path, judge, monkeypatch):
    judge.says = lambda prompt: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        graded(tmp_path, config=JUDGED)
    with (tmp_path / KEPT).open("a") as file:
        file.write('{"key": "torn')
    undecided = ROWS[2][:3]  # which may be, because math-verify was ended
    with monkeypatch.context() as patch:
        patch.setattr(module, "grade_by_rules", lambda *asked: OPEN if asked == undecided else pytest.fail(f"{asked}"))
        columns = graded(tmp_path)
    assert columns["correct"] == [True, False, None, None, None]
    assert not (tmp_path / KEPT).exists()


def test_what_no_rule_decided_is_not_remembered(tmp_path, judge):
    """By an earlier version it was, and math-verify may have been ended on a busy machine."""
    judge.says = lambda prompt: (_ for _ in ()).throw(KeyboardInterrupt)
    rows = [("What is it?", "\\boxed{\\frac{1}{2}}", "\\boxed{0.5}", None)]
    asked = hashlib.sha256(json.dumps(rows[0][:3]).encode()).hexdigest()[:16]
    (tmp_path / KEPT).write_text(json.dumps({"key": asked, "grade": OPEN}) + "\n")
    assert graded(tmp_path, rows)["graded_by"] == ["math"]
    with pytest.raises(KeyboardInterrupt):
        graded(tmp_path, [*rows, ("Prove it.", "A proof.", "Another.", None)], JUDGED)
    assert [line["grade"][1] for line in read_records(tmp_path / KEPT)] == ["math", "no answer", "no answer"]


def test_a_judge_that_is_decoded_here_counts_by_its_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert grade_inputs(CurateConfig(grade=GradeStageConfig(judge=EndpointConfig(str(tmp_path))))) == [
        *tmp_path.iterdir()
    ]
    assert grade_inputs(CurateConfig()) == grade_inputs(JUDGED) == []


def test_long_texts_are_shown_to_the_judge_by_both_ends():
    prompt = judge_prompt("Q", "begin" + "x" * 10**6 + "end", "first" + "y" * 10**6 + "last")
    assert len(prompt) < 30_000 and all(part in prompt for part in ("begin", "xend", "first", "ylast"))


def test_a_verdict_is_the_last_word():
    assert verdict_of("No doubt:\nYes") is True and verdict_of("Yes, but\n\nno.") is False
    assert verdict_of("Yes or no?") is None and verdict_of(" ") is None


def test_real_attempts_with_known_verdicts(shared_data):
    lines = (shared_data / "long_cot_traces" / "thought_anchors_r1distill.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    said = [grade_by_rules(row["question"], row["gold"], row["attempt"]).correct for row in rows]
    assert said == [row["is_correct"] for row in rows] and len(rows) == 40

    def with_answer_line(text):
        return re.sub("^A: ", "Answer: ", text, flags=re.MULTILINE)

    undecided = 0
    for line in (shared_data / "grader_cases" / "gsm8k_labelled_generations.jsonl").read_text().splitlines():
        row = json.loads(line)
        solution = with_answer_line(row["ground_truth"])
        for attempt in (value for value in row.values() if isinstance(value, dict)):
            correct = grade_by_rules(row["question"], solution, with_answer_line(attempt["solution"])).correct
            undecided += correct is None
            assert correct in (None, attempt["is_correct"])
    assert undecided <= 5


def test_real_solutions_are_right_by_themselves_or_no_rules_to_grade(shared_data):
    lines = (shared_data / "s1k_released" / "s1k_released_questions_solutions.jsonl").read_text().splitlines()
    rows = [row for line in lines if (row := json.loads(line))["solution"]]
    said = [grade_by_rules(row["question"], row["solution"], row["solution"]).correct for row in rows]
    assert False not in said
    assert said.count(True) > 600
