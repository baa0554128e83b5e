"""The platform that is chosen before JAX chooses: on made-up machines, and in a real process where libtpu is here."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from s1_jax.runtime import platforms, processes
from tests.runs import PATIENCE, PROJECT

GVNIC = {"vendor": "0x1ae0\n", "device": "0x0042\n", "class": "0x020000\n"}  # the network card of every VM of Google's
V5E = {"vendor": "0x1ae0\n", "device": "0x0063\n", "class": "0xff0000\n"}


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """Nobody has chosen a platform, libtpu is installed, and JAX is not imported."""
    for name in ("JAX_PLATFORMS", "PJRT_NAMES_AND_LIBRARY_PATHS", *platforms.TPU_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platforms, "find_spec", lambda name: object() if name == "libtpu" else None)
    monkeypatch.setattr(platforms, "_plugins", list)
    monkeypatch.setattr(platforms, "sys", SimpleNamespace(modules={}))


def machine(folder, *devices, pci=()):
    for name in ("dev/null", *devices):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for i, files in enumerate(pci):
        card = folder / "sys/bus/pci/devices" / f"0000:00:0{i}.0"
        card.mkdir(parents=True)
        for name, text in files.items():
            (card / name).write_text(text)
    return folder


def chosen(folder):
    platforms.choose_platform(folder)
    return os.environ.get("JAX_PLATFORMS")


@pytest.mark.parametrize("devices", [(), ("dev/accel/accel0",), ("dev/vfio/vfio",), ("dev/nvidiactl",)])
def test_a_machine_without_a_tpu_leaves_libtpu_alone(tmp_path, devices):
    """Also with an accelerator of another maker, an unused vfio, or an NVIDIA GPU for which JAX has no plugin."""
    assert chosen(machine(tmp_path, *devices, pci=[GVNIC])) == "cpu"


@pytest.mark.parametrize("devices", [("dev/accel0",), ("dev/accel0", "dev/accel10"), ("dev/vfio/0",)])
def test_a_tpu_vm_chooses_as_before(tmp_path, devices):
    assert chosen(machine(tmp_path, *devices)) is None


@pytest.mark.parametrize("card", [V5E, {"vendor": "0x1ae0\n"}])
def test_so_does_one_with_a_tpu_on_its_bus(tmp_path, card):
    assert chosen(machine(tmp_path, pci=[GVNIC, card])) is None


@pytest.mark.parametrize("name", platforms.TPU_VARIABLES)
def test_so_does_one_whose_variables_name_a_tpu(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert chosen(machine(tmp_path)) is None


@pytest.mark.parametrize("given", ["", "tpu", "tpu,cpu"])
def test_the_users_choice_stays(tmp_path, monkeypatch, given):
    monkeypatch.setenv("JAX_PLATFORMS", given)
    assert chosen(machine(tmp_path)) == given


def test_without_libtpu_nothing_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(platforms, "find_spec", lambda name: None)
    assert chosen(machine(tmp_path)) is None


@pytest.mark.parametrize(
    ("plugins", "devices", "platform"),
    [
        (["xla_cuda13"], ("dev/nvidia0",), "cuda,cpu"),
        (["xla_cuda12", "xla_cuda12"], ("dev/nvidiactl",), "cuda,cpu"),
        (["xla_cuda13"], (), "cpu"),
        (["xla_rocm7"], (), None),
        (["xla_cuda13", "another"], ("dev/nvidia0",), None),
    ],
)
def test_a_gpu_stays_in_use(tmp_path, monkeypatch, plugins, devices, platform):
    monkeypatch.setattr(platforms, "_plugins", lambda: plugins)
    assert chosen(machine(tmp_path, *devices)) == platform


def test_a_jax_that_was_imported_first_is_told(tmp_path):
    class Config:
        jax_platforms = None

        def update(self, name, value):
            setattr(self, name, value)

    platforms.sys.modules["jax"] = SimpleNamespace(config=Config())
    assert chosen(machine(tmp_path)) == "cpu" == platforms.sys.modules["jax"].config.jax_platforms


def test_a_platform_that_was_set_in_jax_stays(tmp_path):
    platforms.sys.modules["jax"] = SimpleNamespace(config=SimpleNamespace(jax_platforms="tpu"))
    assert chosen(machine(tmp_path)) is None


@pytest.mark.parametrize(("told", "on_tpu"), [(None, True), ("tpu,cpu", True), ("tpu", True), ("cpu", False)])
def test_a_tpu_vm_is_known_by_its_devices_and_by_what_jax_chose(monkeypatch, told, on_tpu):
    """On import, JAX itself sets "tpu,cpu" on a TPU VM."""
    monkeypatch.setattr(processes, "jax", SimpleNamespace(config=SimpleNamespace(jax_platforms=told)))
    monkeypatch.setattr(processes, "has_tpu_device", lambda: True)
    assert processes._on_tpu() == on_tpu
    monkeypatch.setattr(processes, "has_tpu_device", lambda: False)
    assert not processes._on_tpu()


LOADED = """
import sys
import s1_jax
assert "jax" not in sys.modules
s1_jax.load_model("s1_jax/assets/tiny_base")
import jax
print(jax.default_backend(), "libtpu" in open("/proc/self/maps").read())
"""


@pytest.mark.skipif(platforms.has_tpu(), reason="this machine has a TPU")
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'jax[tpu]'")
def test_loading_a_model_does_not_start_libtpu():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_PLATFORMS", "TPU_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd=PROJECT
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    backend, started = done.stdout.split()
    assert started == "False" and backend in ("cpu", "gpu")
