"""Tokenizers as their own files have them, and one line on those that cannot be read."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from s1_jax import generate
from s1_jax.checkpoints import hf
from s1_jax.errors import UserError
from s1_jax.runtime.cli import run_main

TINY_BASE = Path(__file__).resolve().parents[2] / "s1_jax" / "assets" / "tiny_base"
TEXT = (
    "Don't  add 12345 + 67,890.5!\n\n  It's   x² ﬁne, CAFÉ and cafe\u0301 日本 🙂\t<|im_start|>think\n12 ok<|im_end|>\n"
    "<|endoftext|> we'll\r\nend  "
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("1", "2"), ("12", "3"), ("6", "7"), ("Ġ", "Ġ"), ("Ġ", "1"), ("Ġ1", "2"), ("'", "t"), ("Ċ", "Ċ"), ("d", "d")]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"


def byte_level(pre_tokenizer, normalizer=None, post_processor=None):
    vocab = {piece: i for i, piece in enumerate([*LETTERS, *dict.fromkeys("".join(pair) for pair in MERGES)])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    made.pre_tokenizer, made.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        made.normalizer = normalizer
    if post_processor:
        made.post_processor = post_processor
    return made


def llama_like():
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz123456789", "12", "▁1"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("1", "2"), ("▁", "1")]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def unigram():
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("12", -3.0), ("345", -3.5), *((c, -5.0) for c in "abcdefghijklmnop123456")]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made


def words():
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "add": 1, "12345": 2, "ok": 3, "+": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def split(regex):
    isolated = pre_tokenizers.Split(Regex(regex), "isolated")
    return pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
OWN = {
    "gpt2": lambda: byte_level(GPT2),
    "gpt2 with a space before": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "whole texts": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "llama3": lambda: byte_level(split(LLAMA3)),
    "digits together": lambda: byte_level(split(r"\d+|\D+")),
    "lower case": lambda: byte_level(GPT2, normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "bos": lambda: byte_level(
        GPT2, None, processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)])
    ),
    "llama": llama_like,
    "unigram": unigram,
    "words": words,
}


def folder_of(tokenizer, folder, settings=None):
    """A model's folder of type qwen2 with this tokenizer, as a list of bytes from tokenizer.json alone."""
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"} if settings is None else settings
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    shutil.copy(TINY_BASE / "config.json", folder)
    return folder


@pytest.mark.parametrize("name", OWN)
def test_a_file_is_read_as_it_is(tmp_path, name):
    own = OWN[name]()
    ours = hf.load_tokenizer(folder_of(own, tmp_path / "model"))
    for text in (TEXT, *TEXT.split(" "), TEXT.replace("\n", " \n "), ""):
        ids = own.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.backend_tokenizer.encode(text).ids == own.encode(text).ids
        assert ours.decode(ids, skip_special_tokens=False) == own.decode(ids, skip_special_tokens=False)
    assert len(ours) == own.get_vocab_size() and ours.eos_token == "<|im_end|>"


def test_the_class_of_the_model_type_would_have_read_another(tmp_path):
    """What the test above is for: transformers puts Qwen2's own parts in place of the file's."""
    folder = folder_of(byte_level(GPT2), tmp_path / "model")
    assert AutoTokenizer.from_pretrained(folder).encode("12345") != hf.load_tokenizer(folder).encode("12345")


def test_qwens_own_is_as_transformers_has_it(tmp_path, shared_data):
    shutil.copytree(shared_data / "qwen25_tokenizer", tmp_path / "model")
    shutil.copy(TINY_BASE / "config.json", tmp_path / "model")
    ours, theirs = hf.load_tokenizer(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")
    assert ours.encode(TEXT) == theirs.encode(TEXT)
    assert (len(ours), ours.special_tokens_map) == (len(theirs), theirs.special_tokens_map)
    assert (ours.bos_token, ours.model_max_length) == (theirs.bos_token, theirs.model_max_length)
    chat = [{"role": "user", "content": TEXT}]
    forms = [t.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for t in (ours, theirs)]
    assert forms[0] == forms[1]


def test_cut_and_filled_up_texts_are_whole_all_the_same(tmp_path):
    """A tokenizer.json that was saved with truncation or padding on cuts no example."""
    own = byte_level(GPT2)
    folder = folder_of(own, tmp_path / "model")
    expected = own.encode(TEXT).ids
    own.enable_truncation(4)
    own.enable_padding(length=300)
    own.save(str(folder / "tokenizer.json"))
    ours = hf.load_tokenizer(folder)
    assert ours.encode(TEXT) == ours.backend_tokenizer.encode(TEXT).ids == expected


def test_vocabulary_and_merges_alone_are_qwens(tmp_path):
    folder = folder_of(byte_level(GPT2), tmp_path / "model")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]) + "\n")
    (folder / "tokenizer.json").unlink()
    assert len(hf.load_tokenizer(folder).encode("123")) == 3  # each digit by itself


