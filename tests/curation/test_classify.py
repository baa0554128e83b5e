"""Fields of questions: one code of the table, asked for once more, else unknown; the pool's own without a judge."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s1_jax.config.curate import CurateConfig, EndpointConfig, GradeStageConfig
from s1_jax.curation import classify as module
from s1_jax.curation.answers import Answer
from s1_jax.curation.classify import DOMAINS, UNKNOWN, classify, code_of, field_prompt
from s1_jax.curation.stages import Source
from s1_jax.errors import RunError
from s1_jax.runtime.progress import progress_bar

JUDGED = CurateConfig(grade=GradeStageConfig(judge=EndpointConfig(model="judge")))
QUESTIONS = ["How many primes?", "How many trees?", "What is red?"]


def classified(folder, config, domain=(None, None, None), source=("math", "trees", None)):
    columns = {"question": QUESTIONS[: len(domain)], "source": source, "domain": domain}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, folder / "before.parquet")
    with progress_bar(shown=False) as bar:
        made = classify(config, Source(folder / "before.parquet"), folder, bar)
    assert made.rows is None and not made.dropped
    return made.columns["domain"].to_pylist()


@pytest.fixture
def judge(monkeypatch):
    """Stands in for `ask_all`: what it says to each question, in turn; `asked` has the prompts of every call."""

    class Judge:
        def __init__(self):
            self.says, self.asked, self.kept = {}, [], {}

        def ask_all(self, who, prompts, folder, bar, what):
            self.asked.append([prompt for prompt in prompts if prompt not in self.kept])
            for prompt in self.asked[-1]:
                (question,) = (one for one in QUESTIONS if one in prompt)
                said = self.says[question].pop(0)
                self.kept[prompt] = said if isinstance(said, Answer) else Answer("", said, None)
            answers = [self.kept[prompt] for prompt in prompts]
            if answers and all(answer.error for answer in answers):
                raise RunError("nothing answers")
            return answers

    judge = Judge()
    monkeypatch.setattr(module, "ask_all", judge.ask_all)
    return judge


def test_the_table():
    assert len(set(DOMAINS.values())) == len(DOMAINS) and UNKNOWN not in DOMAINS.values()
    assert sum(code.isdigit() for code in DOMAINS) == 63  # of the classification of 2020
    assert all(f"{code} {name}" in field_prompt("Q") for code, name in DOMAINS.items())


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("11", "11"),
        (" **05**.\n", "05"),
        ("CH", "CH"),
        ("The code is 11, number theory.", "11"),
        ("11-XX", "11"),
        ("11 or 05", None),
        ("02", None),  # no area has it
        ("ch", None),
        ("5", None),
        ("1105", None),
        ("", None),
    ],
)
def test_a_code_in_a_reply(reply, code):
    assert code_of(reply) == code


def test_the_judge_names_the_field_and_is_asked_once_more_for_what_is_no_code(tmp_path, judge, capsys):
    judge.says = {QUESTIONS[0]: ["11"], QUESTIONS[1]: ["Trees.", "05"], QUESTIONS[2]: ["A colour", "red"]}
    assert classified(tmp_path, JUDGED, domain=("a", "b", "c")) == ["number theory", "combinatorics", UNKNOWN]
    first, second = judge.asked
    assert first == [field_prompt(question) for question in QUESTIONS]
    assert len(second) == 2 and all(prompt not in first for prompt in second)  # else it would be the same reply
    assert "'Trees.'" in second[0] and "'A colour'" in second[1]
    printed = capsys.readouterr().out
    assert "2 replies had no code" in printed and "2 domains, 1 questions of unknown domain" in printed


def test_a_question_without_a_reply_is_unknown(tmp_path, judge, capsys):
    failed = Answer("", "", "status 500")
    judge.says = {QUESTIONS[0]: ["11"], QUESTIONS[1]: [failed], QUESTIONS[2]: ["Red", failed]}
    assert classified(tmp_path, JUDGED) == ["number theory", UNKNOWN, UNKNOWN]
    assert len(judge.asked) == 2 and len(judge.asked[1]) == 1
    assert "1 questions have no complete reply" in capsys.readouterr().out


@pytest.mark.parametrize(
    "config", [CurateConfig(), CurateConfig(grade=GradeStageConfig(JUDGED.grade.judge, classify=False))]
)
def test_without_a_judge_the_pools_own_or_the_source(tmp_path, judge, config):
    assert classified(tmp_path, config, domain=("primes", None, None)) == ["primes", "trees", UNKNOWN]
    assert not judge.asked


def test_no_rows(tmp_path, judge):
    assert classified(tmp_path, CurateConfig(), (), ()) == []
    assert classified(tmp_path, JUDGED, (), ()) == []


def test_a_long_question_is_shown_by_both_ends():
    prompt = field_prompt("begin" + "x" * 10**6 + "end")
    assert len(prompt) < 10_000 and "begin" in prompt and "xend" in prompt
