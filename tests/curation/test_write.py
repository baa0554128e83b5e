"""Write: the data set is read by training and by `datasets`, its card says what it is, nothing leaves unasked."""

import json

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest

from s1_jax.config import DataConfig
from s1_jax.config.curate import CurateConfig, EndpointConfig, GenerateStageConfig, SelectConfig, WriteConfig
from s1_jax.curation import write as module
from s1_jax.curation.filter import filter
from s1_jax.curation.select import select
from s1_jax.curation.sources import PUBLIC
from s1_jax.curation.write import DATA, write, write_inputs
from s1_jax.data.sources import read_conversations
from s1_jax.data.tokens import load_corpus
from s1_jax.errors import RunError, UserError
from tests.curation.pools import call, made_up, run
from tests.tokenizer import byte_tokenizer

CHOSEN = SelectConfig(size=60, uniform_until=50, seed=3)


def pool():
    columns = made_up(200, 4)
    del columns["hard"]
    columns["thinking"][7] = None
    columns["question"][8] = "![Image]"
    return columns


def written(folder, **sections):
    """The chosen rows, in a folder `dataset` beside them."""
    path = run([filter, select, write], folder, pool(), **({"select": CHOSEN} | sections))
    return pq.read_table(path).to_pylist()


def test_training_takes_it_as_it_is(tmp_path):
    rows = written(tmp_path)
    read = list(read_conversations(str(tmp_path / "dataset"), "train"))
    assert [row.id for row, _ in read] == [row["id"] for row in rows] and len(rows) == 60
    for (_, said), row in zip(read, rows, strict=True):
        assert (said.question, said.thinking, said.answer) == (row["question"], row["thinking"], row["attempt"])
    corpus, counts = load_corpus(DataConfig(path=str(tmp_path / "dataset"), max_length=4096), byte_tokenizer())
    assert counts.examples == 60 and counts.dropped == 0 and corpus.ids[0] == rows[0]["id"]


def test_datasets_loads_it(tmp_path):
    rows = written(tmp_path)
    loaded = datasets.load_dataset(str(tmp_path / "dataset"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"]["id"] == [row["id"] for row in rows]
    left_out = {"error", "hard", "solver_1", "solver_1_correct"}
    assert set(loaded["train"].column_names) == set(rows[0]) - left_out


def test_the_card(tmp_path):
    teacher = EndpointConfig(model="the-teacher", base_url="https://secret.example/v1", key_variable="MY_KEY")
    compared = tmp_path / "others.jsonl"
    compared.write_text(json.dumps({"question": made_up(200, 4)["question"][0]}) + "\n")
    options = WriteConfig(compare_with=str(compared), licence="cc-by-4.0")
    rows = written(tmp_path, generate=GenerateStageConfig(teacher=teacher), write=options)
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for line in (
        "# 60 questions with reasoning traces",
        "| filter | no_trace | 1 | 199 |",
        "| filter | images | 1 | 198 |",
        "| chosen_by | rows | mean thinking tokens |",
        "of the 1 questions of others.jsonl.",
        f"| gpqa | {sum(row['source'] == 'gpqa' for row in rows)} | {PUBLIC['gpqa'].licence} |",
        f"| usaco | {sum(row['source'] == 'usaco' for row in rows)} | not known |",
    ):
        assert line in card, line
    assert "seed 3" in card and "Traces and attempts: the-teacher." in card
    config = json.loads(card.split("```json\n")[1].split("```")[0])
    assert config["select"]["seed"] == 3 and config["generate"]["teacher"]["model"] == "the-teacher"
    for hidden in ("secret.example", "MY_KEY", str(tmp_path)):
        assert hidden not in card, hidden
    assert (tmp_path / "dataset" / "funnel.png").read_bytes()[:4] == b"\x89PNG"


def test_selections_share_what_comes_before(tmp_path, capsys):
    written(tmp_path)
    before = (tmp_path / "2_filter.parquet").stat().st_mtime_ns
    written(tmp_path, select=SelectConfig("random", 20), write=WriteConfig(name="random"))
    assert (tmp_path / "2_filter.parquet").stat().st_mtime_ns == before
    assert [pq.read_metadata(tmp_path / name / DATA).num_rows for name in ("dataset", "random")] == [60, 20]
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(UserError, match="write.name"):
            WriteConfig(name=name)


def test_nothing_is_pushed_unasked(tmp_path, monkeypatch):
    asked = []

    class Hub:
        def create_repo(self, name, **options):
            asked.append((name, options["repo_type"], options["private"]))

        def upload_folder(self, **options):
            asked.append((options["repo_id"], sorted(path.name for path in options["folder_path"].iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    written(tmp_path)
    assert asked == []
    written(tmp_path, write=WriteConfig(push_to="me/s1K"))
    assert asked == [("me/s1K", "dataset", True), ("me/s1K", ["README.md", "data", "funnel.png"])]

    def refuse(self, **options):
        raise huggingface_hub.errors.HfHubHTTPError("403: not yours\nmore", response=Response())

    monkeypatch.setattr(Hub, "upload_folder", refuse)
    with pytest.raises(RunError, match="is written, but could not be pushed to 'you/s1K' .403: not yours."):
        written(tmp_path, write=WriteConfig(push_to="you/s1K"))
    assert pq.read_metadata(tmp_path / "dataset" / DATA).num_rows == 60


class Response:
    headers, request = {}, None


def test_a_stop_leaves_the_data_set_as_it_was(tmp_path, monkeypatch):
    written(tmp_path)

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(module.pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, write=WriteConfig(licence="mit"))
    assert pq.read_metadata(tmp_path / "dataset" / DATA).num_rows == 60
    assert "license: other" in (tmp_path / "dataset" / "README.md").read_text()


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(UserError, match="write needs column 'chosen_by'"):
        call(write, tmp_path, made_up(3))


def test_the_set_compared_with_is_an_input(tmp_path):
    path = tmp_path / "others.jsonl"
    path.write_text("{}")
    assert write_inputs(CurateConfig()) == []
    assert write_inputs(CurateConfig(write=WriteConfig(compare_with=str(path)))) == [path]
    assert write_inputs(CurateConfig(write=WriteConfig(compare_with="simplescaling/s1K"))) == []
