"""Every option of every command says what it does, in a sentence of its own."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from tyro._docstrings import get_field_docstring

from s1_jax.config import EvaluateConfig, GradeConfig, ModelSource, TrainConfig
from s1_jax.config.convert import ConvertConfig
from s1_jax.config.curate import CurateConfig
from s1_jax.config.generate import GenerateConfig
from s1_jax.config.lm_eval import HarnessConfig, KeywordConfig
from s1_jax.config.plan import DecodePlanConfig, PlanConfig
from s1_jax.config.serve import ServeConfig
from s1_jax.runtime.cli import lines_of_texts_joined, option_names, parse

COMMANDS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "serve": ServeConfig,
    "grade": GradeConfig,
    "plan": PlanConfig,
    "plan of a sweep": DecodePlanConfig,
    "curate": CurateConfig,
    "convert": ConvertConfig,
    "lm_eval --model_args": HarnessConfig,
    "lm_eval --gen_kwargs": KeywordConfig,
}
SHORTEST = 20  # characters


def texts_of(cls, prefix=""):
    """(option, text) for each field of a class and of the sections in it, whose text is their class's."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, section = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(section):
            yield name, section.__doc__
            yield from texts_of(section, f"{name}.")
        else:
            with lines_of_texts_joined():  # tyro keeps what it has read once
                yield name, get_field_docstring(cls, field.name, ())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_text(command):
    for option, text in texts_of(COMMANDS[command]):
        said = " ".join((text or "").split())
        assert len(said) >= SHORTEST, (option, said)
        assert (said.rstrip("\"'").endswith(".") and said[0] in "`") or said[0].isupper(), (option, said)
        assert not said.lower().startswith(("of ", "as ", "which ")), (option, said)


@pytest.mark.parametrize("command", [name for name in COMMANDS if "lm_eval" not in name])
def test_help_shows_the_texts_as_paragraphs(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        parse(COMMANDS[command], ["--help"], "python -m s1_jax.command")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    flat = " ".join(said.replace("│", " ").split())
    for option, text in texts_of(COMMANDS[command]):
        if option.split(".")[-1] == "extra" or f"--{option.replace('_', '-')} " not in flat:
            continue  # set in config files only, or a section
        assert " ".join(text.split()) in flat, option
    assert len(option_names(COMMANDS[command])) > 2


def test_commands_that_decode_have_no_option_of_training_alone():
    for command in ("evaluate", "generate", "plan of a sweep"):
        assert "--model.path" in option_names(COMMANDS[command])
        assert "--model.remat" not in option_names(COMMANDS[command])
    assert "--model.remat" in option_names(TrainConfig)
    config = EvaluateConfig(model=ModelSource("m", "bfloat16", remat="none"))
    assert config == EvaluateConfig(model=ModelSource("m", "bfloat16")) and not hasattr(config.model, "remat")
    assert parse(EvaluateConfig, ["--model.dtype", "float32"], "evaluate", default=config).model.path == "m"
    assert TrainConfig(model=ModelSource("m", remat="none")).model.remat == "none"
