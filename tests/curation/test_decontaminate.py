"""Decontamination: each check finds what it is for and nothing else, and the released s1K holds what is known of it."""

import json
import random
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from s1_jax.config import TaskConfig
from s1_jax.config.curate import CurateConfig, DecontaminateConfig
from s1_jax.curation.decontaminate import HITS, NEAR, NGRAM, SAME, SPLIT, Problem, decontaminate, find_hits
from s1_jax.curation.stages import Source
from s1_jax.errors import UserError
from s1_jax.runtime.progress import progress_bar
from s1_jax.tasks import load_task

PROBLEM = "A train leaves at noon, runs for 3 hours at 80 miles per hour, and rests. How far has it come?"
# of the released s1K and MATH500: pairs, problems, questions (the 88 questions of GPQA are not in the data)
BY_WORDS, WITHOUT_PUNCTUATION, WORD_FOR_WORD = (88, 21, 79), (115, 31, 97), (3, 3, 3)
OUTSIDE_AUDIT, SHARED_BY_THE_AUDIT = (
    36,
    5,
)  # problems it lists, and how many 8-grams of tokens they share with a question


def write(path, texts, field="problem"):
    path.write_text("".join(json.dumps({"id": place, field: text}) + "\n" for place, text in enumerate(texts)))
    return str(path)


def run(folder, questions, **options):
    pq.write_table(
        pa.table(
            {"id": [f"q{place}" for place in range(len(questions))], "question": pa.array(questions, pa.string())}
        ),
        folder / "table.parquet",
    )
    config = CurateConfig(decontaminate=DecontaminateConfig(**{"tasks": (), **options}))
    with progress_bar(shown=False) as bar:
        made = decontaminate(config, Source(folder / "table.parquet"), folder, bar)
    lines = [json.loads(line) for line in (folder / HITS).read_text().splitlines()]
    return SimpleNamespace(rows=made.rows.tolist(), dropped=list(made.dropped), hits=lines)


@pytest.mark.parametrize(
    ("problem", "question", "checks"),
    [
        (PROBLEM, PROBLEM, {NGRAM, SPLIT, SAME}),
        (PROBLEM, PROBLEM.upper().replace(" ", " \n "), {NGRAM, SPLIT, SAME}),
        (PROBLEM, "He said: runs for 3 hours, at 80 miles per hour. Why?", {SPLIT}),
        (PROBLEM, "A mule runs for 3 hours at 80 miles per week. Why?", {NGRAM, SPLIT}),
        (PROBLEM, "A mule runs for 3 hours at 80 yards per week. Why?", set()),
        (PROBLEM, PROBLEM.replace("noon", "dawn").replace("hours", "days").replace("and", "then"), {NEAR}),
        (PROBLEM, "A bus stops at noon, waits for 9 hours under 7 trees by the road, and goes. Where is it?", set()),
        ("Evaluate $\\log_2 64$.", "evaluate  $ \\log_2 64 $", {SAME}),  # too short for an n-gram
        ("Evaluate $\\log_2 64$.", "Evaluate $\\log_2 32$.", set()),  # and not the same, though half of it is
        ("Evaluate $(1+2i)6-3i$.", "Evaluate $(1+2i)6+3i$.", set()),
        ("?", "...", set()),  # no words, which are not the same words
    ],
)
def test_what_each_check_finds(problem, question, checks):
    hits = find_hits([question], [Problem("set", "1", problem)], DecontaminateConfig())
    assert {hit.check for hit in hits} == checks and len(hits) == len(checks)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_ngrams_beside_the_texts_themselves(size):
    random_ = random.Random(0)

    def texts(count):
        return [" ".join(random_.choices("ab", k=random_.randrange(0, 14))) for _ in range(count)]

    questions, problems = texts(60), texts(30)
    expected = set()
    for row, question in enumerate(questions):
        for place, problem in enumerate(problems):
            spans = {problem[first : first + 2 * size - 1] for first in range(0, len(problem), 2)}
            if shared := sum(len(span) == 2 * size - 1 and span in question for span in spans):
                expected.add((row, place, shared))
    options = DecontaminateConfig(words=size, near_duplicates=None)
    hits = find_hits(questions, [Problem("set", str(place), text) for place, text in enumerate(problems)], options)
    for check in (NGRAM, SPLIT):
        assert {(hit.row, hit.problem, hit.shared) for hit in hits if hit.check == check} == expected
    assert len(expected) > 10


def test_a_turn_of_phrase_is_no_leak():
    phrase = "where m and n are relatively prime positive integers"
    questions = [f"{number} apples, {phrase}" for number in range(3)]
    problem = Problem("set", "1", f"Of a cake I eat a part, {phrase}.")
    assert {hit.row for hit in find_hits(questions, [problem], DecontaminateConfig(common=3))} == {0, 1, 2}
    assert not find_hits(questions, [problem], DecontaminateConfig(common=2))
    assert [hit.row for hit in find_hits([*questions, problem.text], [problem], DecontaminateConfig(common=2))] == [
        3,  # by what only it shares, with and without punctuation, and word for word
        3,
        3,
    ]


