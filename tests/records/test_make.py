"""The functions that make records: each field comes from the schema, and a missing or unknown one fails at once."""

from __future__ import annotations

import dataclasses

import pytest

from s1_jax.config import S1, BudgetConfig, SamplingConfig, SearchConfig, StoredConfig
from s1_jax.records import make
from s1_jax.records.schema import ASKED, DECODED, MADE_BY, SEARCHED, UNUSUAL, VERDICT
from s1_jax.records.setting import first_difference
from tests.records.json_schema import assert_records

NOT_ASKED_FOR = {"task": "synthetic", "gold": "7", "instruction": None, "max_tries": 1, "search": None, "reward": None}


def asked(**options):
    values = {
        "problem_id": "a",
        "sample": 0,
        "seed": 0,
        "prompt_token_ids": (1, 2),
        "budget": BudgetConfig(),
        "sampling": SamplingConfig(),
        "max_answer_tokens": 8,
        "max_model_len": 64,
        "format": S1,
        "stop_tokens": ("<|im_end|>",),
    }
    return make.asked(**values | options)


def run():
    return asked() | make.decoded(
        thinking_token_ids=[1, 2, 3],
        answer_token_ids=[4],
        end="natural",
        answer_end="stop",
        ignores_used=1,
        ignored_ends=[(2, 9)],
        text="<|im_start|>think",
    )


def of_sweep(record, **options):
    known = make.swept(asked(), **NOT_ASKED_FOR | options)
    return make.graded(
        make.of_sweep(known, record, question="What is 3+4?"), extracted_answer="7", correct=True, graded_by="number"
    )


def test_fields_stand_in_the_order_of_the_schema():
    assert tuple(run()) == (*ASKED.names, *DECODED.names, *VERDICT.names)
    assert tuple(of_sweep(run()))[: len(ASKED.names) + 3] == (*ASKED.names, "gold", "instruction", "max_tries")
    assert run()["num_thinking_tokens"] == 3 and run()["num_answer_tokens"] == 1


def test_options_that_are_as_usual_are_left_out():
    unusual = {
        "thinking_sampling": SamplingConfig(0.5),
        "reserved_answer_tokens": 3,
        "stop_strings": ("\n",),
        "thinking": False,
        "max_new_tokens": 9,
    }
    rules = {
        "notice_fractions": (0.5,),
        "notices": ("Half.",),
        "banned_words": ("wait",),
        "max_repetitions": 4,
    }
    assert not asked().keys() & {*UNUSUAL.names}
    record = asked(**unusual, budget=BudgetConfig(max_thinking_tokens=9, **rules))
    assert {name: record[name] for name in UNUSUAL.names} == unusual | {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in rules.items()},
        "thinking_sampling": dataclasses.asdict(SamplingConfig(0.5)),
        "stop_strings": ["\n"],
    }
    assert_records([record | make.decoded()])


@pytest.mark.parametrize("record", [run(), of_sweep(run()), asked() | make.decoded()])
def test_each_is_as_the_json_schema_says(record):
    made_by = make.made_by(model="a/b", dtype="float32", stored=StoredConfig())
    assert tuple(made_by) == MADE_BY.names
    assert_records([record, record | made_by, make.classed(record, 2)])
    assert_records([make.tried(record, sample=3, tries=2, tried_tokens=12)])


@pytest.mark.parametrize("method", ["best_of_n", "beam", "dvts", "rebase", "mcts"])
def test_the_record_of_a_search_is_as_the_json_schema_says(method):
    search, used = SearchConfig(method, width=4), dict.fromkeys(make.USED, 0)
    for chosen in (make.decoded(), run()):
        leaves = [("7", 0.5), (None, float("nan"))]
        record = make.searched(chosen, search=search, reward=None, leaves=leaves, used=used)
        assert_records([of_sweep(record, search=search)])
    assert record["leaves"][0] == ["7", 0.5] and record.keys() >= {*SEARCHED.names}


def test_a_missing_or_an_unknown_field_fails_at_once():
    search, used = SearchConfig(), dict.fromkeys(make.USED, 0)
    for wrong in (used | {"more": 1}, {"steps": 1}):
        with pytest.raises(TypeError, match="What a search used: .* missing or not in the schema"):
            make.searched({}, search=search, reward=None, leaves=[], used=wrong)
    with pytest.raises(TypeError):
        make.decoded(thoughts=[1])
    with pytest.raises(TypeError, match="prompt_token_ids"):
        make.asked(problem_id=1)

    @dataclasses.dataclass(frozen=True)
    class Longer(BudgetConfig):
        patience: int = 3

    with pytest.raises(TypeError, match="What was asked: patience missing or not in the schema"):
        asked(budget=Longer())


def test_the_first_field_that_differs_is_named():
    known = asked(thinking=False) | make.made_by(model="a/b", dtype="float32", stored=StoredConfig())
    assert first_difference(known | make.decoded(), known) is None
    assert first_difference(known | {"seed": 1, "dtype": "bfloat16"}, known) == "seed"
    assert first_difference(known | {"max_new_tokens": 9}, known) == "max_new_tokens"
    assert first_difference({name: value for name, value in known.items() if name != "thinking"}, known) == "thinking"
    assert first_difference({}, known) == "task"
    earlier = {name: value for name, value in known.items() if name not in ("newline_grace", "end_bias", "format")}
    assert first_difference(earlier, known) is None, "records of earlier versions lack fields that mean the same"


def test_a_new_verdict_opens_what_equals_the_answer():
    record = make.classed(of_sweep(run()), 3)
    assert make.graded(record, extracted_answer="8", correct=False, graded_by="number")["answer_class"] is None
    earlier = {name: value for name, value in record.items() if name != "answer_class"}
    assert "answer_class" not in make.graded(earlier, extracted_answer="8", correct=False, graded_by="number")
