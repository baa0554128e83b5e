"""scripts/quickstart_chat.sh, with a stand-in for Python: it trains once, and hands its arguments on to the server."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("scripts/quickstart_chat.sh", "scripts/_venv.sh", "pyproject.toml", "constraints.txt")
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) ;;
    "-m pip") echo "$*" >>pip ;;
    "-m s1_jax.quickstart")
        echo "$*" >>said
        mkdir -p runs/quickstart/sft/hf && touch runs/quickstart/sft/hf/model.safetensors
        ;;
    *) for word in "$@"; do echo "$word"; done >>said ;;
esac
"""
MODEL = ["--model.path", "runs/quickstart/sft/hf", "--served-model-name", "quickstart"]


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a virtual environment into which nothing has been installed yet."""
    for name in SCRIPTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def chat(checkout, *words):
    """What it says, and the lines of what was started."""
    (checkout / "said").unlink(missing_ok=True)
    done = subprocess.run(
        ["scripts/quickstart_chat.sh", *words], cwd=checkout, capture_output=True, text=True, check=True
    )
    return done.stderr, (checkout / "said").read_text().splitlines()


def test_it_trains_the_model_once_and_serves_it(checkout):
    said, started = chat(checkout)
    assert "There is no model in runs/quickstart/sft/hf yet" in said and "./scripts/quickstart.sh" in said
    assert started[0] == "-m s1_jax.quickstart --until train"
    assert started[1:7] == ["-m", "s1_jax.serve", *MODEL]
    asked = [line.rpartition(" ")[2] for line in (checkout / "pip").read_text().splitlines()]
    assert asked == [".", ".[serve]"]
    said, started = chat(checkout, "--port", "8001", "--example", "a question")
    assert said == "" and started[:2] == ["-m", "s1_jax.serve"]
    assert started[-4:] == ["--port", "8001", "--example", "a question"], "arguments come last, and so they win"
    assert len((checkout / "pip").read_text().splitlines()) == 2, "nothing is installed again"
