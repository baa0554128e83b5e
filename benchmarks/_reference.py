"""transformers as what ours is measured against: the same model in PyTorch, and s1's procedure by its `generate`."""

from __future__ import annotations

import tempfile
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

from s1_jax.checkpoints import hf
from s1_jax.config import S1, ModelConfig
from s1_jax.data.chat import ANSWER_START, FINAL_ANSWER, STOP_TOKENS, encode
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import single_id, start_ids
from s1_jax.model.transformer import Params


def to_transformers(config: ModelConfig, params: Params) -> Any:
    """Make the same model in transformers, without any token that ends a text."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        hf.save_params(place, config, params)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, trust_remote_code=False).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # memory of its own, aligned, instead of the mapped file's
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    return model


class Rounds:
    """s1's procedure by transformers: a setting at a time, each round a `generate` of the whole text so far.

    Semantics: lm-evaluation-harness as s1 changed it, with vLLM's `generate` replaced. A round has the whole maximum;
    what is too long after the last round is cut.
    """

    def __init__(self, reference: Any, tokenizer: PreTrainedTokenizerBase, max_model_len: int) -> None:
        self.reference, self.tokenizer, self.max_model_len = reference, tokenizer, max_model_len
        self.decoded_tokens = 0
        self._ends = [single_id(tokenizer, text) for text in S1.end_markers]
        self._stops = [single_id(tokenizer, text) for text in STOP_TOKENS]

    def run(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Decode the requests in order; consecutive requests with the same budget are one batch."""
        records = []
        for _, batch in groupby(requests, key=lambda request: request.budget):
            records += self._setting(list(batch))
        return records

    def _setting(self, batch: list[Request]) -> list[dict[str, Any]]:
        budget, ignored = batch[0].budget, batch[0].budget.ignore_string
        assert batch[0].max_answer_tokens is not None and isinstance(ignored, str)
        prompts = [[*request.prompt_token_ids, *start_ids(self.tokenizer)] for request in batch]
        maximum, most = budget.max_thinking_tokens, batch[0].max_answer_tokens
        if maximum is None:
            maximum = self.max_model_len - max(map(len, prompts)) - len(self._suffix("", True)) - most
        thinking: list[list[int]] = [[] for _ in batch]
        goes_on = list(range(len(batch)))  # ended by itself in every round so far
        for left in reversed(range(budget.num_ignore + 1)):
            drawn = self._generate([prompts[i] + thinking[i] for i in goes_on], maximum, self._ends, min_new_tokens=1)
            for i, ids in zip(goes_on, drawn, strict=True):
                thinking[i] += ids
            goes_on = [i for i, ids in zip(goes_on, drawn, strict=True) if len(ids) < maximum]
            if left:
                for i in goes_on:
                    thinking[i] += encode(self.tokenizer, ignored)
        texts = []
        for i, ids in enumerate(thinking):
            text = self.tokenizer.decode(ids)
            texts.append(prompts[i] + ids[:maximum] + self._suffix(text, forced=i not in goes_on))
        answers = self._generate(texts, most, self._stops)
        pairs = zip(thinking, answers, strict=True)
        return [{"thinking_token_ids": ids[:maximum], "answer_token_ids": answer} for ids, answer in pairs]

    def _suffix(self, thinking: str, forced: bool) -> list[int]:
        if not forced:
            return encode(self.tokenizer, ANSWER_START)
        newline = "" if thinking.endswith("\n") else "\n"
        return encode(self.tokenizer, newline + ANSWER_START + FINAL_ANSWER)

    def _generate(self, texts: list[list[int]], most: int, ends: list[int], **options: Any) -> list[list[int]]:
        """Decode at most `most` tokens after each text, without the end token; the texts are one batch."""
        if not texts:
            return []
        longest = max(map(len, texts))
        ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
        mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
        with torch.inference_mode():
            new = self.reference.generate(
                ids, attention_mask=mask, max_new_tokens=most, do_sample=False, eos_token_id=ends, **options
            )[:, longest:]
        drawn = [list(takewhile(lambda token: token not in ends, row)) for row in new.tolist()]
        self.decoded_tokens += sum(map(len, drawn))
        return drawn
