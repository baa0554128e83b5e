"""Random models that like to end, thinking and lines, and random requests to them."""

from __future__ import annotations

import copy

import numpy as np
import torch

from s1_jax.config import BudgetConfig, ModelConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from tests.reference import to_params
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN, MAX_ANSWER, ROWS = 264, 160, 5, 8
TOKENIZER = byte_tokenizer()
STRINGS = ("Wait", "", ("Hm", "", "no"))


def ending_model(tiny_model, seed):
    """A random model that likes to end, thinking and lines: its head is larger at these tokens."""
    reference = copy.deepcopy(tiny_model(seed, vocab_size=V, max_position_embeddings=256).torch_model)
    with torch.no_grad():
        reference.lm_head.weight[256:259] *= 1.3 + 0.2 * seed
        reference.lm_head.weight[ord("\n")] *= 1.5
        reference.lm_head.weight[[ord("a"), ord("b")]] *= 2.0 if seed == 3 else 1.0
    return ModelConfig.from_dict(reference.config.to_dict()), to_params(reference)


def random_requests(rng):
    """Grids and single settings over a few prompts, greedy and sampled, in random order."""
    requests = []
    for problem in range(int(rng.integers(1, 5))):
        prompt = tuple(map(int, rng.integers(0, 256, rng.integers(1, 100))))
        for string in rng.permutation(len(STRINGS))[: rng.integers(1, 4)]:
            for minimum in (1, *rng.integers(0, 8, rng.integers(0, 2))):
                maxima = [None, *map(int, rng.integers(minimum, 60, rng.integers(0, 5)))]
                counts = list(map(int, rng.integers(0, 5, rng.integers(1, 4))))
                sampling = SamplingConfig(temperature=float(rng.choice([0.0, 0.9])))
                banned = [(), ("a", "e", "\xe9"), ("b",)][rng.integers(3)]
                repetitions, noticed = int(rng.choice([0, 0, 2, 3])), rng.random() < 0.3
                grace, bias = float(rng.choice([0.0, 0.1])), float(rng.choice([0.0, 0.0, 0.0, 2.0]))
                for maximum in rng.permutation(np.array(maxima, object)):
                    for count in counts:
                        budget = BudgetConfig(
                            int(minimum),
                            maximum,
                            count,
                            STRINGS[string],
                            newline_grace=grace,
                            end_bias=bias if maximum else 0.0,
                            notice_fractions=(0.3, 0.6) if noticed and maximum else (),
                            notices=("Half!", " Soon.") if noticed and maximum else (),
                            banned_words=banned,
                            max_repetitions=repetitions,
                        )
                        for sample in range(1 if sampling.temperature == 0 else 2):
                            requests.append(Request(prompt, budget, sampling, problem, sample, 7, MAX_ANSWER))
    return [requests[i] for i in rng.permutation(len(requests))]
