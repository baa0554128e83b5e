"""A copy of the scripts beside a stand-in for gcloud."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHIPPED = ("scripts/tpu.sh", "scripts/_tpu.sh", "scripts/_tpu_job.sh", "scripts/_venv.sh", "pyproject.toml")
IMPATIENT = {
    "TPU_POLL_SECONDS": "0.02",
    "TPU_FOLLOW_SECONDS": "0.03",
    "TPU_DELETE_SECONDS": "0",
    "TPU_SSH_TRIES": "2",
    "TPU_MAX_FRUITLESS": "3",
}
SLICE = {"TPU_PROJECT": "p", "TPU_ZONE": "us-east5-a", "TPU_NAME": "s1", "TPU_TYPE": "v5p-64"}
STARTED = f"import sys; sys.path.insert(0, '{HERE}'); import stand_in_gcloud"  # imported, it is compiled once
PATIENCE = 300  # seconds; it only ends a test that hangs
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python")


class Cloud:
    """A checkout and the cloud it talks to; files of the stand-in are read and written by their names."""

    def __init__(self, folder: Path):
        self.folder, self.checkout, bin_ = folder / "cloud", folder / "checkout", folder / "bin"
        for new in (self.folder / "worker_bin", self.checkout / "scripts", bin_):
            new.mkdir(parents=True)
        for name in SHIPPED:
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / "constraints.txt").write_text("")
        (self.checkout / ".gitignore").write_text("runs/\n")
        subprocess.run(["git", "init", "-q", self.checkout], check=True)
        for name in PYTHONS:
            (self.folder / "worker_bin" / name).symlink_to(HERE / "stand_in_python")
        gcloud = bin_ / "gcloud"
        gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{STARTED}" "$@"\n')
        gcloud.chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TPU_")}
        self.env = (
            kept
            | IMPATIENT
            | SLICE
            | {"TPU_STAND_IN": str(self.folder), "TMPDIR": str(folder), "PATH": f"{bin_}:{kept['PATH']}"}
        )

    def __setitem__(self, name, text):
        (self.folder / name).write_text(text)

    def __getitem__(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def start(self, *words, in_background=False, **env):
        """`in_background`: as a script's `&` starts it, with Ctrl-C ignored."""
        ignoring = ["sh", "-c", 'trap "" INT; exec "$0" "$@"'] if in_background else []
        command = [*ignoring, "scripts/tpu.sh", *words]
        return subprocess.Popen(
            command, cwd=self.checkout, env=self.env | env, stdout=-1, stderr=-1, text=True, start_new_session=True
        )

    def tpu(self, *words, stop=None, **env):
        """Exit code, what it printed, what it said. `stop`: a signal, once this function of no arguments is true."""
        process = self.start(*words, **env)
        if stop is not None:
            number, ready = stop
            self.wait(ready)
            process.send_signal(number)
        try:
            printed, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, printed, said

    def wait(self, ready):
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def calls(self):
        return [ast.literal_eval(line) for line in self["calls"].splitlines()]

    def called(self, pattern):
        return [words for words in self.calls if re.search(pattern, " ".join(words))]

    @property
    def exists(self):
        return (self.folder / "slice").exists()


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    subprocess.run(f"cat {cloud.folder}/slice/*/s1_jax_jobs/*/pid | xargs -rI@ kill -9 -- -@", shell=True, stderr=-1)


@pytest.fixture
def there(cloud):
    """A cloud with a slice of two workers, as `create` and `install` leave it."""
    for worker in "01":
        home = cloud.folder / "slice" / f"worker-{worker}" / "s1_jax"
        shutil.copytree(cloud.checkout / "scripts", home / "scripts")
        (home / ".venv" / "bin").mkdir(parents=True)
        shutil.copy(HERE / "stand_in_python", home / ".venv" / "bin" / "python")
    cloud["slice/states"] = "ACTIVE\n"
    return cloud
