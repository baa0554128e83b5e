"""The class that the harness uses as its model `s1_jax`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from tqdm import tqdm

from s1_jax import __version__
from s1_jax.config import StoredConfig
from s1_jax.data.chat import rendered
from s1_jax.decoding.engine import Status, context_length
from s1_jax.decoding.loaded_model import load_model
from s1_jax.errors import UserError
from s1_jax.harness.encoding import end_id, prefix_id, text_ids
from s1_jax.harness.generation import Asked, generate
from s1_jax.harness.keywords import read_model_args
from s1_jax.harness.scoring import Pair, Scorer
from s1_jax.runtime.cli import StopFlag


class S1JaxLM(TemplateLM):
    """A model of the harness on a mesh of devices; its arguments are the fields of HarnessConfig."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = config = read_model_args(arguments)
        stored = StoredConfig(config.weights, config.cache)
        self.model = load_model(config.pretrained, config.dtype, stored, mesh=config.mesh)
        self.tokenizer = self.model.tokenizer
        longest = context_length(self.model.config)
        if config.max_length is not None and config.max_length > longest:
            raise UserError(f"model_args: max_length {config.max_length} is above the model's {longest}; lower it")
        self.max_length = config.max_length or longest
        self.scorer = Scorer(self.model, config.rows, self.max_length)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> S1JaxLM:
        """Create the model from `key=value,...`; see `create_from_arg_obj`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> S1JaxLM:
        """Create the model from its arguments, which win over the harness's own options.

        The harness always gives a batch_size, 1 by default, and a PyTorch device, which is dropped.
        """
        options = {name: value for name, value in (additional_config or {}).items() if name != "device"}
        return cls(**{**options, **arg_dict})

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness's results say about the model: its arguments with their resolved values."""
        resolved = {"dtype": self.model.dtype.name, "max_length": self.max_length, "batch_size": self.arguments.rows}
        return {"s1_jax_version": __version__, "s1_jax": dataclasses.asdict(self.arguments) | resolved}

    # Texts

    @property
    def eot_token_id(self) -> int:
        """Return the token that ends a text."""
        return end_id(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        """Return the token put before a text without a context."""
        return prefix_id(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """Return the name that requests are cached under, together with the chat template."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the token ids of a text; see `encoding.text_ids`."""
        return text_ids(self.tokenizer, string, add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation as text. Raises UserError if the tokenizer has no chat template, or if it fails."""
        return rendered(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # What the harness asks for

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a text for each request, in their order; each goes to the harness's cache when it is done."""
        asked = [Asked(f"{r.task_name} document {r.doc_id}", *r.args) for r in requests]
        texts = [""] * len(asked)
        can_stop = threading.current_thread() is threading.main_thread()
        with (
            StopFlag() if can_stop else nullcontext() as stop,
            tqdm(total=len(asked), desc="Running generate_until requests", disable=disable_tqdm) as bar,
        ):

            def show(status: Status) -> None:
                if stop is not None:
                    stop.check()

            for index, text in generate(self.model, self.arguments, asked, show):
                texts[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update()
        return texts

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihoods of whole texts, in windows of `max_length` that count each token once."""
        windows = [
            (index, window)
            for index, request in enumerate(requests)
            for window in map(
                make_disjoint_window,
                get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, max_seq_len=self.max_length, context_len=1
                ),
            )
        ]
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens([(None, *window) for _, window in windows], disable_tqdm)
        for (index, _), (log_likelihood, _) in zip(windows, scores, strict=True):
            totals[index] += log_likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        scores: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        with tqdm(total=len(pairs), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for index, score in self.scorer.score(pairs):
                scores[index] = (score.log_likelihood, score.is_greedy)
                if requests[index][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[index][0], scores[index])
                bar.update()
        return scores
