"""Hugging Face checkpoints: what comes in goes out byte for byte, and everything that is wrong is said at once."""

import copy
import json
import shlex
import struct
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from s1_jax.checkpoints import folder as folder_module
from s1_jax.checkpoints import hf
from s1_jax.config import MeshConfig, StoredConfig
from s1_jax.errors import UserError
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, TRAIN_RULES, Layout, assert_sharded, make_mesh
from tests.model.test_stored_weights import upright
from tests.reference import FAMILIES

TINY_BASE = Path(__file__).resolve().parents[2] / "s1_jax" / "assets" / "tiny_base"
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NEW_TOKENS = 12
SMALL_SHARD_BYTES = 60_000  # several files from a tiny model
SAFE_NAMES = ("model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json", "merges.txt")
SHAPES = {"vocab_size": 96}  # divides over every mesh below


def tensors(folder):
    """Every tensor of a checkpoint, through the safetensors library."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def greedy(folder):
    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    prompt = torch.arange(1, 7)[None]
    return model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None)


def rewrite(folder, change):
    """Changes the tensors of a single-file checkpoint."""
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def raw_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def source(tiny_model, tmp_path):
    """A float32 checkpoint written by transformers, to be spoiled."""
    tiny_model(**SHAPES).torch_model.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def layout(rules=TRAIN_RULES, **mesh):
    return Layout(make_mesh(MeshConfig(**mesh)), rules)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize(
    ("changes", "sharded"),
    [({"tie_word_embeddings": True}, False), ({}, True), *((changes, False) for changes in FAMILIES.values())],
    ids=["tied", "sharded", *FAMILIES],
)
def test_round_trip_is_byte_equal_and_transformers_agrees(tiny_model, tmp_path, monkeypatch, dtype, changes, sharded):
    tiny = tiny_model(**changes)
    model = copy.deepcopy(tiny.torch_model).to(TORCH_DTYPES[dtype])
    model.save_pretrained(tmp_path / "in", max_shard_size=SMALL_SHARD_BYTES if sharded else "1GB")
    if sharded:
        monkeypatch.setattr(hf, "SHARD_BYTES", SMALL_SHARD_BYTES)

    config, params = hf.load_params(tmp_path / "in")
    hf.save_params(tmp_path / "out", config, params)

    assert config == tiny.config
    expected = jax.tree.map(lambda x: x.astype(dtype), tiny.params)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, expected)
    before, after = tensors(tmp_path / "in"), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8))
    assert (tmp_path / "out" / hf.INDEX).exists() == (tmp_path / "in" / hf.INDEX).exists() == sharded
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == TORCH_DTYPES[dtype]
    assert torch.equal(greedy(tmp_path / "in"), greedy(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == dtype  # transformers 5 and 4


def test_dtype_is_cast_on_the_way_in_and_out(source, tmp_path):
    config, exact = hf.load_params(source)
    _, rounded = hf.load_params(source, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, rounded, jax.tree.map(lambda x: x.astype(jnp.bfloat16), exact))
    hf.save_params(tmp_path / "out", config, exact, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, hf.load_params(tmp_path / "out")[1], rounded)


def test_for_decoding_on_one_cpu_kernels_stay_as_they_are_stored(tiny_model, source):
    tiny = tiny_model(**SHAPES)
    _, params = hf.load_for_decoding(source, StoredConfig(), jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, upright(params), unstack(tiny.params))
    mlp, stored = params["layers"][1]["mlp"], tiny.torch_model.model.layers[1].mlp
    np.testing.assert_array_equal(mlp["up_proj"]["kernel"].values, stored.up_proj.weight.detach().numpy())


@pytest.mark.parametrize(
    ("rules", "mesh"),
    [(TRAIN_RULES, {"fsdp": 8}), (TRAIN_RULES, {"fsdp": 4, "tensor": 2}), (DECODE_RULES, {"fsdp": 4, "tensor": 2})],
    ids=["8x1", "4x2", "4x2 decoding"],
)
def test_tensors_go_straight_into_sharded_arrays(tiny_model, source, tmp_path, rules, mesh):
    tiny = tiny_model(**SHAPES)
    place = layout(rules, **mesh)
    config, params = hf.load_params(source, layout=place)
    assert_sharded(params, place.tree(param_axes(config), params))
    jax.tree.map(np.testing.assert_array_equal, params, tiny.params)
    _, apart = hf.load_params(source, layout=place, stacked=False)
    assert_sharded(apart, jax.tree.map(lambda x: x.sharding, unstack(params)))
    jax.tree.map(np.testing.assert_array_equal, apart, unstack(params))
    _, decoded = hf.load_for_decoding(source, StoredConfig(), jnp.float32, place)
    jax.tree.map(np.testing.assert_array_equal, decoded, unstack(params))
    hf.save_params(tmp_path / "out", config, params)
    other = layout(TRAIN_RULES, fsdp=2, tensor=2, data=2)
    jax.tree.map(np.testing.assert_array_equal, hf.load_params(tmp_path / "out", layout=other)[1], tiny.params)


def test_misaligned_data_is_read(tiny_model, source):
    path = source / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    path.write_bytes(struct.pack("<Q", length + 1) + data[8 : 8 + length] + b" " + data[8 + length :])
    jax.tree.map(np.testing.assert_array_equal, hf.load_params(source)[1], tiny_model(**SHAPES).params)


def test_every_problem_is_raised_at_once(source):
    def spoil(found):
        del found["model.norm.weight"]
        found["model.layers.0.mlp.extra.weight"] = torch.zeros(3)
        found["model.layers.1.mlp.up_proj.weight"] = torch.zeros(5, 7)
        found["model.layers.2.self_attn.q_proj.bias"] = torch.zeros(64, dtype=torch.int64)
        first = dict(list(found.items())[:2])
        save_file(first, source / "second.safetensors")

    rewrite(source, spoil)
    twice = list(load_file(source / "second.safetensors"))
    (source / "model.safetensors").rename(source / "first.safetensors")
    files = ("first.safetensors", "second.safetensors")
    weight_map = {f"{name} of {file}": file for file in files for name in load_file(source / file)}
    (source / hf.INDEX).write_text(json.dumps({"weight_map": weight_map}))

    with pytest.raises(UserError) as raised:
        hf.load_params(source)
    said = str(raised.value)
    assert "missing: model.norm.weight" in said
    assert "unexpected: model.layers.0.mlp.extra.weight" in said
    assert all(name in said.split("duplicate: ")[1].split(" | ")[0] for name in twice)
    assert "wrong shape: model.layers.1.mlp.up_proj.weight is [5, 7], not [96, 64]" in said
    assert "wrong dtype: model.layers.2.self_attn.q_proj.bias is I64, not F32, BF16, F16" in said
    assert "\n" not in said


def test_many_problems_of_a_kind_are_counted(source):
    rewrite(source, lambda found: [found.pop(name) for name in list(found) if "mlp" in name])
    with pytest.raises(UserError, match=r"missing: (\S+, ){3}\S+ and 5 more"):
        hf.load_params(source)


def test_layers_of_several_types_need_a_dtype(tiny_model, source):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(source, lambda found: found.update({name: found[name].half()}))
    with pytest.raises(UserError, match=r"up_proj.kernel differs over layers \(F16, F32\); ask for one dtype"):
        hf.load_params(source)
    _, params = hf.load_params(source, dtype=jnp.float32)
    expected = tiny_model(**SHAPES).params["layers"]["mlp"]["up_proj"]["kernel"]
    expected = expected.at[1].set(expected[1].astype(jnp.float16).astype(jnp.float32))
    np.testing.assert_array_equal(params["layers"]["mlp"]["up_proj"]["kernel"], expected)


def test_tensors_that_follow_from_the_rest_are_ignored(tiny_model, tmp_path):
    tiny_model(tie_word_embeddings=True).torch_model.save_pretrained(tmp_path)

    def add(found):
        found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
        found["model.layers.0.self_attn.rotary_emb.inv_freq"] = 1 / 1e4 ** (torch.arange(0, 16, 2) / 16)

    rewrite(tmp_path, add)
    assert "lm_head" not in hf.load_params(tmp_path)[1]


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_index_that_points_outside_is_refused(source, name):
    (source / "model.safetensors").rename(source.parent / "model.safetensors")
    (source / hf.INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(UserError, match=f"'{name}' lies outside the folder"):
        hf.load_params(source)


def test_links_into_a_blob_store_are_followed(tiny_model, source):
    """The hub's cache keeps files as links to blobs outside the snapshot."""
    blob = source.parent / "blob"
    (source / "model.safetensors").rename(blob)
    (source / "model.safetensors").symlink_to(blob)
    jax.tree.map(np.testing.assert_array_equal, hf.load_params(source)[1], tiny_model(**SHAPES).params)


