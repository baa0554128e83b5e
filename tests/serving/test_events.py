"""From tokens to events: no text is lost, doubled or told too early, however the tokens are cut into news."""

from __future__ import annotations

import numpy as np
import pytest

from s1_jax.config import FormatConfig
from s1_jax.decoding.core.budget import AnswerEnd, End, Kind
from s1_jax.decoding.host.slots import Read
from s1_jax.decoding.queue import Ended, News, Scored
from s1_jax.serving.events import ChoiceEvents, StopText, prompt_events
from s1_jax.serving.generation import Delta, Finish, Usage
from tests.serving.bodies import offer

THINKING = "\nLet me see: 2 + 2 is 4, naïve as it is. 🙂"
ANSWER = "\n4, naïvely 🙂 done"
STOPS = ("done", "\n", "zzz")


@pytest.fixture(scope="module")
def terms():
    return offer()


def ids(terms, text):
    return terms.tokenizer.encode(text, add_special_tokens=False)


def trace(terms, format=FormatConfig(), forced=True):
    """Tokens and kinds of a run that thinks and answers."""
    suffix = format.early_stopping_text + format.answer_start + (format.final_answer if forced else "")
    parts = [(THINKING, Kind.THINKING), ("Wait", Kind.IGNORE), (suffix, Kind.SUFFIX), (ANSWER, Kind.ANSWER)]
    pairs = [(token, kind) for text, kind in parts for token in ids(terms, text)]
    pairs.append((terms.tokenizer.eos_token_id or 0, Kind.STOP))
    return zip(*pairs, strict=True)


def events(terms, tokens, kinds, rng, stop=(), thinking=True, scored=False, answer_end=AnswerEnd.STOP):
    of_choice = ChoiceEvents(terms, 1, 10, thinking, stop, 2 if scored else None)
    cuts = sorted(rng.integers(0, len(tokens) + 1, rng.integers(0, 12)).tolist())
    found = []
    for first, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        ended = Ended(int(End.FORCED), int(answer_end), 1) if end == len(tokens) else None
        part, of = np.asarray(tokens[first:end], np.int32), np.asarray(kinds[first:end], np.int32)
        own = -np.arange(first, end, dtype=np.float32)
        top = np.stack([part, part, part], 1), np.stack([own, own - 1, own - 2], 1)
        news = News(0, part, of, Scored(own, *top) if scored else None, ended, Read(4, ()))
        found += of_choice.of(news)
        if ended:
            break
    return found


def text(found, part):
    return "".join(event.text for event in found if isinstance(event, Delta) and event.part == part)


@pytest.mark.parametrize("seed", range(20))
def test_texts_are_whole_however_they_come(terms, seed):
    rng = np.random.default_rng(seed)
    tokens, kinds = trace(terms)
    found = events(terms, tokens, kinds, rng, scored=bool(seed % 2))
    assert text(found, "reasoning") == THINKING + "Wait"
    assert text(found, "content") == "Final Answer:" + ANSWER
    *_, last = found
    thought = len(ids(terms, THINKING)) + len(ids(terms, "Wait"))
    usage = Usage(10, 4, len(tokens), thought)
    assert last == Finish(1, "stop", None, "forced", 1, usage)
    assert not any("\ufffd" in event.text for event in found if isinstance(event, Delta))
    if seed % 2:
        scores = [score for event in found if isinstance(event, Delta) for score in event.scores]
        at = [i for i, kind in enumerate(kinds) if kind != Kind.SUFFIX]
        assert [score.token_id for score in scores] == [tokens[i] for i in at]
        assert [score.logprob for score in scores] == [-i for i in at]
        assert all(len(score.top) == 2 for score in scores)


@pytest.mark.parametrize("seed", range(10))
def test_a_stop_string_is_never_told(terms, seed):
    tokens, kinds = trace(terms, forced=False)
    found = events(terms, tokens, kinds, np.random.default_rng(seed), STOPS)
    assert text(found, "content") == ANSWER.lstrip().split("done")[0]
    assert found[-1].stop_string == "done"


def test_white_space_before_an_answer_is_left_out_after_thinking_alone(terms):
    answer = ids(terms, ANSWER)
    for thinking in (True, False):
        found = events(terms, answer, [Kind.ANSWER] * len(answer), np.random.default_rng(0), thinking=thinking)
        assert text(found, "content") == (ANSWER.lstrip() if thinking else ANSWER)


def test_words_before_the_marker_of_the_answer_are_thinking(terms):
    format = FormatConfig(early_stopping_text="\n\nTime is up.\n")
    tokens, kinds = trace(terms, format)
    found = events(terms, tokens, kinds, np.random.default_rng(0))
    assert text(found, "reasoning") == THINKING + "Wait" + "\n\nTime is up.\n"


def test_an_answer_without_an_end_of_its_own_has_a_length(terms):
    tokens, kinds = trace(terms)
    found = events(terms, tokens[:-1], kinds[:-1], np.random.default_rng(0), answer_end=AnswerEnd.LENGTH)
    assert found[-1].reason == "length"


@pytest.mark.parametrize("seed", range(20))
def test_stop_texts_against_plain_python(seed):
    rng = np.random.default_rng(seed)
    strings = ["".join(rng.choice(list("ab"), rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
    whole = "".join(rng.choice(list("abc"), 30))
    stop, told = StopText(strings), ""
    for letter in whole:
        told += stop.add(letter)
        assert whole.startswith(told)
    told += stop.rest()
    ends = [whole.index(string) + len(string) for string in strings if string in whole]
    if ends:  # letter by letter, the string that ends first is found
        assert stop.found in strings and told + stop.found == whole[: min(ends)]
    else:
        assert told == whole and stop.found is None


def test_the_prompts_tokens_are_told_with_their_scores(terms):
    prompt = ids(terms, "1+1=2, naïve")
    own = np.arange(len(prompt), dtype=np.float32)[None]
    top = np.zeros((1, len(prompt), 3), np.int32), np.zeros((1, len(prompt), 3), np.float32)
    whole = (0, (own, *top))
    again = (4, (own[:, 4:], *(x[:, 4:] for x in top)))  # a chunk that begins within the one before
    for scores in ([whole], [(0, tuple(x[:, :6] for x in (own, *top))), again]):
        (event,) = prompt_events(terms, 0, prompt, scores, 2)
        assert event.part == "prompt" and event.text == "1+1=2, naïve"
        assert [score.token_id for score in event.scores] == prompt
        assert [score.logprob for score in event.scores] == [None, *range(len(prompt) - 1)]
    (plain,) = prompt_events(terms, 0, prompt, (), None)
    assert plain.scores == ()
