"""A fifth of the slow tests: the five are all of them, each once, and nothing else; none at all is a failure."""

import os
import subprocess
import sys

import pytest

from tests.fifths import FIFTHS
from tests.runs import PATIENCE, PROJECT

TESTS = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("i", range({slow}))
def test_slow(i): pass

def test_quick(): pass
"""


def collected(folder, *options):
    """Exit code and names of what pytest would run in a folder of its own, with the option and nothing of our suite."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "tests.fifths", "-o", "addopts="]
    done = subprocess.run(
        [*command, "-o", "markers=slow", "--rootdir", str(folder), *options, str(folder / "test_one.py")],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]


def test_five_fifths_are_every_slow_test_once(tmp_path):
    (tmp_path / "test_one.py").write_text(TESTS.format(slow=12))
    fifths = [collected(tmp_path, "-m", "slow", "--slow-fifth", str(k)) for k in range(FIFTHS)]
    assert [code for code, _ in fifths] == [0] * FIFTHS
    assert sorted(name for _, names in fifths for name in names) == sorted(f"test_slow[{i}]" for i in range(12))
    assert sorted(len(names) for _, names in fifths) == [2, 2, 2, 3, 3]
    assert len(collected(tmp_path)[1]) == 13  # without the option, all


@pytest.mark.parametrize(("fifth", "code"), [("4", 5), ("5", 4)])
def test_a_fifth_without_a_test_and_one_that_is_none_fail(fifth, code, tmp_path):
    (tmp_path / "test_one.py").write_text(TESTS.format(slow=4))
    assert collected(tmp_path, "--slow-fifth", fifth) == (code, [])