def test_rows_funnel_and_report(tmp_path, capsys):
    first = write(tmp_path / "first.jsonl", [PROBLEM, "What is $2+2$?"])
    second = write(
        tmp_path / "second.jsonl", [PROBLEM, "Name the capital of the largest country in the world."], "question"
    )
    questions = [
        "Why is the sky blue?",
        PROBLEM,
        None,
        "what is 2 + 2",
        "Name the capital of the largest country in the sea.",
    ]
    made = run(tmp_path, questions, paths=(first, second))
    assert made.rows == [0, 2] and made.dropped == [("first.jsonl", 2), ("second.jsonl", 1)]
    found = [(hit["id"], hit["set"], hit["problem_id"], hit["check"]) for hit in made.hits]
    assert found == [
        *[("q1", name, "0", check) for name in ("first.jsonl", "second.jsonl") for check in (NGRAM, SPLIT, SAME)],
        ("q3", "first.jsonl", "1", SAME),
        ("q4", "second.jsonl", "1", NGRAM),
        ("q4", "second.jsonl", "1", SPLIT),
    ]
    assert made.hits[-1]["question"] == questions[4] and made.hits[-1]["problem"].endswith("in the world.")
    assert made.hits[-1]["shared"] == 2 and made.hits[-1]["similarity"] is None
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[1] == ["first.jsonl", "n-gram", "1", "1", "1"] and table[3][-3:] == ["2", "2", "2"]
    assert table[-1][:6] == "3 of 5 questions dropped; all".split()


def test_sets_of_the_tasks(tmp_path):
    task = load_task(TaskConfig("synthetic"))
    made = run(tmp_path, ["Something else", task.problems[7].question], tasks=("synthetic",), near_duplicates=None)
    assert made.rows == [0] and made.dropped == [("synthetic", 1)]
    assert str(task.problems[7].id) in {hit["problem_id"] for hit in made.hits if hit["check"] == SAME}


def test_nothing_to_find_and_no_questions(tmp_path):
    path = write(tmp_path / "set.jsonl", [PROBLEM])
    assert run(tmp_path, ["Why is the sky blue?"], paths=(path,)).rows == [0]
    assert run(tmp_path, [], paths=(path,)).dropped == [("set.jsonl", 0)]


def test_sets_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"decontaminate\.paths: no such file: .*absent\.jsonl"):
        run(tmp_path, ["one"], paths=(str(tmp_path / "absent.jsonl"),))
    with pytest.raises(UserError, match=r"set\.jsonl, line 1: no field problem or question; it has id, text"):
        run(tmp_path, ["one"], paths=(write(tmp_path / "set.jsonl", ["two"], "text"),))
    with pytest.raises(UserError, match=r"none\.jsonl"):
        run(tmp_path, ["one"], paths=(write(tmp_path / "none.jsonl", []),))
    with pytest.raises(UserError, match="unknown task 'math5000'"):
        run(tmp_path, ["one"], tasks=("math5000",))


@pytest.mark.parametrize("options", [{"words": 0}, {"common": 0}, {"near_duplicates": 0.0}, {"near_duplicates": 1.5}])
def test_options_that_make_no_sense(options):
    with pytest.raises(UserError, match=next(iter(options))):
        DecontaminateConfig(**options)


def released(shared_data):
    lines = (shared_data / "s1k_released" / "s1k_released_questions_solutions.jsonl").read_text().splitlines()
    return [json.loads(line)["question"] for line in lines]


def test_the_released_s1k_beside_math500(shared_data, tmp_path):
    made = run(tmp_path, released(shared_data), paths=(str(shared_data / "math500" / "math500.jsonl"),))
    for check, known in ((NGRAM, BY_WORDS), (SPLIT, WITHOUT_PUNCTUATION), (SAME, WORD_FOR_WORD)):
        hits = [hit for hit in made.hits if hit["check"] == check]
        assert (len(hits), len({hit["problem_id"] for hit in hits}), len({hit["id"] for hit in hits})) == known
    assert made.dropped == [("math500.jsonl", WITHOUT_PUNCTUATION[2])]


def test_why_an_outside_audit_lists_36(shared_data):
    """Its 8-grams are of the Qwen2 tokenizer's tokens, with case and white space, and it wants five of them."""
    tokenizer = Tokenizer.from_file(str(shared_data / "qwen25_tokenizer" / "tokenizer.json"))

    def text(words):
        return " ".join(map(str, tokenizer.encode(words, add_special_tokens=False).ids))

    lines = (shared_data / "math500" / "math500.jsonl").read_text().splitlines()
    problems = [Problem("math500", str(place), text(json.loads(line)["problem"])) for place, line in enumerate(lines)]
    questions = [text(question or "") for question in released(shared_data)]
    hits = find_hits(questions, problems, DecontaminateConfig(near_duplicates=None))
    listed = {hit.problem for hit in hits if hit.check == NGRAM and hit.shared >= SHARED_BY_THE_AUDIT}
    assert len(listed) == OUTSIDE_AUDIT
