"""Every thinking is kept once, and where settings leave it and ends were ignored is what the records tell, no more."""

import pytest

from s1_jax.data.chat import THINK_START
from s1_jax.records.setting import Setting
from s1_jax.reporting import traces
from s1_jax.reporting.summary import summarize
from s1_jax.reporting.traces import by_problem, common_length, draws_shown, ignored_ends, lay_out, parts
from tests.reporting.made_up import record, spoken, spoken_sweep


def laid_out(records, draws=64):
    places = {run.setting: i for i, run in enumerate(summarize(records))}
    return lay_out(records, places, draws), {setting.label: i for setting, i in places.items()}


def full_text(problem, i):
    trace = problem["traces"][i]
    before = full_text(problem, trace["parent"]) if trace["parent"] >= 0 else ""
    return before.encode("utf-16-le")[: 2 * trace["at"]].decode("utf-16-le") + trace["text"]


def only_draw(problem, place):
    (draw,) = problem["results"][place]["draws"]
    return draw


def test_every_thinking_is_found_on_the_longest_that_begins_with_it():
    records = spoken_sweep()
    problem, places = laid_out(records)
    assert len(problem["traces"]) == 2, "of Wait and of Hmm"
    assert sum(len(trace["text"]) for trace in problem["traces"]) < 1.5 * max(r["num_thinking_tokens"] for r in records)
    assert places.keys() == {"max 4", "max 20", "natural end", "1 x Wait", "2 x Wait", "1 x Hmm"}
    for one in records:
        draw = only_draw(problem, places[Setting.of(one).label])
        thinking = "".join(map(chr, one["thinking_token_ids"]))
        assert full_text(problem, draw["trace"])[: draw["at"]] == thinking, "without a newline that was put in"
        assert problem["answers"][draw["answer"]].strip() == f"{one['extracted_answer']}<|im_end|>"
        assert draw["put_in"] == ("\nFinal Answer:" if one["end"] == "forced" else "")
        assert (draw["right"], draw["found"], draw["end"]) == (
            one["correct"],
            one["extracted_answer"],
            one["end"],
        )


def test_undecided_draws_are_counted_and_marked():
    records = [spoken(0, f"\nsample {s}", str(s), s < 2, sample=s, temperature=1.0) for s in range(4)]
    records[1]["graded_by"] = records[3]["graded_by"] = "undecided"
    (result,) = laid_out(records)[0]["results"]
    assert (result["right"], result["undecided"], result["of"]) == (2, 1, 4)
    assert [(one["right"], one["undecided"]) for one in result["draws"]] == [
        *((True, False), (True, False), (False, False), (False, True))
    ]


def test_branches_are_on_every_trace_that_begins_with_their_tokens():
    problem, places = laid_out(spoken_sweep())
    for trace, last in enumerate(("2 x Wait", "1 x Hmm")):
        ends = {setting: at for setting, _, at in problem["traces"][trace]["branches"]}
        common = {places["max 4"]: 4, places["max 20"]: 20, places["natural end"]: only_draw(problem, 2)["at"]}
        assert common.items() <= ends.items()
        assert places[last] in ends and len(ends) == (5 if trace == 0 else 4)


def test_equal_texts_of_other_tokens_are_other_traces():
    records = [spoken(0, "same text"), spoken(0, "same text and more", num_ignore=1, ignores_used=1)]
    records[0]["thinking_token_ids"][3] += 1
    problem, _ = laid_out(records)
    assert len(problem["traces"]) == 2
    assert [len(trace["branches"]) for trace in problem["traces"]] == [1, 1]


def test_positions_are_utf16_units_and_a_cut_inside_a_character_stands_before_it():
    thinking = "\U0001f600 one \U0001d7d9 two"
    cut = spoken(0, thinking[:7], max_thinking_tokens=7, end="forced")
    inside = spoken(0, thinking[:6], max_thinking_tokens=6, end="forced")
    inside["text"] = inside["text"].replace(thinking[:6], thinking[:6] + "\ufffd")  # two of the character's four bytes
    problem, places = laid_out([cut, inside, spoken(0, thinking)])
    assert only_draw(problem, places["max 7"])["at"] == 9, "two characters of two units"
    assert only_draw(problem, places["max 6"])["at"] == 7


def test_common_length():
    long = "a" * 98
    for a, b, length in [
        ("", "", 0),
        ("abc", "abc", 3),
        ("abc", "abd", 2),
        ("abc", "x", 0),
        (long + "a", long + "b", 98),
    ]:
        assert common_length(a, b) == common_length(b, a) == length


