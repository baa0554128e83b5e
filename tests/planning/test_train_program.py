"""The planned program is the one that runs, and its memory is told from what the compiler says."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

from s1_jax import train
from s1_jax.chips import GIB
from s1_jax.config import CheckpointConfig, DataConfig, MeshConfig, ModelSource, TrainConfig
from s1_jax.data.synthetic import generate_examples
from s1_jax.planning import train_program
from s1_jax.planning.train_program import compute_dtype, local_bytes, lower_step, state_of, too_large
from s1_jax.runtime.cli import load_config
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh
from tests.tokenizer import byte_tokenizer


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A real run's config, model and layout."""
    folder = tmp_path_factory.mktemp("run")
    tiny = tiny_model(vocab_size=272, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    tiny.torch_model.save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(row) for row in generate_examples(0, 8)) + "\n")
    config = TrainConfig(
        run_dir=str(folder / "out"),
        model=ModelSource(path=str(folder / "model"), dtype="float32"),
        data=DataConfig(path=str(folder / "examples.jsonl"), max_length=256, batch_examples=8, micro_batch_rows=8),
        checkpoint=CheckpointConfig(every_steps=100),
        mesh=MeshConfig(fsdp=2, context=2, tensor=2),
    )
    return config, tiny.config, Layout(make_mesh(config.mesh), TRAIN_RULES)


def test_the_planned_program_is_the_one_train_jits(run, monkeypatch, tmp_path):
    """`train.main` itself is run up to its first step: what it would compile is, word for word, what is planned."""
    config, model, layout = run
    seen = {}

    def recording(*arguments, **options):
        jitted = compile_step(*arguments, **options)

        def step(state, batch, micro_batches):
            seen["text"] = jitted.lower(state, batch, micro_batches).as_text()
            seen["shape"] = batch["token_ids"].shape
            raise Stop

        return step

    compile_step = train.compile_step
    assert train_program.compile_step is compile_step
    file = tmp_path / "config.py"
    file.write_text(f"from s1_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    assert load_config(file) == config
    monkeypatch.setattr(train, "compile_step", recording)
    with pytest.raises(Stop):
        train.main([str(file)])
    epochs_of_one_step = config.train.epochs
    planned = lower_step(config, model, layout, seen["shape"], total_steps=epochs_of_one_step)
    assert planned.as_text() == seen["text"]
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none"))
    assert lower_step(other, model, layout, seen["shape"], total_steps=epochs_of_one_step).as_text() != seen["text"]


def test_state_is_weighed_by_what_one_device_holds(run):
    config, model, layout = run
    state = state_of(config, model, layout)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    assert whole / 8 < local_bytes(state.params) < whole / 2
    assert 2 * local_bytes(state.params) <= local_bytes(state.opt_state) < 2.1 * local_bytes(state.params)


@pytest.mark.parametrize(
    "text,gib",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (39.10G) "
            "exceeds available HBM (31.25G).",
            39.10,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 32.73G of 31.24G hbm. Exceeded by 1.49G",
            32.73,
        ),
        ("RESOURCE_EXHAUSTED: ... Used 900.00M of 15.75G hbm.", 900 / 1024),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20.00M of 16.00M vmem.", None),
        ("INTERNAL: Mosaic failed to compile TPU kernel", None),
    ],
)
def test_what_a_program_would_have_needed_is_read_from_the_error(text, gib):
    assert too_large(text) == (None if gib is None else pytest.approx(gib * GIB))


def test_auto_is_bfloat16_on_the_slice_whatever_this_machine_has():
    assert compute_dtype("auto") == "bfloat16" and compute_dtype("float32") == "float32"
