"""A run is laid out for a reward model as the model's card has it, and its scores are those of that text."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from transformers import AutoTokenizer

from s1_jax.config import S1, FormatConfig, SearchConfig
from s1_jax.data.chat import ANSWER_START, THINK_START
from s1_jax.errors import UserError
from s1_jax.model.reward import REWARD_MODELS
from s1_jax.model.transformer import unstack
from s1_jax.search.layout import RewardLayout
from s1_jax.search.scoring import RewardScorer
from s1_jax.search.verifier import Verifier, probability
from tests.reference import tiny_reward
from tests.search.fake_tree import OUTCOME, PROCESS, STEP_END, TOKENIZER, World
from tests.tokenizer import CHAT_TEMPLATE

QUESTION = "How many \\(x\\)?"
RUN = (
    f"{THINK_START}\nFirst, x = 1.\n  Then more.\n\n\n\n\\[2x\\]\n\n So it is two.\n{ANSWER_START}\nIt is:\n\n"
    "\\boxed{2}<|im_end|>"
)
STEPS = ["First, x = 1.\n  Then more.", "\\[2x\\]", "So it is two.", "It is:", "\\boxed{2}"]
THINKING, ANSWER = "First, x = 1.\n  Then more.\n\n\n\n\\[2x\\]\n\n So it is two.", "It is:\n\n\\boxed{2}"
TOLERANCE = 1e-4  # of a score: float32 through every layer, sums in another order
LONG = 10**6  # tokens, more than any text has


@pytest.fixture(scope="module")
def qwen(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen25_tokenizer")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    return tokenizer


def layout(tokenizer=TOKENIZER, architecture=PROCESS, max_length=LONG, reads="all", **options):
    return RewardLayout(tokenizer, REWARD_MODELS[architecture], max_length, SearchConfig(reads=reads), **options)


def by_card(tokenizer, response, question=QUESTION):
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    return tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)


def test_process_as_the_card_has_it(qwen):
    text = layout(qwen).text(QUESTION, RUN)
    whole = by_card(qwen, "<extra_0>".join(STEPS) + "<extra_0>")
    assert text.token_ids + qwen.encode("<|im_end|>\n") == whole and text.whole
    prompt = qwen.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    assert qwen.decode(text.token_ids[: text.prompt_length]) == prompt


@pytest.mark.parametrize("reads, response", [("all", f"{THINKING}\n\n{ANSWER}"), ("answer", ANSWER)])
def test_outcome_as_the_card_has_it(qwen, reads, response):
    text = layout(qwen, "Qwen2ForRewardModel", reads=reads).text(QUESTION, RUN)
    assert text.token_ids == by_card(qwen, response)


def test_a_run_begins_as_all_it_grew_from(qwen):
    """So that a scorer runs what is new alone; a step cut in two is read from where it was cut."""
    of = layout(qwen)
    ends = [i + 2 for i in range(len(RUN)) if RUN[i : i + 2] == "\n\n"] + [len(RUN)]
    step_end = qwen.convert_tokens_to_ids("<extra_0>")
    texts = [of.text(QUESTION, RUN[:end]).token_ids for end in ends]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(texts))
    counts = [text.count(step_end) for text in texts]
    assert counts == [1, 1, 1, 2, 4, 5]  # more blank lines end no step; the answer's first comes with thinking's last
    cut = RUN[: RUN.index("two")]
    assert of.steps(cut) == [*STEPS[:2], "So it is"]


def test_a_plain_run_reads_as_one_grown_by_steps():
    world = World(0, 0, whole=True)
    text = world.text((1,))
    assert layout().steps(text)[-1].startswith("Answer:") or not layout().steps(text)[-1]
    assert layout().text("?", text).token_ids.count(STEP_END) == len(layout().steps(text))


@pytest.mark.parametrize("run", [THINK_START, f"{THINK_START}\n\n\n", ""])
def test_a_run_without_words_is_one_step(run):
    assert layout().steps(run) == [""]
    assert layout().text("?", run).token_ids[-1] == STEP_END


def test_control_tokens_that_a_policy_writes_are_words_no_more():
    text = layout().text("?", f"{THINK_START}\none<extra_0>two\n\n<|im_start|>user\nthree<|im_end|>four")
    assert text.token_ids.count(STEP_END) == 2
    assert TOKENIZER.decode(text.token_ids[text.prompt_length :]) == "one two<extra_0>user\nthree four<extra_0>"
    lines = layout(architecture="Qwen2ForTokenClassification").text("?", f"{THINK_START}\none\ntwo\n\nthree")
    assert TOKENIZER.decode(lines.token_ids[lines.prompt_length :]) == "one two\nthree\n"


def test_markers_and_separators_of_other_models():
    format = FormatConfig("<think>", "</think>", "", ("</think>",))
    of = layout(format=format, step_separator=";")
    assert of.steps("<think>\na; b;;\n\nc</think>\nfour") == ["a", "b", "c", "four"]
    assert of.response("<think>\na; b</think>\nfour") == "a; b\n\nfour"
    assert layout(reads="answer").response(f"{THINK_START}\nnothing yet") == "nothing yet"
    assert layout().steps(f"a{S1.answer_start}b{S1.answer_start}c")[-1] == "c"


def test_a_text_too_long_is_cut_behind_a_step():
    full = layout().text("?", RUN)
    ends = [i + 1 for i, token in enumerate(full.token_ids) if token == STEP_END]
    for most in range(ends[0], len(full.token_ids)):
        text = layout(max_length=most).text("?", RUN)
        assert text.token_ids == full.token_ids[: max(end for end in ends if end <= most)] and not text.whole
    assert layout(max_length=len(full.token_ids)).text("?", RUN) == full
    text = layout(max_length=ends[0] - 5).text("?", RUN)
    assert text.token_ids == [*full.token_ids[: ends[0] - 6], STEP_END] and not text.whole, "of the first step a part"


def test_of_a_run_too_long_an_outcome_model_reads_the_answer():
    full = layout(architecture=OUTCOME).text("?", RUN)
    answer = layout(architecture=OUTCOME, reads="answer").text("?", RUN)
    short, shorter = (
        layout(architecture=OUTCOME, max_length=most).text("?", RUN)
        for most in (len(full.token_ids) - 1, len(answer.token_ids) - 3)
    )
    assert full.whole and answer.whole and not short.whole and not shorter.whole
    assert short.token_ids == answer.token_ids
    end = TOKENIZER.encode("<|im_end|>\n")
    assert shorter.token_ids == answer.token_ids[: -3 - len(end)] + end


@pytest.mark.parametrize("architecture", [OUTCOME, PROCESS])
def test_a_question_too_long_is_an_error(architecture):
    length = layout(architecture=architecture).text("?", "").prompt_length
    with pytest.raises(UserError, match=f"question of {length} tokens leaves no room .* reads at most {length}"):
        layout(architecture=architecture, max_length=length).text("?", RUN)


@pytest.mark.parametrize("architecture", [OUTCOME, PROCESS])
def test_scores_are_the_models_own(architecture):
    model, reward = tiny_reward(architecture, vocab_size=264), REWARD_MODELS[architecture]
    scorer = RewardScorer(model.config, reward, unstack(model.params), TOKENIZER)
    verifier = Verifier(scorer, layout(architecture=architecture, max_length=scorer.max_length))
    runs = [RUN, f"{THINK_START}\none\n\ntwo"]
    found = verifier.score([(QUESTION, run) for run in runs])
    for verdict, response, steps in zip(
        found, [f"{THINKING}\n\n{ANSWER}", "one\n\ntwo"], [STEPS, ["one", "two"]], strict=True
    ):
        if architecture == PROCESS:
            ids = by_card(TOKENIZER, "".join(f"{step}<extra_0>" for step in steps))
            expected = model.scores(ids)[np.asarray(ids) == STEP_END]
        else:
            expected = 1 / (1 + np.exp(-model.scores(by_card(TOKENIZER, response))[-1:]))
        assert np.allclose(verdict.scores, expected, rtol=0, atol=TOLERANCE) and verdict.whole


# what a prompt may hold: a system message, blank lines, white space around the question, each of the separators
SYSTEM = "Solve it.\n\nStep by step; one step a line. ки"
TEMPLATES = {
    "bare": CHAT_TEMPLATE,
    "system": "{{ '<|im_start|>system\n" + SYSTEM.replace("\n", "\\n") + "<|im_end|>\n' }}" + CHAT_TEMPLATE,
    "spaced": CHAT_TEMPLATE.replace("message.content", "'\n\n' + message.content + '\n\n'"),
}
SEPARATORS = ["\n", "\n\n", "\n\n\n", " ки", ";", ". ", "<extra_0>", "~", "\n~\n"]
QUESTIONS = ["How many?", "One;\ntwo.\n\n\nHow many; ки <extra_0>~?\n", "\n~\n" * 3]


def as_trl_has_it(tokenizer, question, steps, separator):
    """Ids, and the index of the last token of each step with its separator, which TRL's PRMTrainer labels."""
    chat = [{"role": "user", "content": question}]
    ids = tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    ends = []
    for step in steps:
        ids = ids + tokenizer.encode(step) + tokenizer.encode(separator)
        ends.append(len(ids) - 1)
    return ids, ends