def test_the_end_of_text_ends_where_nothing_else_is_named(tmp_path):
    ours = hf.load_tokenizer(folder_of(byte_level(GPT2), tmp_path / "one", settings={}))
    assert ours.eos_token == ours.pad_token == "<|endoftext|>"
    ours = hf.load_tokenizer(folder_of(byte_level(GPT2), tmp_path / "two", settings={"eos_token": None}))
    assert ours.eos_token is None and ours.pad_token == "<|endoftext|>"


def whole(change):
    def write(folder):
        values = json.loads((folder / "tokenizer.json").read_text())
        change(values)
        (folder / "tokenizer.json").write_text(json.dumps(values))

    return write


def text_of(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def half(name):
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def settings(**changes):
    return text_of("tokenizer_config.json", json.dumps(changes))


UNCLOSED = {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
BROKEN = {
    "another version": (whole(lambda v: v["model"].update(type="BPE2")), "tokenizer.json"),
    "untagged": (whole(lambda v: v.update(pre_tokenizer={"type": "Later"})), "tokenizer.json"),
    "version": (whole(lambda v: v.update(version="9.0")), "tokenizer.json"),
    "merges": (whole(lambda v: v["model"].update(merges=["no such"])), "tokenizer.json"),
    "merge of one": (whole(lambda v: v["model"].update(merges=[["a"]])), "tokenizer.json"),
    "merges type": (whole(lambda v: v["model"].update(merges=7)), "tokenizer.json"),
    "vocabulary type": (whole(lambda v: v["model"].update(vocab=[1, 2])), "tokenizer.json"),
    "vocabulary ids": (whole(lambda v: v["model"].update(vocab={"a": "x"})), "tokenizer.json"),
    "no vocabulary": (whole(lambda v: v["model"].pop("vocab")), "tokenizer.json"),
    "no model": (whole(lambda v: v.pop("model")), "tokenizer.json"),
    "added tokens": (whole(lambda v: v.update(added_tokens=[{"id": "x"}])), "tokenizer.json"),
    "regex": (
        whole(lambda v: v.update(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        "json",
    ),
    "cut": (half("tokenizer.json"), "tokenizer.json"),
    "a list": (text_of("tokenizer.json", "[]"), "tokenizer.json: a list where"),
    "a pointer": (text_of("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"), "tokenizer.json"),
    "empty": (text_of("tokenizer.json", ""), "tokenizer.json"),
    "bytes": (text_of("tokenizer.json", b"\xff\xfe\x00"), "tokenizer.json"),
    "missing": (lambda folder: (folder / "tokenizer.json").unlink(), "no vocabulary"),
    "settings: list": (text_of("tokenizer_config.json", "[]"), "tokenizer_config.json: a list where"),
    "settings: null": (text_of("tokenizer_config.json", "null"), "tokenizer_config.json: a NoneType where"),
    "settings: cut": (half("tokenizer_config.json"), "tokenizer_config.json"),
    "settings: missing": (lambda folder: (folder / "tokenizer_config.json").unlink(), "no tokenizer"),
    "settings: end": (settings(eos_token=5), "tokenizer_config.json"),
    "settings: end's type": (settings(eos_token=["<|im_end|>"]), "tokenizer_config.json"),
    "settings: added": (settings(added_tokens_decoder=[1]), "tokenizer_config.json"),
    "settings: added's id": (settings(added_tokens_decoder={"x": {"content": "a"}}), "tokenizer_config.json"),
    "settings: length": (settings(model_max_length="long"), "tokenizer_config.json"),
    "settings: template": (settings(chat_template=5), "tokenizer_config.json"),
    "special tokens": (text_of("special_tokens_map.json", "[]"), "special_tokens_map.json: a list where"),
    "special tokens cut": (text_of("special_tokens_map.json", "{"), "special_tokens_map.json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_one_line_with_folder_and_file(tmp_path, name):
    spoil, words = BROKEN[name]
    folder = tmp_path / "model"
    shutil.copytree(TINY_BASE, folder)
    spoil(folder)
    with pytest.raises(UserError) as error:
        hf.load_tokenizer(folder)
    said = str(error.value)
    assert str(folder) in said and words in said and "\n" not in said


def test_a_command_ends_with_code_2(tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(TINY_BASE, folder)
    BROKEN["untagged"][0](folder)
    with pytest.raises(SystemExit) as end:
        run_main(lambda: generate.main(["--model.path", str(folder), "--prompt", "1 + 1"]))
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1 and str(folder) in said and "tokenizer.json" in said


def test_no_code_of_a_models_folder_runs(tmp_path):
    """trust_remote_code is false, whatever the folder asks for."""
    folder = folder_of(
        byte_level(GPT2), tmp_path / "model", {"auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    )
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    hf.load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_is_code_is_refused(tmp_path, monkeypatch):
    """Without tokenizer.json transformers would ask on standard input whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    settings = {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}, "tokenizer_class": "Mine"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"tokenizer_config.json: the tokenizer is Python code .*\(auto_map\)"):
        hf.load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
