"""Reward models on disk: the head that config.json or the tensors name, in and out; what is wrong is said at once."""

import dataclasses
import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from s1_jax.checkpoints import hf_reward
from s1_jax.config import MeshConfig, StoredConfig
from s1_jax.errors import UserError
from s1_jax.model.reward import REWARD_MODELS, param_axes
from s1_jax.model.transformer import unstack
from s1_jax.sharding import DECODE_RULES, Layout, assert_sharded, make_mesh
from tests.model.test_stored_weights import upright
from tests.reference import REWARDS, tiny_reward

SHAPES = {"vocab_size": 96}  # divides over the mesh below
PRM = "Qwen2ForProcessRewardModel"
READERS = {
    "Qwen2ForSequenceClassification": AutoModelForSequenceClassification,
    "Qwen2ForTokenClassification": AutoModelForTokenClassification,
}


def write(model, architecture, folder, **values):
    """A checkpoint as Qwen publishes them: the reference's own tensors, and its config with the architecture."""
    folder.mkdir()
    tensors = {name: weight.contiguous() for name, weight in model.torch_model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.torch_model.config.to_dict()
    config |= {"architectures": [architecture], **values}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def rewrite(folder, change):
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def set_architectures(folder, names):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"architectures": names}))


@pytest.fixture
def source(tmp_path):
    return write(tiny_reward(PRM, **SHAPES), PRM, tmp_path / "source")


@pytest.mark.parametrize("architecture", REWARDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_is_byte_equal(tmp_path, architecture, dtype):
    model = tiny_reward(architecture)
    write(model, architecture, tmp_path / "in")
    config, reward, params = hf_reward.load_params(tmp_path / "in", dtype=jnp.dtype(dtype))
    assert (config, reward) == (model.config, REWARD_MODELS[architecture])
    expected = jax.tree.map(lambda x: x.astype(dtype), model.params)
    jax.tree.map(np.testing.assert_array_equal, params, expected)

    hf_reward.save_params(tmp_path / "out", config, reward, params)
    assert hf_reward.load_config(tmp_path / "out") == (config, reward)
    jax.tree.map(np.testing.assert_array_equal, hf_reward.load_params(tmp_path / "out")[2], expected)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name].to(after[name].dtype), after[name])


@pytest.mark.parametrize("architecture", READERS)
def test_transformers_reads_what_was_written(tmp_path, architecture):
    model = tiny_reward(architecture)
    hf_reward.save_params(tmp_path / "out", model.config, REWARD_MODELS[architecture], model.params)
    theirs, told = READERS[architecture].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        found, expected = theirs.eval()(ids).logits, model.torch_model(ids).logits
    torch.testing.assert_close(found, expected)


def test_an_output_head_that_is_stored_too_is_left(source):
    """Qwen2.5-Math-PRM-7B's files are 15.25 GB, which is 7.6 billion parameters: an output head is among them."""
    rewrite(source, lambda found: found.update({"lm_head.weight": torch.zeros(96, 64)}))
    params = hf_reward.load_params(source)[2]
    jax.tree.map(np.testing.assert_array_equal, params, tiny_reward(PRM, **SHAPES).params)


@pytest.mark.parametrize("architecture", REWARDS)
@pytest.mark.parametrize("named", [[], ["MyOwnModel"]])
def test_where_no_known_architecture_is_named_the_tensors_say_it(tmp_path, architecture, named):
    folder = write(tiny_reward(architecture), architecture, tmp_path / "in")
    set_architectures(folder, named)
    assert hf_reward.load_config(folder)[1] == REWARD_MODELS[architecture]


def test_no_reward_model_is_told_what_would_be(tiny_model, source, tmp_path):
    tiny_model().torch_model.save_pretrained(tmp_path / "causal")
    set_architectures(source, ["Qwen2ForPrmModel"])
    rewrite(source, lambda found: [found.pop(name) for name in list(found) if name.startswith("score.")])
    for folder, name in ((tmp_path / "causal", "Qwen2ForCausalLM"), (source, "Qwen2ForPrmModel")):
        with pytest.raises(UserError, match=rf"no reward model that is known \(its architecture: {name}\)") as raised:
            hf_reward.load_params(folder)
        assert all(known in str(raised.value) for known in REWARD_MODELS)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("architectures", 5, "architectures is 5; it must be a list of strings"),
        ("architectures", "Qwen2ForPrmModel", "architectures is 'Qwen2ForPrmModel'; it must be a list of strings"),
        ("architectures", [[]], r"architectures is \[\[\]\]"),
        ("architectures", [7], r"architectures is \[7\]"),
        ("step_separator", 5, "step_separator is 5; it must be a string"),
        ("step_separator", ["a"], r"step_separator is \['a'\]"),
    ],
)
def test_a_field_of_another_type_is_one_line(source, field, value, words):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=rf"config\.json: {words}"):
        hf_reward.load_config(source)


def test_every_problem_is_raised_at_once(source):
    def spoil(found):
        del found["score.0.bias"], found["model.norm.weight"]
        found["score.2.weight"] = torch.zeros(1, 64)
        found["v_head.weight"] = torch.zeros(1, 64)

    rewrite(source, spoil)
    with pytest.raises(UserError) as raised:
        hf_reward.load_params(source)
    said = str(raised.value)
    assert "missing: model.norm.weight, score.0.bias" in said
    assert "unexpected: v_head.weight" in said
    assert "wrong shape: score.2.weight is [1, 64], not [2, 64]" in said


def test_another_separator_is_kept(tmp_path):
    model = tiny_reward(PRM)
    reward = dataclasses.replace(REWARD_MODELS[PRM], separator="<step>")
    hf_reward.save_params(tmp_path / "out", model.config, reward, model.params)
    assert hf_reward.load_config(tmp_path / "out")[1] == reward


def test_tensors_go_straight_into_sharded_arrays(source):
    model, layout = tiny_reward(PRM, **SHAPES), Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), DECODE_RULES)
    config, reward, params = hf_reward.load_params(source, layout=layout)
    assert_sharded(params, layout.tree(param_axes(config, reward), params))
    assert len(params["score"]["0"]["kernel"].sharding.spec) == 2
    _, _, apart = hf_reward.load_for_scoring(source, StoredConfig(), jnp.float32, layout)
    jax.tree.map(np.testing.assert_array_equal, apart, unstack(model.params))
    _, _, alone = hf_reward.load_for_scoring(source, StoredConfig(), jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, upright(alone), unstack(model.params))


def test_pickles_are_refused_with_the_command_that_converts_them(source):
    model = tiny_reward(PRM, **SHAPES)
    (source / "model.safetensors").unlink()
    torch.save(model.torch_model.state_dict(), source / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled") as raised:
        hf_reward.load_params(source)
    exec(shlex.split(str(raised.value).split("convert them once: ")[1])[2], {})
    jax.tree.map(np.testing.assert_array_equal, hf_reward.load_params(source)[2], model.params)
