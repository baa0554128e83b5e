"""Train the tiny base model of the package from scratch: a Qwen2 with half a million parameters.

    python scripts/make_tiny_base.py --target s1_jax/assets/tiny_base

Hardware: one CPU core, about 10 minutes. The same seed gives the same bytes on the same machine. The corpora are those
of `s1_jax/data/synthetic.py`: drills of single operations, solved problems as plain text, and solved problems in s1's
chat format; none contains an evaluation problem.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from s1_jax.checkpoints import hf
from s1_jax.config import ModelConfig
from s1_jax.data import synthetic
from s1_jax.data.chat import Example
from s1_jax.model import transformer

CONFIG = ModelConfig(
    vocab_size=352,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# as in Qwen2: words, single digits, punctuation with the line ends after it, line ends, spaces
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# the words of the corpora, without digits; a leading space belongs to the word
WORDS = [
    *(
        "user",
        "assistant",
        "think",
        "answer",
        "Answer",
        "Final",
        " Answer",
        "Problem",
        "Solution",
        "Start",
        " Steps",
        " Result",
        " mod",
    ),
    *(f" {letter}" for letter in "abcdefghijkl"),
    *("So", "Wait", " more", " all", " done", "Hmm", ".\n", ":\n", "?\n"),
]

ROWS, ROW_LENGTH = 8, 256  # per batch
MUON_LR, ADAM_LR = 0.02, 3e-3
WARMUP_STEPS = 20
DRILL_PHASE = 0.2  # fraction of the steps in which every other row is a drill
LONGER_PHASE = 0.3  # fraction of the steps after which problems have full length


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Build a byte-level BPE tokenizer that splits as Qwen2 does and has one token for each word of the corpora."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONFIG.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )


def documents(rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, longest: int) -> Iterator[Example]:
    """Yield plain and chat documents in turn."""
    plain, chat = synthetic.plain_documents(rng, tokenizer, longest), synthetic.chat_documents(rng, tokenizer, longest)
    for pair in zip(plain, chat, strict=False):
        yield from pair


def make_batch(rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase, progress: float) -> dict[str, np.ndarray]:
    """Pack documents into rows [ROWS, ROW_LENGTH] and fill the rest of each row with a drill.

    Problems are short at first and have full length after LONGER_PHASE.
    """
    span = synthetic.MAX_UPDATES - synthetic.MIN_UPDATES
    longest = synthetic.MIN_UPDATES + min(span, 2 + int(span * progress / LONGER_PHASE))
    rows: list[list[Example]] = [[] for _ in range(ROWS)]
    room = [ROW_LENGTH] * ROWS
    open_rows = range(0, ROWS, 2 if progress < DRILL_PHASE else 1)
    for document in documents(rng, tokenizer, longest):
        index = next((i for i in open_rows if room[i] >= len(document.token_ids)), None)
        if index is None:
            break
        rows[index].append(document)
        room[index] -= len(document.token_ids)
    for row, left in zip(rows, room, strict=True):
        if left:
            row.append(synthetic.drill(rng, tokenizer, left))

    def stack(of: Any) -> np.ndarray:
        return np.stack([np.concatenate([of(index, example) for index, example in enumerate(row)]) for row in rows])

    return {
        "token_ids": stack(lambda index, example: example.token_ids),
        "loss_mask": stack(lambda index, example: example.loss_mask & (np.arange(len(example.loss_mask)) > 0)),
        "positions": stack(lambda index, example: np.arange(len(example.token_ids), dtype=np.int32)),
        "segment_ids": stack(lambda index, example: np.full(len(example.token_ids), index + 1, np.int32)),
    }


def loss_fn(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """Return the mean cross-entropy over the tokens with loss."""
    hidden = transformer.hidden_states(
        CONFIG, params, batch["token_ids"], batch["positions"], batch["segment_ids"], compute_dtype=jnp.float32
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(
        transformer.logits(CONFIG, params, hidden[:, :-1]), batch["token_ids"][:, 1:]
    )
    mask = batch["loss_mask"][:, 1:]
    return jnp.sum(losses * mask) / jnp.sum(mask)


def make_optimizer(steps: int, muon_lr: float = MUON_LR, adam_lr: float = ADAM_LR) -> optax.GradientTransformation:
    """Build the optimizer: Muon for the layers' matrices [L, in, out], Adam for the rest; warm-up and linear decay."""

    def schedule(peak: float) -> optax.Schedule:
        return optax.join_schedules(
            [optax.linear_schedule(0, peak, WARMUP_STEPS), optax.linear_schedule(peak, 0, steps - WARMUP_STEPS)],
            [WARMUP_STEPS],
        )

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: MuonDimensionNumbers(1, 2) if leaf.ndim == 3 else None, params)

    return muon(schedule(muon_lr), adam_learning_rate=schedule(adam_lr), muon_weight_dimension_numbers=matrices)


def main() -> None:
    """Build the tokenizer, train the model, and write the folder in Hugging Face layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="folder to write, in Hugging Face layout")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tokenizer = make_tokenizer()
    params = transformer.init_params(CONFIG, jax.random.key(args.seed), jnp.float32)
    optimizer = make_optimizer(args.steps)

    @jax.jit
    def train_step(params: Any, state: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(params)
    rng = np.random.default_rng(args.seed)
    losses: list[jax.Array] = []
    start = time.monotonic()
    for step in range(args.steps):
        params, state, loss = train_step(params, state, make_batch(rng, tokenizer, step / args.steps))
        losses.append(loss)
        if (step + 1) % 25 == 0:
            left = (time.monotonic() - start) / (step + 1) * (args.steps - step - 1)
            mean = float(np.mean([float(x) for x in losses[-25:]]))
            print(f"step {step + 1:5d}/{args.steps}  loss {mean:.4f}  {left / 60:.1f} min left", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        hf.save_params(args.target, CONFIG, params, tokenizer_from=folder)
    print(f"wrote {args.target}")


if __name__ == "__main__":
    main()
