"""Embeddings that config.json ties, and an output head that is stored all the same, against transformers."""

import copy
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import s1_jax
from s1_jax import convert
from s1_jax.checkpoints import hf, hf_reward, tensor_file
from s1_jax.config import MeshConfig, ModelConfig, StoredConfig
from s1_jax.errors import UserError
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh
from tests.reference import tiny_reward
from tests.tokenizer import byte_tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order
SIZES = {"vocab_size": 264, "tie_word_embeddings": True}
IDS = np.random.default_rng(0).integers(0, 259, (2, 24))


def another_head(found):
    found[HEAD] = torch.randn(found[EMBEDDING].shape, generator=torch.Generator().manual_seed(7)) * 0.2


def last_value(found):
    found[HEAD] = found[EMBEDDING].clone()
    found[HEAD][-1, -1] += 1.0


def same(found):
    found[HEAD] = found[EMBEDDING].clone()


def zero_of_another_sign(found):
    found[EMBEDDING][3, 5] = 0.0
    same(found)
    found[HEAD][3, 5] = -0.0


def other_name(found):
    found[HEAD] = found.pop(EMBEDDING)


def wider(found):
    found[EMBEDDING] = found[EMBEDDING].bfloat16()
    found[HEAD] = found[EMBEDDING].float()


def folder_of(tiny_model, folder, change, dtype=torch.float32, sharded=False, **settings):
    """A checkpoint whose tensors `change` has changed, with a tokenizer beside it."""
    model = copy.deepcopy(tiny_model(**SIZES).torch_model).to(dtype)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    found = load_file(folder / "model.safetensors")
    change(found)
    found = {name: tensor.to(dtype) if change is not wider else tensor for name, tensor in found.items()}
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    if sharded:
        shard(folder, found)
    values = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return folder


def shard(folder, found):
    """The head and the embedding in different files of several, beside an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(found)
    files = {name: f"model-{1 + i % 3:05d}-of-00003.safetensors" for i, name in enumerate(names)}
    files[HEAD], files[EMBEDDING] = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"
    for file in set(files.values()):
        save_file({n: found[n] for n in names if files[n] == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": {n: f for n, f in files.items() if n in found}}
    (folder / hf.INDEX).write_text(json.dumps(index))


def theirs(folder):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).float().eval()(torch.tensor(IDS)).logits.numpy()


def assert_close(ours, reference, tolerance=TOLERANCE):
    assert np.abs(ours - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize(
    ("change", "tied", "form"),
    [
        (another_head, False, {}),
        (another_head, False, {"sharded": True}),
        (another_head, False, {"dtype": torch.bfloat16}),
        (another_head, False, {"dtype": torch.float16, "torch_dtype": "float16"}),
        (another_head, False, {"tie_word_embeddings": False}),
        (another_head, False, {"tie_word_embeddings": ...}),  # not said: Qwen2Config's default is false
        (last_value, False, {}),
        (last_value, False, {"sharded": True, "dtype": torch.bfloat16}),
        (same, True, {}),
        (same, True, {"sharded": True}),
        (zero_of_another_sign, True, {}),
        (wider, True, {}),
        (other_name, True, {}),
        (other_name, True, {"sharded": True}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_logits_are_those_of_transformers(tiny_model, tmp_path, monkeypatch, change, tied, form):
    monkeypatch.setattr(tensor_file, "BLOCK", 4096)  # several blocks, of which the last differs
    folder = folder_of(tiny_model, tmp_path / "model", change, **form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = s1_jax.load_model(folder)
    assert model.config.tie_word_embeddings == tied and ("lm_head" not in model.params) == tied
    assert_close(model.logits(IDS), theirs(folder))


def test_a_head_that_differs_is_told_and_others_are_not(tiny_model, tmp_path):
    folder = folder_of(tiny_model, tmp_path / "one", another_head)
    with pytest.warns(UserWarning, match=r"tie_word_embeddings true, but lm_head.weight differs"):
        hf.load_config(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf.load_config(folder_of(tiny_model, tmp_path / "two", same))


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_weights_kept_in_other_types_have_the_head_too(tiny_model, tmp_path, weights):
    folder = folder_of(tiny_model, tmp_path / "model", another_head)
    _, params = hf.load_for_decoding(folder, StoredConfig(weights=weights), jnp.float32)
    stored = load_file(folder / "model.safetensors")[HEAD].numpy().T
    expected = stored.astype(jnp.bfloat16) if weights == "bfloat16" else stored
    np.testing.assert_array_equal(params["lm_head"]["kernel"], expected)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
def test_on_a_mesh_and_out_again(tiny_model, tmp_path):
    folder = folder_of(tiny_model, tmp_path / "model", another_head)
    config, params = hf.load_params(folder, layout=Layout(make_mesh(MeshConfig(fsdp=4, tensor=2)), TRAIN_RULES))
    np.testing.assert_array_equal(params["lm_head"]["kernel"], load_file(folder / "model.safetensors")[HEAD].T)
    hf.save_params(tmp_path / "out", config, params, tokenizer_from=folder)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    np.testing.assert_array_equal(theirs(tmp_path / "out"), theirs(folder))


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize("change", [another_head, same, other_name])
def test_through_orbax_and_back(tiny_model, tmp_path, change):
    folder = folder_of(tiny_model, tmp_path / "model", change)
    convert.main(["--source", str(folder), "--target", str(tmp_path / "orbax")])
    convert.main(["--source", str(tmp_path / "orbax"), "--target", str(tmp_path / "back")])
    np.testing.assert_array_equal(theirs(tmp_path / "back"), theirs(folder))


def test_a_head_of_another_shape_is_refused(tiny_model, tmp_path):
    def cut(found):
        found[HEAD] = found[EMBEDDING][:-1].clone()

    folder = folder_of(tiny_model, tmp_path / "model", cut)
    with pytest.warns(UserWarning), pytest.raises(UserError, match=r"wrong shape: lm_head.weight is \[263, 64\]"):
        hf.load_params(folder)


def test_a_folder_without_weights_has_a_config(tmp_path):
    config = ModelConfig(97, 64, 96, 3, 4, 2, tie_word_embeddings=True)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert hf.load_config(tmp_path) == config


def test_a_reward_model_has_no_use_for_a_head(tmp_path):
    tiny = tiny_reward("Qwen2ForSequenceClassification", tie_word_embeddings=True)
    tiny.torch_model.save_pretrained(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    another_head(found)
    save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, _, params = hf_reward.load_params(tmp_path)
    assert "lm_head" not in params
    jax.tree.map(np.testing.assert_array_equal, params, tiny.params)


@pytest.mark.parametrize(("dtype", "differs"), [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)])
def test_stored_frequencies_are_compared(tiny_model, tmp_path, dtype, differs):
    model = tiny_model(rope_theta=1e6)
    model.torch_model.save_pretrained(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    theta = 1e4 if differs else 1e6
    frequencies = (1 / theta ** (torch.arange(0, 16, 2) / 16)).to(dtype)
    found["model.layers.1.self_attn.rotary_emb.inv_freq"] = frequencies
    save_file(found, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, params = hf.load_params(tmp_path, dtype=jnp.float32)
    assert ["inv_freq contains frequencies other than" in str(w.message) for w in told] == [True] * differs
    jax.tree.map(np.testing.assert_array_equal, params, model.params)