def test_pickles_are_refused_with_the_command_that_converts_them(tiny_model, source):
    tiny = tiny_model(**SHAPES)
    (source / "model.safetensors").unlink()
    torch.save(tiny.torch_model.state_dict(), source / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled") as raised:
        hf.load_params(source)
    command = str(raised.value).split("convert them once: ")[1]
    program, flag, code = shlex.split(command)
    assert (program, flag) == ("python", "-c")
    exec(code, {})
    jax.tree.map(np.testing.assert_array_equal, hf.load_params(source)[1], tiny.params)


def broken_folders():
    """Name -> (what spoils the folder, what is said)."""

    def cut(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    def pointer(folder):
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")

    def twice_in_header(folder):
        entry = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
        raw_file(folder / "model.safetensors", f'{{"a": {entry}, "a": {entry}}}'.encode(), bytes(4))

    def lying_offsets(folder):
        raw_file(folder / "model.safetensors", {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(8))

    def twice_in_index(folder):
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / hf.INDEX).write_text('{"weight_map": {"x": "a.safetensors", "x": "a.safetensors"}}')

    def missing_file(folder):
        (folder / "model.safetensors").unlink()
        (folder / hf.INDEX).write_text('{"weight_map": {"x": "a.safetensors"}}')

    return {
        "cut short": (cut, "not a whole safetensors file"),
        "LFS pointer": (pointer, "Git LFS pointer"),
        "name twice in header": (twice_in_header, "is damaged: the key 'a' occurs twice"),
        "lying offsets": (lying_offsets, "data of a does not fit"),
        "no header": (lambda folder: raw_file(folder / "model.safetensors", b"[]"), "not a whole safetensors file"),
        "empty file": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "not a whole safetensors file"),
        "name twice in index": (twice_in_index, "the key 'x' occurs twice"),
        "file missing": (missing_file, "a.safetensors cannot be read"),
        "index of nothing": (
            lambda folder: [(folder / "model.safetensors").unlink(), (folder / hf.INDEX).write_text("[]")],
            "a list where an object is needed",
        ),
        "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has neither model.safetensors nor"),
        "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        "config cut": (
            lambda folder: (folder / "config.json").write_text('{"vocab'),
            "config.json: not JSON",
        ),
    }