def test_parts_of_a_text_and_of_none():
    assert parts(spoken(0, "think", "7")) == ("think", "", " 7<|im_end|>")
    assert parts(spoken(0, "think", "7", end="forced")) == ("think\n", "\nFinal Answer:", " 7<|im_end|>")
    assert parts(record(0, True, 5)) == ("", "", "")
    unforced = spoken(0, "think", "7", end="context", forcing=False)
    assert parts(unforced).put_in == "", "what the model wrote itself was not put in"
    problem, _ = laid_out([record(0, True, 5), record(0, True, 9, num_ignore=1, ignores_used=1)])
    assert len(problem["traces"]) == 1


def test_ignored_ends_are_read_where_records_hold_them():
    one = spoken(0, "a Wait b Wait c", num_ignore=1, ignores_used=1, ignored_ends=[[9, len(THINK_START) + 9]])
    assert ignored_ends(one, [one]) == [9], "the first Wait is the model's own"


def test_ignored_ends_follow_from_a_string_that_stands_there_as_often():
    records = spoken_sweep()
    twice = records[4]
    first, second = (twice["text"].index(word) - len(THINK_START) for word in ("Wait, thirteen", "Wait, it"))
    assert ignored_ends(twice, [twice]) == [first, second]
    cut = spoken(0, "a Wait b\nWa", num_ignore=1, ignores_used=1, end="forced")
    assert ignored_ends(cut, [cut]) == [], "the first may be the model's own, the second cut"


def test_ignored_ends_follow_from_settings_that_end_there():
    start = "so Wait is a word"
    shorter = [spoken(0, start), spoken(0, start + "Wait b", num_ignore=1, ignores_used=1)]
    longest = spoken(0, start + "Wait bWait cWait d", num_ignore=3, ignores_used=3)
    assert ignored_ends(longest, [*shorter, longest]) == [len(start), len(start + "Wait b")]
    problem, places = laid_out([*shorter, longest])
    draw = only_draw(problem, places["3 x Wait"])
    assert (len(draw["ignored"]), draw["unmarked"]) == (2, 1), "of the third nobody tells"
    for name, other in (("seed", 1), ("temperature", 0.5), ("ignore_string", "Hmm"), ("sample", 3)):
        elsewhere = [one | {name: other} for one in shorter]
        kept = 1 if name == "ignore_string" else 0  # without an ignored end the string says nothing
        assert len(ignored_ends(longest, [*elsewhere, longest])) == kept, name


def test_samples_beyond_the_limit_are_counted_only():
    records = [spoken(0, f"sample {s}", correct=s % 2 == 0, sample=s, temperature=1.0) for s in range(8)]
    problem, _ = laid_out(records, draws=2)
    (result,) = problem["results"]
    assert (result["right"], result["of"], len(result["draws"])) == (4, 8, 2)
    assert len(problem["traces"]) == 2


@pytest.mark.parametrize(("most", "shown"), [(10**6, 8), (250, 4), (1, 1)])
def test_as_many_samples_are_shown_as_there_is_room_for(monkeypatch, most, shown):
    monkeypatch.setattr(traces, "MOST_CHARACTERS", most)
    records = [record(0, True, 9, sample=s, text="x" * 80) for s in range(8)]
    assert draws_shown(records) == shown


def test_draws_are_those_of_all_seeds_in_order():
    of_seed = [spoken(0, f"seed {n}, {s}", sample=s, seed=n, temperature=1.0) for n in (5, 2) for s in (1, 0)]
    problem, places = laid_out([*of_seed, spoken(0, "greedy", seed=7)], draws=3)
    drawn = problem["results"][places["T 1"]]
    assert [(one["seed"], one["sample"]) for one in drawn["draws"]] == [(2, 0), (2, 1), (5, 0)] and drawn["of"] == 4
    for one in drawn["draws"]:
        assert full_text(problem, one["trace"]) == f"seed {one['seed']}, {one['sample']}"
    assert only_draw(problem, places["natural end"])["seed"] == 7


def test_problems_come_in_the_order_of_their_numbers():
    ids = ["p-10", 2, "p-9", "p-9-1", 10, "x"]
    assert [str(of[0]["problem_id"]) for of in by_problem([record(i, True, 1) for i in ids])] == [
        *("2", "10", "p-9", "p-9-1", "p-10", "x")
    ]