def head(separator):
    return dataclasses.replace(REWARD_MODELS["Qwen2ForTokenClassification"], separator=separator)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_step_has_one_score_whatever_the_prompt_holds(qwen, template, separator, monkeypatch):
    for tokenizer in (TOKENIZER, qwen):
        monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[template])
        of = RewardLayout(tokenizer, head(separator), LONG, SearchConfig())
        for question in QUESTIONS:
            found = of.text(question, f"{THINK_START}\nIt is 2\n\nso 4\n{ANSWER_START}\nAnswer 4<|im_end|>")
            expected = as_trl_has_it(tokenizer, question, ["It is 2", "so 4", "Answer 4"], separator)
            assert (found.token_ids, found.scored) == expected


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize(
    "run, steps",
    [
        ("one\ntwo; 3 ки.\n\n\n\nfour.~ five", 2),  # separators within a step
        ("one.\n\n\ntwo;\n\n;\n\nthree", None),  # merged with what stands beside them
        ("\n\n\n\n", 1),
        ("", 1),
        ("<extra_0>\n\n<|im_start|>\n\none", 1),  # steps of control tokens alone are none
        ("one\n\ntw", 2),  # cut in mid-step
    ],
)
def test_separators_in_the_run_end_no_step(qwen, separator, run, steps):
    for tokenizer in (TOKENIZER, qwen):
        of = RewardLayout(tokenizer, head(separator), LONG, SearchConfig())
        text = of.text("?", f"{THINK_START}\n{run}")
        assert len(text.scored) == len(of.steps(f"{THINK_START}\n{run}")) == (steps or len(text.scored))
        end = tokenizer.encode(separator)
        assert all(text.token_ids[at + 1 - len(end) : at + 1] == end for at in text.scored)
        assert text.scored[-1] == len(text.token_ids) - 1


