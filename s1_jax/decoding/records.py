"""Records of traces: a record is the one JSON object that reports read and a stopped run resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, End, Kind
from s1_jax.decoding.core.traces import ignored_ends
from s1_jax.records import Record, make

FORCED = (Kind.IGNORE, Kind.SUFFIX, Kind.NOTICE)  # tokens that are appended, not sampled


def outcome(
    tokenizer: PreTrainedTokenizerBase,
    opening: Sequence[int],
    tokens: Sequence[int],
    kinds: Sequence[int],
    end: int,
    answer_end: int,
    ignores_used: int,
) -> Record:
    """Return the fields of a record that decoding brings, from the start marker, the tokens after it and their kinds.

    What only a task knows is null. `s1_jax/records/schema.py` says what each field means.
    """
    ids, kind = np.asarray(tokens, np.int32), np.asarray(kinds)
    is_thought = IS_THOUGHT[kind]
    thinking = ids[is_thought].tolist()
    answer = ids[kind == int(Kind.ANSWER)].tolist()
    # transformers' own decode looks at every id's type first, which takes ten times as long
    decode = partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=False)
    text = decode([*opening, *ids.tolist()])

    def characters(position: int) -> int:
        before = decode([*opening, *thinking[:position]])
        return len(before if text.startswith(before) else before.rstrip("\ufffd"))  # a character may be cut in two

    return make.decoded(
        thinking_token_ids=thinking,
        answer_token_ids=answer,
        end=End(end).name.lower(),
        answer_end=AnswerEnd(answer_end).name.lower(),
        ignores_used=int(ignores_used),
        ignored_ends=[(n, characters(n)) for n in ignored_ends(kind[is_thought]).tolist()],
        text=text,
    )
