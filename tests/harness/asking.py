"""What the tests of the harness's model share: requests as the harness makes them, and what transformers says."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from lm_eval.api.instance import Instance

import s1_jax
from s1_jax.config import S1, StoredConfig

TOLERANCE = 1e-4  # of a log-likelihood: float32 through every layer, sums in another order
V, MAX_LENGTH = 264, 128
ROWS = 4

_loaded = cache(s1_jax.load_model)


def loaded(path, dtype="float32", stored=StoredConfig(), *, mesh=None, format=S1):
    """`load_model`, on one device, which compiles sooner; models stay compiled from test to test."""
    return _loaded(path, "float32" if dtype == "auto" else dtype, stored, format=format)


def requests(kind, *arguments):
    return [Instance(kind, {}, given, i, ("made up", i, 1)) for i, given in enumerate(arguments)]


def generated(lm, *asked):
    """Texts for (prompt, keywords); the last is asked for again until the batch, whose size is compiled, is full."""
    filled = [*asked, *[asked[-1]] * (-len(asked) % ROWS)]
    return lm.generate_until(requests("generate_until", *filled))[: len(asked)]


def greedily(reference, ids, **options):
    ids = torch.tensor([ids])
    with torch.no_grad():
        found = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **options)
    return found[0].tolist()


def assert_close(mine, theirs):
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
    np.testing.assert_allclose([x for x, _ in mine], [x for x, _ in theirs], rtol=TOLERANCE)
