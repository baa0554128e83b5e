"""Compiled programs are kept for the next process, by the API as by the commands, and users' own settings stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import pytest

from s1_jax.runtime.compilation import (
    CACHE_BYTES,
    SHORTEST_KEPT,
    CompilationWatch,
    keep_compiled_programs,
    power_of_two,
)
from tests.tokenizer import byte_tokenizer

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_compilation_cache_max_size",
)
PROGRAM = """
import json, sys
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
import s1_jax
model = s1_jax.load_model(sys.argv[1])
model.logits([[1, 2, 3]])
model.generate([[1, 2, 3]], {"max_thinking_tokens": 2}, max_answer_tokens=2, max_model_len=64, batch_size=1)
counts = [found.count("/jax/compilation_cache/" + name) for name in ("cache_hits", "cache_misses")]
print(json.dumps(counts))
"""


@pytest.fixture
def untouched(monkeypatch):
    """JAX's options as they are in a new process, and again as they were before once the test is over."""
    for name in [name for name in os.environ if name.startswith("JAX_") and "CACHE" in name]:
        monkeypatch.delenv(name)
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name, value in zip(OPTIONS, (None, True, 1.0, -1), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def kept():
    keep_compiled_programs()
    return tuple(getattr(jax.config, name) for name in OPTIONS)


@pytest.mark.usefixtures("untouched")
def test_programs_are_kept_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = tmp_path / ".cache" / "s1_jax" / "compiled"
    assert kept() == (str(folder), True, SHORTEST_KEPT, CACHE_BYTES) and list(folder.iterdir()) == []
    assert kept() == (str(folder), True, SHORTEST_KEPT, CACHE_BYTES), "twice is as good as once"


@pytest.mark.usefixtures("untouched")
def test_another_cache_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert kept()[0] == str(tmp_path / "caches" / "s1_jax" / "compiled")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("options", "variables", "wanted"),
    [
        ({"jax_compilation_cache_dir": "mine"}, {}, ("mine", True, 1.0, -1)),
        ({"jax_enable_compilation_cache": False}, {}, (None, False, 1.0, -1)),
        ({"jax_persistent_cache_min_compile_time_secs": 7.0}, {}, ("", True, 7.0, CACHE_BYTES)),
        ({"jax_compilation_cache_max_size": 0}, {}, ("", True, SHORTEST_KEPT, 0)),
        ({}, {"JAX_COMPILATION_CACHE_DIR": "mine"}, (None, True, 1.0, -1)),  # which JAX reads by itself, at its import
        ({}, {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1.0"}, ("", True, 1.0, CACHE_BYTES)),
        ({}, {"JAX_COMPILATION_CACHE_MAX_SIZE": "-1"}, ("", True, SHORTEST_KEPT, -1)),
    ],
)
def test_what_the_user_has_set_stays(tmp_path, monkeypatch, options, variables, wanted):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in options.items():
        jax.config.update(name, value)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    ours = str(tmp_path / "s1_jax" / "compiled")
    assert kept() == (ours if wanted[0] == "" else wanted[0], *wanted[1:])


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("home", ["/proc", "/dev/null", "file"])
def test_a_home_that_cannot_be_written_keeps_nothing_and_breaks_nothing(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kept() == (None, True, 1.0, -1)


@pytest.mark.slow
def test_the_api_of_another_process_compiles_nothing_anew(tiny_model, tmp_path):
    """Counted, in two processes that know of no cache but the API's own."""
    made = tiny_model(1, vocab_size=264, max_position_embeddings=128)
    made.torch_model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    env = {name: text for name, text in os.environ.items() if not (name.startswith("JAX_") and "CACHE" in name)}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "caches"), "JAX_PLATFORMS": "cpu"}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # even what this small model takes

    def counts():
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model")]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        return json.loads(done.stdout)

    (hits, misses), (found, compiled) = counts(), counts()
    assert misses > 5 and (found, compiled) == (hits + misses, 0)


def test_compilations_are_told_while_they_last_and_counted():
    seen = []
    with CompilationWatch(lambda: seen.append(watch.seconds)) as watch:
        double = jax.jit(lambda x: 2 * x + 0.5)
        for x in (1.0, 2.0, 3.0):
            double(x)
        assert watch.num_compiled == 1 and watch.seconds is None
        assert seen and all(seconds is not None for seconds in seen)
        with pytest.raises(ZeroDivisionError):
            jax.jit(lambda x: 1 / 0)(1.0)
        assert watch.seconds is None
    jax.jit(lambda x: 3 * x + 0.25)(1.0)
    assert watch.num_compiled == 1


def test_powers_of_two():
    assert [power_of_two(size) for size in (1, 2, 3, 4, 5, 8, 9, 1023)] == [1, 2, 4, 4, 8, 8, 16, 1024]
