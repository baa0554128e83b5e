"""Shipped configs by name, from a clone and from an installed package."""

from __future__ import annotations

import pytest

from s1_jax import plan
from s1_jax.config import EvaluateConfig, TrainConfig, shipped
from s1_jax.errors import UserError
from s1_jax.runtime.cli import load_config, parse_with_file
from tests.runs import PROJECT

MINE = "from s1_jax.config import TrainConfig\ndef get_config():\n    return TrainConfig(run_dir='mine')\n"


def test_every_shipped_config_is_found_by_its_name_wherever_the_command_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted((PROJECT / "configs").glob("*.py"))
    assert shipped.names() == [file.stem for file in files] and len(files) > 20
    for file in files:
        assert load_config(file.stem) == load_config(file)
    config = parse_with_file(TrainConfig, ["quickstart_sft", "--train.epochs", "1"], "train")
    assert config.train.epochs == 1 and config.run_dir == "runs/quickstart/sft"
    assert plan.options(["sweep_32b_v6e8", "--topology", "v6e-8"]).batch_size == 17


def test_a_file_comes_before_a_name_and_a_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart_sft").mkdir()
    assert load_config("quickstart_sft").run_dir == "runs/quickstart/sft"
    (tmp_path / "quickstart_sweep").write_text(MINE)
    assert load_config("quickstart_sweep").run_dir == "mine"


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("quickstart_stf", r"did you mean quickstart_sft, quickstart_\w+ or quickstart_\w+\?$"),
        ("configs/quickstart_sweep.py", r"did you mean quickstart_sweep\?$"),
        ("s1_32b_v5p16", "did you mean s1_32b_v5p"),
        ("xyzzy", f"the shipped configs are {', '.join(shipped.names())}$"),
        ("../configs/../../etc/passwd", "the shipped configs are"),
    ],
)
def test_an_unknown_name_is_told_with_those_near_it(argument, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"no config file {argument}, and no shipped config of that name; {advice}"):
        parse_with_file(TrainConfig, [argument], "train")


def test_a_config_of_another_command_is_refused_by_its_name():
    with pytest.raises(UserError, match="quickstart_sft gives a TrainConfig; evaluate needs a EvaluateConfig"):
        parse_with_file(EvaluateConfig, ["quickstart_sft"], "evaluate")


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    (tmp_path / "s1_jax" / "configs").mkdir(parents=True)
    (tmp_path / "s1_jax" / "configs" / "only.py").write_text(MINE)
    (tmp_path / "configs").mkdir()  # of something else in site-packages
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "s1_jax" / "config" / "shipped.py"))
    assert shipped.names() == ["only"] and load_config("only").run_dir == "mine"
