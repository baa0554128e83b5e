"""The loss and gradients of packed steps are the reference's: every example by itself, in PyTorch."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s1_jax.config import DataConfig
from s1_jax.data.chat import Example
from s1_jax.data.loader import assemble
from s1_jax.data.tokens import Corpus
from s1_jax.training.losses import weighted_nll
from tests.reference import to_params

FLOAT32_GRADIENT = 2e-5  # of the largest entry of a gradient; sums in another order in float32


def make_corpus():
    rng = np.random.default_rng(0)
    lengths = [3, 30, 7, 19, 12, 5]
    examples = [Example(rng.integers(1, 97, n).astype(np.int32), np.arange(n) >= rng.integers(1, n)) for n in lengths]
    return Corpus(tuple(f"e{i}" for i in range(len(lengths))), tuple(examples))


def reference(tiny, corpus, weighting):
    """Mean over examples of the mean over their loss tokens, or mean over all loss tokens; and its gradients."""
    model = copy.deepcopy(tiny.torch_model)
    losses = []
    for token_ids, loss_mask in corpus.examples:
        scores = model(torch.tensor(token_ids[None].astype(np.int64))).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(scores, torch.tensor(token_ids[1:].astype(np.int64)), reduction="none")
        losses.append(nll[torch.tensor(loss_mask[1:])])
    loss = torch.stack([nll.mean() for nll in losses]).mean() if weighting == "example" else torch.cat(losses).mean()
    loss.backward()
    for weight in model.parameters():
        weight.data = weight.grad  # so that the table of weights names the gradients too
    return loss.item(), to_params(model)


@pytest.mark.parametrize(
    ("weighting", "max_length", "micro_batch_rows"), [("example", 30, 1), ("example", 128, 1), ("token", 40, 2)]
)
def test_packed_gradients_are_those_of_the_examples_one_by_one(tiny_model, weighting, max_length, micro_batch_rows):
    tiny, corpus = tiny_model(num_hidden_layers=2), make_corpus()
    config = DataConfig(max_length=max_length, micro_batch_rows=micro_batch_rows, loss_weighting=weighting)
    step = assemble(corpus, config)

    @jax.jit
    @jax.value_and_grad
    def loss_of(params, batch):
        return weighted_nll(tiny.config, params, batch, compute_dtype=jnp.float32, remat="none")

    loss, grads = 0.0, jax.tree.map(jnp.zeros_like, tiny.params)
    for index in range(step.micro_batches):
        part, part_grads = loss_of(tiny.params, {name: array[index] for name, array in step.batch.items()})
        loss, grads = loss + part, jax.tree.map(jnp.add, grads, part_grads)

    expected, expected_grads = reference(tiny, corpus, weighting)
    assert loss == pytest.approx(expected, rel=FLOAT32_GRADIENT)
    for (path, grad), wanted in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(expected_grads), strict=True):
        largest = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(grad, wanted, atol=FLOAT32_GRADIENT * largest, rtol=0, err_msg=str(path))
