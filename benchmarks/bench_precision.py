"""What weights and cache in fewer bits change: errors of logits, greedy agreement, equal traces.

    python benchmarks/bench_precision.py                # the model that scripts/quickstart.sh leaves in runs/
    python benchmarks/bench_precision.py --model Qwen/Qwen2.5-0.5B-Instruct --problems 32

The reference computes and keeps everything in float32. Each row is set beside it on the reference's own traces, token
for token: the largest and the mean error of the logits (of the largest logit there is), and in how many places the same
token is the likeliest. Then each decodes by itself: how many traces come out the same, and how many records of a
sweep's shared traces equal those of every setting by itself under the same types.
"""

from __future__ import annotations

import argparse
import json
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, StoredConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import init_cache
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align
from s1_jax.tasks import load_task

Stored = Literal["float32", "bfloat16", "int8"]
REFERENCE: tuple[Stored, Stored, Stored] = ("float32", "float32", "float32")
TYPES: tuple[tuple[Stored, Stored, Stored], ...] = (  # products, weights, cache
    REFERENCE,
    ("float32", "float32", "bfloat16"),
    ("float32", "float32", "int8"),
    ("float32", "int8", "float32"),
    ("float32", "int8", "int8"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "bfloat16", "int8"),
    ("bfloat16", "int8", "int8"),
)


def main() -> None:
    """Measures every combination of types and prints the table, the JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/quickstart/sft/hf", help="folder or hub id (default: %(default)s)")
    parser.add_argument("--problems", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--max-thinking-tokens", type=int, default=160, help="(default: %(default)s)")
    options = parser.parse_args()
    source = hf.resolve(options.model)
    tokenizer = hf.load_tokenizer(source)
    problems = load_task(TaskConfig("synthetic", limit=options.problems)).problems
    maxima = [options.max_thinking_tokens // 4, options.max_thinking_tokens // 2, options.max_thinking_tokens]
    requests = [
        Request(
            tuple(prompt_ids(tokenizer, p.question)),
            BudgetConfig(1, maximum, 2),
            problem_id=p.id,
            max_answer_tokens=8,
            name=f"problem {p.id}",
        )
        for maximum in maxima
        for p in problems
    ]
    longest = requests[-len(problems) :]

    results: list[dict[str, object]] = []
    with progress_bar() as bar:
        task = bar.add_task("decoding", total=len(TYPES), note="")
        for products, weights, cache in TYPES:
            dtype, stored = jnp.dtype(products), StoredConfig(weights, cache)
            bar.update(task, note=f"{products} {weights} {cache}")
            config, params = hf.load_for_decoding(source, stored, dtype)
            engine = Engine(
                config, params, tokenizer, max_model_len=512, batch_size=64, dtype=dtype, cache_dtype=jnp.dtype(cache)
            )
            records = list(engine.run(longest))
            if not results:
                traces = [
                    (*r.prompt_token_ids, *engine.start_ids, *x["thinking_token_ids"])
                    for r, x in zip(longest, records, strict=True)
                ]
                reference = records
            scores = teacher_forced(config, params, traces, dtype, jnp.dtype(cache))
            if not results:
                exact = scores
            alone = list(engine.run(requests))
            shared = dict(engine.run_shared(requests))
            error = max(float(np.abs(a - b).max()) for a, b in zip(scores, exact, strict=True))
            mean = float(np.mean([np.abs(a - b).mean() for a, b in zip(scores, exact, strict=True)]))
            largest = max(float(np.abs(x).max()) for x in exact)
            agree = np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in zip(scores, exact, strict=True)]).mean()
            results.append(
                {
                    "products": products,
                    "weights": weights,
                    "cache": cache,
                    "largest_error": error / largest,
                    "mean_error": mean / largest,
                    "greedy_agreement": float(agree),
                    "equal_traces": np.mean(
                        [
                            x["thinking_token_ids"] == y["thinking_token_ids"]
                            for x, y in zip(records, reference, strict=True)
                        ]
                    ).item(),
                    "shared_equals_alone": np.mean([shared[i] == x for i, x in enumerate(alone)]).item(),
                }
            )
            bar.advance(task)
    print(
        align([tuple(name.replace("_", " ") for name in results[0]), *(tuple(map(shown, x.values())) for x in results)])
    )
    print(json.dumps({"model": options.model, "problems": len(problems), "rows": results}))


def teacher_forced(
    config: transformer.ModelConfig,
    params: transformer.Params,
    traces: list[tuple[int, ...]],
    dtype: jnp.dtype,
    cache_dtype: jnp.dtype,
) -> list[np.ndarray]:
    """Logits [n, V] after every token of each trace, all of it read through a cache of that type."""

    @jax.jit
    def run(ids: jax.Array) -> jax.Array:
        cache = init_cache(config, 1, ids.shape[1], cache_dtype)
        positions = jnp.arange(ids.shape[1])[None]
        hidden, _ = cached.hidden_states(config, params, ids, positions, cache, compute_dtype=dtype)
        return transformer.logits(config, params, hidden)[0]

    longest = max(map(len, traces))
    padded = [np.pad(np.asarray(trace, np.int32), (0, longest - len(trace)))[None] for trace in traces]
    return [np.asarray(run(ids))[: len(trace)] for ids, trace in zip(padded, traces, strict=True)]


def shown(value: object) -> str:
    """Format one cell of the table."""
    return f"{value:.2%}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
