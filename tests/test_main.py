"""The command `s1-jax`: what it says, what it starts, and that it hears signals at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib

import pytest

import s1_jax
from s1_jax.__main__ import COMMANDS
from tests.runs import PATIENCE, PROJECT
from tests.runtime.test_cli import SLOW_IMPORT

SCRIPT = "import sys; sys.argv[0] = '/somewhere/bin/s1-jax'; from s1_jax.__main__ import main; sys.exit(main())"
NO_JAX = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name in ("jax", "tyro", "transformers"):
            raise AssertionError(name + " is imported")

sys.meta_path.insert(0, Refuse())
"""


def s1_jax_command(*arguments, more=None, **kwargs):
    """The process of `s1-jax ARGUMENTS`, started as the script that pip installs starts it."""
    path = os.pathsep.join([*([str(more)] if more else []), str(PROJECT)])
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=path))
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], **pipes | kwargs)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_the_installed_script_is_this_main():
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"s1-jax": "s1_jax.__main__:main"}


def test_every_entry_point_is_a_command():
    modules = [path for path in (PROJECT / "s1_jax").glob("*.py") if "\n    run_main(main)" in path.read_text()]
    assert {path.stem.replace("_", "-") for path in modules} == set(COMMANDS)


def test_the_help_lists_the_commands_in_a_line_each_and_imports_nothing_slow(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_JAX)
    code, out, err = ended(s1_jax_command("--help", more=tmp_path))
    assert (code, err) == (0, "")
    for name, text in COMMANDS.items():
        assert sum(line.split() == [name, *text.split()] for line in out.splitlines()) == 1
    assert max(map(len, out.splitlines())) <= 110
    assert ended(s1_jax_command("--version", more=tmp_path)) == (0, f"s1-jax {s1_jax.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "error: unknown command 'trian'; did you mean train?\n"),
        (["lm_evl"], "error: unknown command 'lm_evl'; did you mean lm-eval?\n"),
        (["xyzzy"], f"error: unknown command 'xyzzy'; the commands are {', '.join(COMMANDS)}\n"),
        ([], f"error: usage: s1-jax COMMAND [arguments ...]   (commands: {', '.join(COMMANDS)})\n"),
    ],
    ids=str,
)
def test_an_unknown_command_is_one_line(arguments, said, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_JAX)
    assert ended(s1_jax_command(*arguments, more=tmp_path)) == (2, "", said)


def test_a_command_is_its_module_and_says_how_it_was_started():
    for process, prog in (
        (s1_jax_command("convert"), "s1-jax convert"),
        (s1_jax_command("grade"), "s1-jax grade"),
        (
            subprocess.Popen([sys.executable, "-m", "s1_jax.grade"], stderr=subprocess.PIPE, text=True),
            "python -m s1_jax.grade",
        ),
    ):
        code, _, err = ended(process)
        assert code == 2 and err.startswith("error: ") and f"{prog} " in err and err.count("\n") == 1
    code, out, _ = ended(s1_jax_command("train", "--help"))
    assert code == 0 and "usage: s1-jax train [CONFIG.py]" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_heard_while_the_command_is_imported(number, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(seconds=PATIENCE))
    with s1_jax_command("train", "quickstart_sft", more=tmp_path) as process:
        try:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(number)
            code, _, err = ended(process)
        finally:
            process.kill()
    assert (code, err) == {signal.SIGINT: (130, "interrupted\n"), signal.SIGTERM: (75, "received SIGTERM\n")}[number]
