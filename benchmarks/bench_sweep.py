"""A whole grid of budgets from one trace, beside its longest setting alone and every setting by itself: ours or s1's.

    python benchmarks/bench_sweep.py quickstart          # the model that scripts/quickstart.sh leaves in runs/
    python benchmarks/bench_sweep.py reference           # the same model under s1's own 11 settings, its maxima scaled
    python benchmarks/bench_sweep.py long --json runs/bench_sweep_long.json
    python benchmarks/bench_sweep.py transformers        # s1's 11 settings beside s1's own procedure (extra: test)

The grid is 7 maxima x 5 ignore counts. `quickstart` decodes it greedily for held-out problems; `long` samples from a
random model of the same shape whose thinking runs to 1,024 tokens and ends now and then. Every way decodes once before
it counts, so compilation does not; then the ways take turns. Records of the ways are compared. What one trace costs
beside its longest setting is printed in time, in tokens and in slot-steps (rows of the batch x steps), which limit it:
an answer's token takes about as long as one of thinking.

`transformers` sets one trace beside what s1 does: every setting by itself, in rounds of `generate` over the whole text
so far. The model has Qwen2.5-0.5B's shape in float32 and ends where s1 does, all lengths divided by 50: thinking after
140 tokens (AIME24: 6,984), after an ignored end in 30 more, answers after 14. All rows of a batch end together, which
is what suits `generate` best. The machine must be otherwise idle: a busy neighbour can cost PyTorch a factor of ten, so
what others took is printed too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise, product
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from _machine import others_seconds
from _results import write_json
from transformers import PreTrainedTokenizerBase

from s1_jax.checkpoints import hf
from s1_jax.config import S1, BudgetConfig, FormatConfig, SamplingConfig, TaskConfig
from s1_jax.data.chat import ANSWER_START, FINAL_ANSWER, encode, prompt_ids
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import single_id
from s1_jax.decoding.engine import Engine
from s1_jax.model import stored_weights
from s1_jax.model.sizes import PUBLISHED
from s1_jax.model.transformer import Params, init_params, unstack
from s1_jax.runtime.progress import progress_bar
from s1_jax.runtime.tables import align
from s1_jax.tasks import load_task

if TYPE_CHECKING:
    from _reference import Rounds

BASE = str(files("s1_jax") / "assets" / "tiny_base")
QUICKSTART = (16, 32, 64, 96, 128, 160, None)
S1_50 = (10, 20, 40, 80, 160, 320, None)
Grid = list[tuple[int | None, int]]  # maximum of thinking tokens, ends ignored
GRIDS: dict[str, Grid] = {
    "quickstart": list(product(QUICKSTART, range(5))),
    "reference": [*((maximum, 0) for maximum in QUICKSTART), *((None, count) for count in (1, 2, 4, 6))],
    "long": list(product((64, 128, 256, 512, 768, 896, 1024), range(5))),
    "transformers": [*((maximum, 0) for maximum in S1_50), *((None, count) for count in (1, 2, 4, 6))],
}
# of `transformers`: tokens, s1's over 50
THOUGHTS, MORE_THOUGHTS, ANSWER, CONTEXT, PROMPT = 140, 30, 14, 655, 4
LEAST = 5.0  # times as fast as s1's procedure


def main() -> None:
    """Run the ways in turn and print the table, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=GRIDS)
    parser.add_argument(
        "--model", default="runs/quickstart/sft/hf", help="of quickstart and reference (default: %(default)s)"
    )
    parser.add_argument("--problems", type=int, help="(default: 256; long 16, transformers 4)")
    parser.add_argument("--layers", type=int, default=24, help="of the model of transformers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, help="that count (default: 3; transformers 1)")
    parser.add_argument("--json", type=Path, help="file to write all figures into")
    options = parser.parse_args()
    engine, requests, reference = CASES[options.case](options)
    num_rounds = options.rounds or (3 if reference is None else 1)
    longest = [request for request in requests if request.budget == _longest(requests)]
    ways: dict[str, tuple[Engine | Rounds, Callable[[], list[dict[str, Any]]]]] = {
        "one trace": (engine, lambda: [record for _, record in sorted(engine.run_shared(requests), key=itemgetter(0))])
    }
    if reference is None:
        ways["longest setting"] = (engine, lambda: list(engine.run(longest)))
        ways["each by itself"] = (engine, lambda: list(engine.run(requests)))
    else:
        ways["each by generate"] = (reference, lambda: reference.run(requests))
    *_, separate = ways
    records: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    tokens: dict[str, int] = {}
    slot_steps: dict[str, int] = {}
    others = 0.0
    with progress_bar() as bar:
        task = bar.add_task("warming up", total=(num_rounds + 1) * len(ways), note="")
        for number, (way, (decoder, run)) in product(range(num_rounds + 1), ways.items()):
            bar.update(task, description=f"round {number}" if number else "warming up", note=way)
            if number or decoder is engine:  # the reference compiles nothing
                before, used, elsewhere = decoder.decoded_tokens, engine.use.slot_steps, others_seconds()
                start = time.perf_counter()
                records[way] = run()
                seconds[way].append(time.perf_counter() - start)
                tokens[way] = decoder.decoded_tokens - before
                slot_steps[way] = engine.use.slot_steps - used
                others = max(others, (others_seconds() - elsewhere) / seconds[way][-1])
            bar.advance(task)
    medians = {way: statistics.median(times[-num_rounds:]) for way, times in seconds.items()}
    shared = medians["one trace"]
    pairs = zip(records["one trace"], records[separate], strict=True)
    rows = [("way", "settings", "decoded tokens", "seconds", "of one trace's")]
    for way in ways:
        count = 1 if way == "longest setting" else len(requests) // len(longest)
        rows.append((way, str(count), f"{tokens[way]:,}", f"{medians[way]:.2f}", f"{medians[way] / shared:.2f} x"))
    result = {
        "case": options.case,
        "problems": len(longest),
        "thinking_tokens_of_longest": statistics.mean(
            record["num_thinking_tokens"] for record in records["one trace"][-len(longest) :]
        ),
        "tokens": tokens,
        "seconds": medians,
        f"faster_than_{separate.replace(' ', '_')}": medians[separate] / shared,
        "records_that_differ": sum(any(mine[name] != its[name] for name in its) for mine, its in pairs),
        "records": len(requests),
        "others_cores": others,
    }
    print(align(rows))
    print(f"records that differ: {result['records_that_differ']} of {len(requests)}")
    print(f"other processes took up to {others:.2f} cores while a way ran")
    if reference is None:
        result["of_longest"] = shared / medians["longest setting"]
        limits = {
            name: counts["one trace"] / counts["longest setting"]
            for name, counts in (("tokens", tokens), ("slot-steps", slot_steps))
        }
        result |= {"limits": limits, "slot_steps": slot_steps}
        said = ", ".join(f"{limit:.2f} x its {name}" for name, limit in limits.items())
        print(f"one trace over the longest setting: {result['of_longest']:.2f} x its time, {said}")
    else:
        result |= {"layers": options.layers, "least": LEAST, "met": medians[separate] / shared >= LEAST}
        print(f"bar: {LEAST:.0f} x, {'met' if result['met'] else 'missed'}")
    print(json.dumps(result))
    write_json(options.json, result | {"rounds": seconds})


def quickstart(options: argparse.Namespace) -> tuple[Engine, list[Request], None]:
    """Load the quickstart's fine-tuned model and held-out problems, greedy."""
    source = hf.resolve(options.model)
    model, params = hf.load_params(source, stacked=False, kept="transposed")
    tokenizer = hf.load_tokenizer(source)
    problems = load_task(TaskConfig("synthetic", limit=options.problems or 256)).problems
    engine = Engine(model, params, tokenizer, max_model_len=256, batch_size=len(problems))
    prompts = {problem.id: tuple(prompt_ids(tokenizer, problem.question)) for problem in problems}
    return engine, _requests(GRIDS[options.case], prompts, SamplingConfig(), 8), None


def long(options: argparse.Namespace) -> tuple[Engine, list[Request], None]:
    """Make a random model whose samples are nearly uniform, so that thinking ends about once in 350 tokens."""
    tokenizer = hf.load_tokenizer(hf.resolve(BASE))
    model = dataclasses.replace(hf.load_config(hf.resolve(BASE)), max_position_embeddings=1280)
    count = options.problems or 16
    params = stored_weights.transpose(unstack(init_params(model, jax.random.key(0))))
    engine = Engine(
        model,
        params,
        tokenizer,
        max_model_len=1280,
        batch_size=count,
        format=FormatConfig(end_markers=("<|im_start|>",)),
    )
    rng = np.random.default_rng(0)
    prompts = {i: tuple(map(int, rng.integers(0, 256, 40))) for i in range(count)}
    return engine, _requests(GRIDS[options.case], prompts, SamplingConfig(temperature=1.0), 32), None


def transformers(options: argparse.Namespace) -> tuple[Engine, list[Request], Rounds]:
    """Make a model of Qwen2.5-0.5B's shape with given lengths of texts, for ours and for s1's procedure, greedy."""
    from _reference import Rounds, to_transformers  # PyTorch is no dependency of the other cases

    tokenizer = hf.load_tokenizer(hf.resolve(BASE))
    model = dataclasses.replace(PUBLISHED["Qwen/Qwen2.5-0.5B"], num_hidden_layers=options.layers)
    params = follow(init_params(model, jax.random.key(0)), successors(tokenizer))
    count = options.problems or 4
    rng = np.random.default_rng(0)
    prompts = {i: tuple(map(int, rng.integers(3, 256, PROMPT))) for i in range(count)}
    layers = stored_weights.transpose(unstack(params))
    engine = Engine(model, layers, tokenizer, max_model_len=CONTEXT, batch_size=count)
    requests = _requests(GRIDS[options.case], prompts, SamplingConfig(), 2 * ANSWER)
    return engine, requests, Rounds(to_transformers(model, params), tokenizer, CONTEXT)


def successors(tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """Map each token to the next, so that thinking, what comes after "Wait", and answers have the intended lengths."""
    think, wait, natural, forced = (
        encode(tokenizer, text)[-1] for text in ("<|im_start|>think", "Wait", ANSWER_START, ANSWER_START + FINAL_ANSWER)
    )
    ends = {single_id(tokenizer, text) for text in S1.end_markers}
    free = sorted(set(tokenizer.get_vocab().values()) - ends - {think, wait, natural, forced})
    thoughts, answer = free[:THOUGHTS], free[THOUGHTS : THOUGHTS + ANSWER]
    texts = [
        [think, *thoughts, single_id(tokenizer, "<|im_start|>")],
        [wait, thoughts[1 - MORE_THOUGHTS]],
        [natural, *answer, single_id(tokenizer, "<|im_end|>")],
        [forced, answer[0]],
    ]
    return {now: then for text in texts for now, then in pairwise(text)}


def follow(params: Params, successor: dict[int, int]) -> Params:
    """Change a random model so that it writes each token's successor; all matmuls are as large as before.

    The last MLP looks the token up: one neuron each, whose input is the token's embedding and whose output is the
    successor's. What the other layers add to the residual stream is made small.
    """
    table, layers = params["embed_tokens"]["weight"], params["layers"]
    now, then = (table[jnp.array(ids)] for ids in (list(successor), list(successor.values())))
    mlp, attention, n = dict(layers["mlp"]), dict(layers["self_attn"]), len(successor)
    attention["o_proj"] = {"kernel": attention["o_proj"]["kernel"] * 1e-3}
    for name in ("gate_proj", "up_proj"):
        mlp[name] = {"kernel": mlp[name]["kernel"].at[-1, :, :n].set(now.T)}
    mlp["down_proj"] = {"kernel": (mlp["down_proj"]["kernel"] * 1e-3).at[-1, :n].set(then)}
    return params | {"layers": layers | {"mlp": mlp, "self_attn": attention}}


CASES = {"quickstart": quickstart, "reference": quickstart, "long": long, "transformers": transformers}


def _requests(grid: Grid, prompts: dict, sampling: SamplingConfig, answer: int) -> list[Request]:
    return [
        Request(prompt, BudgetConfig(1, maximum, count), sampling, problem, 0, 0, answer, f"problem {problem}")
        for (maximum, count), (problem, prompt) in product(grid, prompts.items())
    ]


def _longest(requests: list[Request]) -> BudgetConfig:
    return requests[-1].budget  # the last of each grid


if __name__ == "__main__":
    main()
