"""docs/guides/tpu.md: its commands, run in their order as a new user would, and its figures."""

import ast
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from s1_jax.config import EvaluateConfig, TrainConfig
from s1_jax.config.serve import ServeConfig
from s1_jax.runtime.cli import load_config, parse_with_file
from tests.tpu.conftest import PATIENCE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "tpu.md").read_text()
CONFIGS = {"train": TrainConfig, "evaluate": EvaluateConfig, "serve": ServeConfig}
RUN = """
echo "$*" >> $TPU_STAND_IN/commands
case $* in *" --run-dir gs://"*) ;; *) exit 0 ;; esac
run_dir=$TPU_STAND_IN/gs/$(echo "$*" | sed 's,.*--run-dir gs://,,; s, .*,,')
mkdir -p $run_dir/checkpoints/315 $run_dir/hf
touch $run_dir/checkpoints/315/commit_success.txt
echo $HF_HOME > $run_dir/metrics.jsonl
touch $run_dir/hf/model.safetensors
"""


@pytest.fixture
def walked(cloud):
    """The cloud after all commands of the page."""
    cloud["run"] = RUN
    here = cloud.checkout / ".venv" / "bin"
    here.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stand_in_python"), here / "python")
    commands = "set -euo pipefail\n" + "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    commands = commands.replace("tpu.sh serve", f"tpu.sh serve --port {free_port()}")  # 8000 may be taken here
    commands = commands.replace("export TPU_NAME=s1-serve", "echo 1 >$TPU_STAND_IN/workers; export TPU_NAME=s1-serve")
    env = {key: value for key, value in cloud.env.items() if key not in ("TPU_PROJECT", "TPU_ZONE", "TPU_TYPE")}
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=cloud.checkout,
        env=env | {"WORKER": "-"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return cloud


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_every_command_of_the_page_works(walked, monkeypatch):
    cloud = walked
    monkeypatch.chdir(ROOT)
    for command in set(cloud["commands"].splitlines()):  # each of its options is one that the program has
        module, *argv = command.removeprefix("-m s1_jax.").split()
        if argv[0] != "--parity":
            parse_with_file(CONFIGS[module], argv, module)
    assert {line.split()[1] for line in cloud["commands"].splitlines()} == {f"s1_jax.{module}" for module in CONFIGS}
    for fetched in ("s1_32b", "sweep_32b"):
        assert (cloud.checkout / "runs" / fetched / "metrics.jsonl").read_text() == "/dev/shm/huggingface\n"
        assert not (cloud.checkout / "runs" / fetched / "hf").exists()
    # the dry run asked for nothing: one slice for each part, and none is left
    names = [(words[4], words[6]) for words in cloud.called("resources create")]
    types = {"s1-train": "v5p-64", "s1-sweep": "v6e-8", "s1-serve": "v6e-8"}
    assert names == [(name, f"--accelerator-type={kind}") for name, kind in types.items()]
    assert [len(cloud.called(f"resources delete {name}")) for name in types] == [1, 1, 1]
    assert not cloud.exists and "gs://my-s1-bucket" in str(cloud.called("storage rm"))


def test_the_figures_are_those_of_the_plan():
    tables = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "performance.md").read_text().splitlines()
        if re.match(r"\| config \| slice \| step |\| s1_32b_(v5p64|v6e64) .*\| real \|", line)
    ]
    head, *rows = tables
    assert len(rows) == 2
    for row in rows:
        plan = dict(zip(head, row, strict=True))
        minutes, chip_hours = plan["minutes"], plan["chip-hours"]
        chips = round(float(chip_hours) * 60 / float(minutes))
        assert f"| {plan['slice']} | {chips} | {minutes} | {chip_hours} |" in PAGE
    assert load_config(ROOT / "configs" / "s1_32b_v5p64.py").checkpoint.keep == 2 and "two are kept" in PAGE
    sweep = ast.get_docstring(ast.parse((ROOT / "configs" / "sweep_32b_v6e8.py").read_text()))
    assert "6 minutes, 0.8 chip-hours" in " ".join(sweep.split())  # one wave of rows; the page counts two