@pytest.mark.parametrize("name", broken_folders())
def test_broken_folder_is_one_clear_line(source, name):
    spoil, said = broken_folders()[name]
    spoil(source)
    with pytest.raises(UserError, match=said) as raised:
        hf.load_params(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "none", "a/b/c", "~/none"])
def test_missing_folder(path):
    with pytest.raises(UserError, match="no folder .*; a model is a folder with"):
        hf.load_params(path)


def test_file_for_a_folder(source):
    with pytest.raises(UserError, match="is a file"):
        hf.load_params(source / "model.safetensors")


def test_hub_id_out_of_reach_is_one_line():
    with pytest.raises(UserError, match="no folder someone/some-model here, and the model hub did not") as raised:
        hf.load_params("someone/some-model")
    assert "\n" not in str(raised.value)


def test_hub_id_is_downloaded_without_pickles(tiny_model, source, monkeypatch):
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(source)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    _, params = hf.load_params("someone/some-model")
    jax.tree.map(np.testing.assert_array_equal, params, tiny_model(**SHAPES).params)
    names = [*SAFE_NAMES, "pytorch_model.bin", "x.pt", "x.py"]
    wanted = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=asked["someone/some-model"])
    assert list(wanted) == list(SAFE_NAMES)


def test_a_tokenizer_on_the_hub_is_downloaded_without_weights(monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.extend(allow_patterns)
        return str(TINY_BASE)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hf.load_tokenizer("someone/some-model").get_vocab() == hf.load_tokenizer(TINY_BASE).get_vocab()
    wanted = list(huggingface_hub.utils.filter_repo_objects(SAFE_NAMES, allow_patterns=asked))
    assert "tokenizer.json" in wanted and not any(name.endswith(".safetensors") for name in wanted)


def test_export_carries_tokenizer_generation_config_and_special_ids(source, tmp_path):
    config, params = hf.load_params(TINY_BASE)
    (source / "generation_config.json").write_text('{"eos_token_id": 2}')
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((TINY_BASE / name).read_bytes())
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(values | {"eos_token_id": 2}))
    hf.save_params(tmp_path / "out", config, params, tokenizer_from=source)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 2
    assert hf.load_tokenizer(tmp_path / "out").get_vocab() == hf.load_tokenizer(TINY_BASE).get_vocab()


def test_no_tokenizer_is_a_clear_error(source):
    with pytest.raises(UserError, match="has no tokenizer"):
        hf.load_tokenizer(source)


def test_failed_export_leaves_what_was_there(tiny_model, source, monkeypatch):
    tiny = tiny_model(**SHAPES)
    before = {path.name: path.read_bytes() for path in source.iterdir()}

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(hf, "write", fail)
        hf.save_params(source, tiny.config, tiny.params)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert [path.name for path in source.parent.iterdir()] == ["source"]

    hf.save_params(source, tiny.config, jax.tree.map(jnp.zeros_like, tiny.params))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(hf.load_params(source)[1]))
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_kill_between_files_leaves_nothing_under_the_name(tiny_model, tmp_path, monkeypatch):
    """What a killed export leaves (no clean-up runs) is swept away by the next one."""
    tiny = tiny_model(**SHAPES)

    def die(path, *args):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hf, "write", die)
        patch.setattr(folder_module.shutil, "rmtree", lambda *args, **kwargs: None)
        hf.save_params(tmp_path / "out", tiny.config, tiny.params)
    assert not (tmp_path / "out").exists() and any(tmp_path.iterdir())
    hf.save_params(tmp_path / "out", tiny.config, tiny.params)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_does_not_replace_a_folder_of_other_things(tiny_model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    tiny = tiny_model(**SHAPES)
    with pytest.raises(UserError, match="is not a checkpoint"):
        hf.save_params(tmp_path, tiny.config, tiny.params)
    assert (tmp_path / "notes.txt").exists()
