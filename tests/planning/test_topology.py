"""Names of slices, the figures of chips, and the compiler's lock."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from s1_jax.chips import CHIPS, GIB, chip_of
from s1_jax.errors import UserError
from s1_jax.planning import topology as topology_module
from s1_jax.planning.topology import SLICES, describe, parse_topology
from tests.planning.conftest import NEEDS_LIBTPU, PATIENCE, PROJECT


@pytest.mark.parametrize(
    "name,shape",
    [
        ("v5e:16x16", "v5e:16x16"),
        ("v5p:4x4x4", "v5p:4x4x4"),
        ("v6e:8x8", "v6e:8x8"),
        ("v5p-64", "v5p:2x4x4"),
        ("v5p-8", "v5p:2x2x1"),
        ("v5litepod-256", "v5e:16x16"),
        ("v5litepod-1", "v5e:1x1"),
        ("v5e-8", "v5e:2x4"),
        ("v6e-32", "v6e:4x8"),
        ("v6e-1", "v6e:1x1"),
    ],
)
def test_names(name, shape):
    assert str(parse_topology(name)) == shape


def test_v5p_names_count_tensorcores_and_the_others_chips():
    for name in SLICES:
        generation, _, number = name.partition("-")
        chips = 1
        for size in parse_topology(name).shape:
            chips *= size
        assert chips * (2 if generation == "v5p" else 1) == int(number)


@pytest.mark.parametrize("name", ["v5p-63", "v9z:2x2", "v5p", "", "a100-8"])
def test_an_unknown_name_lists_those_known(name):
    with pytest.raises(UserError, match=r"unknown topology .*v5e:16x16.*v6e-\{1,4,8"):
        parse_topology(name)


def test_a_shape_of_the_wrong_dimensions_is_refused():
    with pytest.raises(UserError, match="'v5p:4x4' has 2 axes; v5p has 3"):
        parse_topology("v5p:4x4")


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "jax\[tpu\]"') as error:
        describe(parse_topology("v5e-4"))
    assert "\n" not in str(error.value)


def test_the_table_of_chips_is_sane():
    kinds = [kind for chip in CHIPS for kind in chip.device_kinds]
    assert len(kinds) == len(set(kinds)) and chip_of("cpu") is None
    for chip in CHIPS:
        assert 1e14 < chip.peak_flops < 1e16
        if chip.torus:
            # a matmul of a few hundred tokens is bound by memory, one of a few thousand by the interconnect
            assert 100 < chip.peak_flops / chip.hbm_bandwidth < 1000
            assert 1000 < chip.peak_flops / (2 * chip.link_bandwidth) < 10000
        assert chip.hbm_bytes is None or 15 * GIB < chip.hbm_bytes < 96 * GIB


def test_wrap_around_links():
    v5p, v6e = chip_of("TPU v5"), chip_of("TPU v6 lite")
    assert v5p.wraps((4, 4, 4)) == v5p.wraps((4, 4, 8)) == (True, True, True)
    assert v5p.wraps((2, 4, 4)) == v5p.wraps((2, 2, 1)) == (False, False, False)
    assert v6e.wraps((8, 16)) == (False, True) and v6e.wraps((8, 8)) == (False, False)


HOLDER = """
import sys
from s1_jax.planning.topology import describe, parse_topology
print(len(describe(parse_topology("v6e-1"))), flush=True)
sys.stdin.readline()
"""


@NEEDS_LIBTPU
def test_the_compilers_lock_is_waited_for():
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    first = subprocess.Popen([sys.executable, "-c", HOLDER], **pipes)
    assert first.stdout.readline() == "1\n"
    waiter = HOLDER.replace('"v6e-1")', '"v5e-4"), lambda line: print(line, flush=True)')
    second = subprocess.Popen([sys.executable, "-c", waiter], **pipes)
    assert "waiting for it" in second.stdout.readline()
    first.communicate("\n", timeout=PATIENCE)
    out, _ = second.communicate("\n", timeout=PATIENCE)
    assert out.splitlines()[-1] == "4" and second.returncode == 0