def test_a_text_that_is_cut_has_a_score_for_each_step_it_has():
    of = RewardLayout(TOKENIZER, head("\n\n"), LONG, SearchConfig())
    full = of.text("?\n\n?", RUN)
    for most in range(full.scored[0] + 1, len(full.token_ids)):
        text = RewardLayout(TOKENIZER, head("\n\n"), most, SearchConfig()).text("?\n\n?", RUN)
        assert text.scored == [at for at in full.scored if at < len(text.token_ids)] and not text.whole


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_a_prompts_newlines_are_not_scored(separator, monkeypatch):
    """TRL's default separator is a newline, which every chat template is full of; two of them are two tokens here."""
    model = tiny_reward("Qwen2ForTokenClassification", vocab_size=264)
    scorer = RewardScorer(model.config, head(separator), unstack(model.params), TOKENIZER)
    for template in TEMPLATES.values():
        monkeypatch.setattr(TOKENIZER, "chat_template", template)
        of = RewardLayout(TOKENIZER, head(separator), scorer.max_length, SearchConfig())
        for question, steps in ((QUESTIONS[0], ["It is 2", "so 4"]), ("1\n\n2\n3", ["one"])):
            (found,) = Verifier(scorer, of).score([(question, THINK_START + "\n" + "\n\n".join(steps))])
            ids, ends = as_trl_has_it(TOKENIZER, question, steps, separator)
            assert len(found.scores) == len(steps)
            assert np.allclose(found.scores, model.scores(ids)[ends], rtol=0, atol=TOLERANCE)


def test_probabilities():
    logits = [-1000.0, -3.0, 0.0, 3.0, 1000.0]
    assert [probability(logit) for logit in logits] == pytest.approx([0.0, 1 - 0.9525741268, 0.5, 0.9525741268, 1.0])
