"""What the tests of planning share: small programs compiled once by the real TPU compiler."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from s1_jax.planning.hlo import Module, parse

PROJECT = Path(__file__).resolve().parents[2]
NEEDS_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='needs the TPU compiler: pip install "jax[tpu]"'
)
PATIENCE = 900  # seconds: other processes may have the compiler


class Compiled(NamedTuple):
    """The programs of programs.py: their text read, XLA's own FLOP counts, coordinates of the mesh's devices."""

    modules: dict[str, Module]
    costs: dict[str, float]
    coords: list[list[int]]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('needs the TPU compiler: pip install "jax[tpu]"')
    folder = tmp_path_factory.mktemp("programs")
    script = Path(__file__).parent / "programs.py"
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    subprocess.run([sys.executable, str(script), str(folder)], env=env, check=True, timeout=PATIENCE)
    modules = {path.stem: parse(path.read_text()) for path in folder.glob("*.hlo")}
    return Compiled(modules, *(json.loads((folder / name).read_text()) for name in ("costs.json", "devices.json")))
