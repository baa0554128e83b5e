"""What every test stands on: 8 simulated devices, no network, float32 matmuls, tiny models, the shared data."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # also in the commands that tests start
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # shared with pytest-xdist's processes and the commands tests start
    compiled = tempfile.TemporaryDirectory(prefix="s1_jax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**32))  # with a size, a lock guards half a file
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest
import torch

from tests.fifths import pytest_addoption, pytest_collection_modifyitems  # noqa: F401, which pytest finds here

# A suite started in the background by a script inherits Ctrl-C as ignored, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

STOPS = (signal.SIGINT, signal.SIGTERM)
SIMULATED_DEVICES = 8

jax.config.update("jax_num_cpu_devices", SIMULATED_DEVICES)
jax.config.update("jax_default_matmul_precision", "float32")

torch.set_num_threads(1)  # two thread pools on two cores wait for each other

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _signals():
    """`run_main` leaves its handlers to the end of the process, which here is the suite's."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; a test that needs it is skipped where it is absent."""
    given = os.environ.get("S1_JAX_SHARED_DATA")
    folder = Path(given) if given else PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        if given:
            pytest.fail(f"S1_JAX_SHARED_DATA names {given}, which is not a folder")
        pytest.skip("needs the real data in ../shared/data (or in the folder S1_JAX_SHARED_DATA names)")
    return folder


@pytest.fixture(scope="session")
def tiny_model():
    """`tiny_model(seed=0, **config)`: a random transformers Qwen2 and its weights as our parameters (reference.py)."""
    from tests.reference import tiny_model

    return tiny_model


@pytest.fixture(scope="session")
def _storage():
    # one for all tests: its clients keep the address they saw first
    from tests.stand_in_bucket import Bucket

    with Bucket("s1-test") as bucket:
        os.environ.update(bucket.environment)
        yield bucket


@pytest.fixture
def bucket(_storage):
    """An empty bucket, `gs://s1-test`, for this process and those it starts."""
    _storage.empty()
    yield _storage
    _storage.empty()


@pytest.fixture(scope="session")
def start(tiny_model, tmp_path_factory):
    """A folder with a random model, its tokenizer, and examples.jsonl."""
    from s1_jax.data.synthetic import generate_examples
    from tests.runs import EXAMPLES
    from tests.tokenizer import byte_tokenizer

    folder = tmp_path_factory.mktemp("start")
    tiny = tiny_model(
        vocab_size=272, hidden_size=32, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=512
    )
    tiny.torch_model.save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    rows = [json.dumps(row) for row in generate_examples(0, EXAMPLES)]
    (folder / "examples.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def alone(start, tmp_path_factory):
    """The run by one process, on other devices: this one's."""
    from s1_jax import train
    from tests.runs import ALONE, options

    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train.main(options(start, run_dir, *ALONE))
    return run_dir


@pytest.fixture(scope="session")
def sweep_alone(tmp_path_factory):
    """The records of a sweep by one process."""
    from s1_jax import evaluate
    from tests.runs import SWEEP, records_by_key

    run_dir = tmp_path_factory.mktemp("sweep") / "run"
    evaluate.main([*SWEEP, "--run-dir", str(run_dir)])
    return records_by_key(run_dir)


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory, tiny_model):
    """A model in Hugging Face layout, another one, five problems, and the config files of sweeps over them."""
    from tests.sweeps import CONFIG, EXTRA, PROBLEMS
    from tests.tokenizer import byte_tokenizer

    folder = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("model", 0), ("other_model", 1)):
        made = tiny_model(seed=seed, vocab_size=len(byte_tokenizer()), tie_word_embeddings=True)
        made.torch_model.save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    rows = [{"id": i, "problem": f"{i}+{i}=?", "answer": 2 * i} for i in range(PROBLEMS)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.py").write_text(CONFIG)
    (folder / "extra.py").write_text(EXTRA)
    return folder


@pytest.fixture(scope="session")
def finished_sweep(sweep_folder):
    """A run_dir in which all of GRID is done."""
    from tests.sweeps import GRID, evaluated

    evaluated(sweep_folder, sweep_folder / "finished", *GRID)
    return sweep_folder / "finished"


@pytest.fixture
def sweep_copy(finished_sweep, tmp_path):
    """A copy of `finished_sweep` to work on."""
    return shutil.copytree(finished_sweep, tmp_path / "run")


@pytest.fixture
def no_weights(monkeypatch):
    """Loading weights is an error."""
    from s1_jax.checkpoints import hf

    monkeypatch.setattr(hf, "load_params", lambda *_, **__: pytest.fail("the weights were loaded"))
