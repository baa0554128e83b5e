"""The schema of a record: every field by name, kind and meaning, in the order in which records hold them.

This table is the one source of what a record is: the checks on reading (check.py), the functions that make records
(make.py), the JSON Schema that ships with the package (json_schema.py) and the reference page (page.py) come from it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from s1_jax.config import SearchConfig
from s1_jax.config.budget import S1_STOP_TOKENS
from s1_jax.config.search import READ_BY
from s1_jax.records import Record
from s1_jax.records.kinds import (
    COUNT,
    FLAG,
    INDICES,
    LEAVES,
    NAME,
    NUMBER,
    NUMBERS,
    POSITIVE,
    SEED,
    STRINGS,
    TEXT,
    TEXTS,
    TOKENS,
    Kind,
    an_object,
    named,
    one_of,
)

Writer = Literal["decoder", "evaluate", "search", "grader", "generate"]
REQUIRED: Any = object()


class SameAs(NamedTuple):
    """Absence of a field that means the value of another field of the record."""

    name: str


class Field(NamedTuple):
    """One field of a record.

    `by` says who gives it its value; the decoder writes null where another does. `absent` is the value that its absence
    means, in records where it is left out and in those of earlier versions. Where it is REQUIRED, reading refuses a
    record of a sweep without it.
    """

    name: str
    kind: Kind
    by: Writer
    text: str
    absent: Any = REQUIRED


@dataclasses.dataclass(frozen=True)
class Group:
    """Fields that stand in a record together."""

    title: str
    where: str  # which records have them
    fields: tuple[Field, ...]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(field.name for field in self.fields)


SAMPLING = {"temperature": POSITIVE, "top_k": COUNT, "top_p": POSITIVE, "min_p": POSITIVE}
FORMAT = {"think_start": TEXT, "answer_start": TEXT, "final_answer": TEXT, "end_markers": TEXTS}
FORMAT_BESIDES = {"early_stopping_text": TEXT}  # left out where it is empty
SEARCH_TYPES = get_type_hints(SearchConfig)
DEFAULT_SEARCH = SearchConfig()

ASKED = Group(
    "What was asked",
    "These fields are in every record. They are known before decoding, and a stopped run resumes from them.",
    (
        Field("task", TEXT, "evaluate", "Name of the benchmark. It is null in records of `generate`."),
        Field(
            "problem_id",
            NAME,
            "decoder",
            "The problem's id in the benchmark, or the `id` of the input line of `generate` (null where it has none).",
        ),
        Field("sample", COUNT, "decoder", "Index of the sample among those of the same problem, setting and seed."),
        Field("seed", SEED, "decoder", "Seed of the sampling. It changes nothing at temperature 0."),
        Field("temperature", POSITIVE, "decoder", "Sampling temperature; 0 is greedy decoding."),
        Field("top_k", COUNT, "decoder", "Only this many most likely tokens can be sampled; 0 allows all."),
        Field("top_p", POSITIVE, "decoder", "Probability mass of the most likely tokens that can be sampled."),
        Field("min_p", POSITIVE, "decoder", "Least probability of a token as a fraction of the most likely token's."),
        Field("forcing", FLAG, "decoder", "Whether the thinking budget is enforced (budget forcing)."),
        Field(
            "min_thinking_tokens",
            COUNT,
            "decoder",
            "The end of thinking is masked until this many thinking tokens have been generated.",
        ),
        Field(
            "max_thinking_tokens",
            COUNT.or_null(),
            "decoder",
            "Thinking ends after this many tokens; null is no maximum.",
        ),
        Field(
            "newline_grace",
            POSITIVE,
            "decoder",
            "Thinking may overrun the maximum by this fraction of it to finish its line.",
            0.0,
        ),
        Field(
            "end_bias",
            POSITIVE,
            "decoder",
            "Added to the logits of end markers, rising evenly from 0 to all of it at the maximum.",
            0.0,
        ),
        Field("num_ignore", COUNT, "decoder", "Maximum number of end-of-thinking markers that are suppressed."),
        Field(
            "ignore_string",
            STRINGS.or_null(),
            "decoder",
            "What is appended in place of a suppressed end marker; the strings of a list take turns.",
        ),
        Field("max_answer_tokens", COUNT, "decoder", "Maximum number of answer tokens.", None),
        Field(
            "max_model_len",
            COUNT,
            "decoder",
            "Maximum number of tokens of prompt, thinking and answer together.",
            None,
        ),
        Field(
            "format",
            an_object("an object", FORMAT, FORMAT_BESIDES).or_null(),
            "decoder",
            "The markers of thinking and answer; null stands for those of s1.",
            None,
        ),
        Field("stop_tokens", TEXTS, "decoder", "Texts of the tokens that end an answer.", [*sorted(S1_STOP_TOKENS)]),
        Field(
            "prompt_token_ids",
            TOKENS,
            "decoder",
            "Token ids of the prompt, chat template included, up to the marker that opens the thinking.",
            None,
        ),
    ),
)
UNUSUAL = Group(
    "What was asked besides",
    "Each of these fields is only in records where its value differs from the one that its absence means.",
    (
        Field(
            "thinking_sampling",
            an_object("an object", SAMPLING).or_null(),
            "decoder",
            "Sampling options of the thinking, where they differ from those of the answer.",
            None,
        ),
        Field(
            "reserved_answer_tokens",
            COUNT.or_null(),
            "decoder",
            "Thinking leaves room in the context for this many answer tokens; null stands for all of them.",
            None,
        ),
        Field("stop_strings", TEXTS, "decoder", "Strings that end the answer where they occur in it.", []),
        Field("thinking", FLAG, "decoder", "Whether the model thinks before its answer.", True),
        Field(
            "max_new_tokens",
            COUNT.or_null(),
            "decoder",
            "Maximum number of tokens of thinking and answer together, without forcing; null is no such maximum.",
            None,
        ),
        Field(
            "notice_fractions",
            NUMBERS,
            "decoder",
            "Fractions of the maximum of thinking tokens after which a notice is appended.",
            [],
        ),
        Field("notices", TEXTS, "decoder", "Texts of the notices, one for each fraction.", []),
        Field("banned_words", TEXTS, "decoder", "Words whose tokens are masked while the model thinks.", []),
        Field(
            "max_repetitions",
            COUNT,
            "decoder",
            "Thinking is cut where its last tokens have occurred this many times in a row; 0 is never.",
            0,
        ),
    ),
)
SWEEP = Group(
    "What a sweep knows",
    "These fields are in every record of `evaluate`.",
    (
        Field(
            "instruction",
            TEXT.or_null(),
            "evaluate",
            'What the prompt says about how long to think: "token N", "step N", "short", "long", or null.',
            None,
        ),
        Field("max_tries", COUNT, "evaluate", "Maximum number of tries of rejection sampling.", 1),
        Field("question", TEXT.or_null(), "evaluate", "The problem's question.", None),
    ),
)
SEARCH = Group(
    "How a search was set up",
    "These fields are in the records of searches. Each method has the options that it reads.",
    (
        Field("method", one_of(*READ_BY), "evaluate", "The search method. Its absence means a single run.", None),
        Field("width", COUNT, "evaluate", "Number of runs, candidates or rollouts.", DEFAULT_SEARCH.width),
        *(
            Field(name, one_of(*get_args(SEARCH_TYPES[name])), "evaluate", text, getattr(DEFAULT_SEARCH, name))
            for name, text in (
                ("vote", "How the answer is chosen among the leaves."),
                ("path_score", "How the scores of a run's steps become one weight."),
                ("reads", "What an outcome model reads of a run: thinking and answer, or the answer."),
            )
        ),
        *(
            Field(name, kind, "evaluate", text, getattr(DEFAULT_SEARCH, name))
            for name, kind, text in (
                ("branch", COUNT, "Number of children of each node that is extended."),
                ("score_temperature", NUMBER, "Temperature of the softmax over scores (REBASE)."),
                ("exploration", NUMBER, "Weight of nodes that were seldom visited (MCTS)."),
                ("widening", NUMBER, "Factor of the number of children that a node may have (MCTS)."),
                ("widening_power", NUMBER, "Power of visits in the number of children that a node may have (MCTS)."),
                ("max_nodes", COUNT, "Maximum number of steps of the whole tree (MCTS)."),
                ("max_steps", COUNT.or_null(), "Maximum number of steps of a run; null is no maximum."),
            )
        ),
        Field(
            "reward",
            one_of("outcome", "process").or_null(),
            "evaluate",
            "Kind of the reward model that scored the runs; null is a search without one.",
            None,
        ),
    ),
)
DECODED = Group(
    "What was decoded",
    "These fields are in every record. In the record of a search they are those of the run that was chosen; "
    "where no run has ended, they are empty.",
    (
        Field(
            "thinking_token_ids",
            TOKENS.or_null(),
            "decoder",
            "Token ids of the thinking, ignore strings and notices included.",
            None,
        ),
        Field(
            "answer_token_ids", TOKENS.or_null(), "decoder", "Token ids of the answer, without its stop token.", None
        ),
        Field(
            "num_thinking_tokens",
            COUNT,
            "decoder",
            "Number of thinking tokens, those of ignore strings and notices included.",
        ),
        Field("num_answer_tokens", COUNT, "decoder", "Number of answer tokens, without the stop token."),
        Field(
            "end",
            named("natural", "forced", "context", "length", "repetition", "none"),
            "decoder",
            "How the thinking ended: by the model itself, at its maximum, where the context was full, at "
            "`max_new_tokens`, because it repeated itself (`max_repetitions`), or not at all.",
        ),
        Field(
            "answer_end",
            named("stop", "length", "context", "none"),
            "decoder",
            "How the answer ended: at a stop token, at its maximum, where the context was full, or not at all.",
        ),
        Field("ignores_used", COUNT, "decoder", "Number of end-of-thinking markers that were suppressed."),
        Field(
            "ignored_ends",
            INDICES,
            "decoder",
            "Where ends were suppressed: pairs of the number of thinking tokens and of characters of `text` before it.",
            None,
        ),
        Field(
            "text",
            TEXT.or_null(),
            "decoder",
            "The text from the marker that opens the thinking to the stop token, special tokens included.",
            None,
        ),
    ),
)
VERDICT = Group(
    "How it was graded",
    "These fields are in every record. They are null in records of `generate`, which nobody grades.",
    (
        Field("extracted_answer", TEXT.or_null(), "grader", "The answer found in the text; null where there is none."),
        Field(
            "answer_class",
            COUNT.or_null(),
            "grader",
            "The same number for equal answers among the samples and seeds of a problem and setting, for votes; null "
            "where there is one sample, or no answer.",
            None,
        ),
        Field("gold", TEXT.or_null(), "evaluate", "The right answer.", None),
        Field("correct", FLAG, "grader", "Whether the extracted answer is right; false where nobody could tell."),
        Field(
            "graded_by",
            named("none", "number", "text", "math", "letter", "judge", "unparsed", "undecided").or_null(),
            "grader",
            'What decided: a rule ("number", "text", "math", "letter") or the judge. "none": there is no answer. '
            '"unparsed" and "undecided": no rule could tell, and a judge may.',
            None,
        ),
    ),
)
TRIES = Group(
    "Rejection sampling",
    "These fields are in records whose `max_tries` is above 1.",
    (
        Field("tries", COUNT, "search", "Number of tries until the thinking ended by itself.", 1),
        Field("tried_tokens", COUNT, "search", "Thinking tokens of all tries.", SameAs("num_thinking_tokens")),
    ),
)
SEARCHED = Group(
    "What a search used",
    "These fields are in the records of searches.",
    (
        Field("leaves", LEAVES, "search", "A pair of answer (or null) and weight of every run that ended, in order."),
        Field("steps", COUNT, "search", "Number of nodes of the tree.", None),
        Field("generated_tokens", COUNT, "search", "Number of tokens of all nodes."),
        Field("longest_path_tokens", COUNT, "search", "Thinking tokens of the longest run, ended or not."),
        Field("decoding_seconds", POSITIVE, "search", "The problem's share of the decoder's time, in seconds."),
        Field(
            "reward_tokens",
            COUNT,
            "search",
            "Tokens that the reward model read, without the question; what a run shares with its parent counts once.",
        ),
        Field("cut_texts", COUNT, "search", "Number of texts that were too long for the reward model and were cut."),
        Field("reward_seconds", POSITIVE, "search", "The problem's share of the reward model's time, in seconds."),
    ),
)
STORED = {"weights": TEXT, "cache": TEXT}
MADE_BY = Group(
    "What `generate` adds",
    "These fields are in records of `python -m s1_jax.generate`.",
    (
        Field("model", TEXT, "generate", "The model as it was named on the command line.", None),
        Field("dtype", TEXT, "generate", "The type that products are computed in.", None),
        Field(
            "stored",
            an_object("an object", STORED),
            "generate",
            "The types that weights and cache are kept in.",
            None,
        ),
    ),
)
GROUPS = (ASKED, UNUSUAL, SWEEP, SEARCH, DECODED, VERDICT, TRIES, SEARCHED, MADE_BY)
FIELDS = {field.name: field for group in GROUPS for field in group.fields}


def value_of(record: Record, name: str) -> Any:
    """Return a record's value of a field, or what the field's absence means. Raises KeyError where it is required."""
    if name in record:
        return record[name]
    absent = FIELDS[name].absent
    if isinstance(absent, SameAs):
        return record[absent.name]
    if absent is REQUIRED:
        raise KeyError(name)
    return absent
