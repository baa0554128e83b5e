"""A folder's splits are those that `datasets.load_dataset(folder)` finds, and no test row is trained on."""

import json
import os
import shutil

import datasets
import pytest

from s1_jax.config import TaskConfig
from s1_jax.data.files import split_files
from s1_jax.data.sources import read_rows
from s1_jax.errors import UserError
from s1_jax.runtime.storage import as_path
from s1_jax.tasks import load_task

CARD = "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n{}---\n# A data set\n"
LAYOUTS = {  # name -> files, and the splits they make by datasets' rules
    "the issue's": (("s1k_train.jsonl", "s1k_test.jsonl"), "train test"),
    "words alone": (("train.jsonl", "test.jsonl", "validation.jsonl"), "train validation test"),
    "hub-like": (("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                  "data/test-00000-of-00001.parquet"), "train test"),
    "hub-like, of any name": (("data/train-00000-of-00001.parquet", "data/sft-00000-of-00001.parquet"), "train sft"),
    "subfolders": (("train/a.jsonl", "train/b.jsonl", "test/a.jsonl"), "train test"),
    "subfolders deep down": (("x/y/train/a.jsonl", "x/y/test/more/a.jsonl"), "train test"),
    "a subfolder's word among others": (("my-train-set/a.jsonl", "my-test-set/a.jsonl"), "train test"),
    "in data/": (("data/train.jsonl", "data/test.jsonl"), "train test"),
    "word last": (("math-train.jsonl", "math-test.jsonl"), "train test"),
    "word in the middle": (("s1k_train_v2.jsonl", "s1k_dev_v2.jsonl"), "train validation"),
    "dots and blanks": (("s1k.train.jsonl", "s1k eval.jsonl"), "train test"),
    "numbers": (("train0.jsonl", "train1.jsonl", "test0.jsonl"), "train test"),
    "other words": (("training.jsonl", "valid.jsonl", "evaluation.jsonl"), "train validation test"),
    "val": (("x_val.jsonl", "x_train.jsonl"), "train validation"),
    "testing": (("testing.jsonl", "train.jsonl"), "train test"),
    "test alone": (("test.jsonl",), "test"),
    "test beside what has no word": (("s1k.jsonl", "s1k_test.jsonl"), "test"),
    "folder before file": (("test/train.jsonl",), "test"),
    "no word": (("b.jsonl", "a.jsonl"), "train"),
    "no word, in subfolders": (("b/rows.jsonl", "a/rows.jsonl", "rows.jsonl"), "train"),
    "a word's letters in another": (("contest.jsonl", "latest.jsonl", "trains.jsonl"), "train"),
    "CSV": (("train.csv", "test.csv"), "train test"),
    "hidden files": (("train.jsonl", ".test.jsonl", ".cache/train.jsonl", "__pycache__/train.jsonl"), "train"),
    "Parquet before JSONL": (("train.jsonl", "train.parquet"), "train"),
    "the more files": (("train_a.jsonl", "train_b.jsonl", "train.parquet"), "train"),
    "a word twice": (("train/train.jsonl", "train/x.jsonl"), "train"),
    "card": (("x.jsonl", "y.jsonl",
              CARD.format("  - split: train\n    path: x.jsonl\n  - split: test\n    path: y.jsonl\n")), "train test"),
    "card against names": (("train.jsonl", "test.jsonl",
                            CARD.format("  - split: train\n    path: test.jsonl\n")), "train"),
    "card with patterns": (("a/1.jsonl", "a/2.jsonl", "b/1.jsonl",
                            CARD.format("  - split: train\n    path: a/*\n  - split: held\n    path: b/*.jsonl\n")),
                           "train held"),
    "card with lists": (("a.jsonl", "b.jsonl", "c.jsonl",
                         CARD.format("  - split: train\n    path:\n    - a.jsonl\n    - c.jsonl\n")), "train"),
    "card with one path": (("a.jsonl", "b.jsonl", CARD.format("    b.jsonl\n")), "train"),
    "card with a folder": (("v1/train.jsonl", "v2/train.jsonl", "v2/test.jsonl",
                            "---\nconfigs:\n- config_name: x\n  data_dir: v2\n---\n"), "train test"),
    "card without configs": (("train.jsonl", "test.jsonl", "---\nlicense: mit\n---\n"), "train test"),
    "card without metadata": (("train.jsonl", "test.jsonl", "# A data set\n"), "train test"),
    "two configs, a default": (("a.jsonl", "b.jsonl", "---\nconfigs:\n- config_name: one\n  data_files: a.jsonl\n"
                                "- config_name: two\n  default: true\n  data_files: b.jsonl\n---\n"), "train"),
}  # fmt: skip


def make(folder, files):
    """The files, each with three rows that say which it is; what is no name is README.md."""
    for name in files:
        if "\n" in name:
            (folder / "README.md").write_text(name)
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"problem": f"{name} {i}", "answer": "1"} for i in range(3)]
        if path.suffix == ".jsonl":
            path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        elif path.suffix == ".csv":
            path.write_bytes(("problem,answer\n" + "".join(f"{row['problem']},1\n" for row in rows)).encode())
        else:
            with path.open("wb") as file:
                datasets.Dataset.from_list(rows).to_parquet(file)
    return folder


def problems(folder, split):
    return [row.columns["problem"] for row in read_rows(str(folder), split)]


@pytest.mark.filterwarnings("ignore:.*only its .* files are read")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_split_is_what_datasets_loads(name, tmp_path):
    files, splits = LAYOUTS[name]
    folder = make(tmp_path / "folder", files)
    theirs = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(theirs) == set(splits.split())
    for split in theirs:
        # where a file matches two of a split's patterns, datasets reads it twice
        assert problems(folder, split) == list(dict.fromkeys(theirs[split]["problem"]))
    if name not in ("no word", "no word, in subfolders", "a word's letters in another"):
        for absent in {"train", "validation", "test", "other"} - set(theirs):
            with pytest.raises(UserError, match=f"no files of split '{absent}'; it has {splits.split()[0]} ") as error:
                problems(folder, absent)
            assert all(split in str(error.value) for split in theirs) and "\n" not in str(error.value)


def test_what_has_no_split_is_whatever_split_is_asked_for(tmp_path):
    make(tmp_path, ("b.jsonl", "a.jsonl"))
    assert problems(tmp_path, "test") == problems(tmp_path, "train") and len(problems(tmp_path, "train")) == 6


@pytest.mark.parametrize(
    "files",
    [
        ("S1K_TRAIN.jsonl", "S1K_TEST.jsonl"),
        ("Train.jsonl", "Test.jsonl"),
        ("data/Train-00000-of-00001.parquet", "data/Test-00000-of-00001.parquet"),
        ("Train/a.jsonl", "TEST/a.jsonl"),
        ("train.jsonl", "TEST.jsonl"),
        ("train.jsonl", "notes_test.txt", "test.json", "dev.log", "Eval.jsonl"),
    ],
)
def test_capital_letters_and_other_kinds_of_files_bring_no_test_rows(files, tmp_path):
    make(tmp_path, [name for name in files if name.endswith((".jsonl", ".parquet"))])
    for name in files:
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("no data\n")
    assert len(problems(tmp_path, "train")) == 3
    assert all("train" in problem.lower() for problem in problems(tmp_path, "train"))
    assert len(problems(tmp_path, "test")) == 3


def test_a_file_that_is_named_is_read_whole(tmp_path):
    make(tmp_path, ("s1k_test.jsonl", "s1k_train.jsonl"))
    assert len(problems(tmp_path / "s1k_test.jsonl", "train")) == 3
    for place in (tmp_path, tmp_path / "s1k_test.jsonl"):
        with pytest.raises(UserError, match="asks for a part"):
            problems(place, "train[:2]")


def test_a_task_reads_a_folder_the_same_way(tmp_path):
    make(tmp_path, ("s1k_train.jsonl", "s1k_test.jsonl"))
    assert [p.question for p in load_task(TaskConfig("jsonl", str(tmp_path))).problems] == problems(tmp_path, "train")
    # math500's split is test
    assert [p.question for p in load_task(TaskConfig("math500", str(tmp_path))).problems] == problems(tmp_path, "test")


def test_ids_are_file_and_line_and_differ(tmp_path):
    make(tmp_path, ("a/rows.jsonl", "b/rows.jsonl", "c.jsonl"))
    ids = [row.id for row in read_rows(str(tmp_path), "train")]
    assert ids[::3] == ["a/rows.jsonl:1", "b/rows.jsonl:1", "c.jsonl:1"] and len(set(ids)) == 9


def test_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path / "real", ("train.jsonl", "test.jsonl"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data").symlink_to(tmp_path / "real")
    (tmp_path / "real/again").symlink_to(tmp_path / "real")
    (tmp_path / "set/train_gone.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert len(problems(tmp_path / "set", "train")) == 3


def test_brackets_and_blanks_in_the_folder_s_own_name(tmp_path):
    folder = make(tmp_path / "test [v1] .x" / ".hidden", ("train.jsonl", "test.jsonl"))
    assert problems(folder, "train") == [f"train.jsonl {i}" for i in range(3)]


def test_two_kinds_of_files_are_told(tmp_path):
    make(tmp_path, ("train.jsonl", "train.parquet"))
    with pytest.warns(UserWarning, match=r"only \.parquet files are read, not train\.jsonl"):
        assert len(problems(tmp_path, "train")) == 3


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nconfigs: [\n---\n", r"metadata of .*README\.md cannot be read"),
        ("---\n- a\n- b\n---\n", r"metadata of .*README\.md cannot be read: repo card metadata block"),
        ("---\nconfigs:\n- config_name: a\n  data_files: 7\n---\n", r"metadata of .*README\.md cannot be read"),
        ("---\nconfigs:\n- config_name: a\n  data_files: gone.jsonl\n---\n", "it names for train do not exist"),
        ("---\nconfigs:\n- config_name: a\n  data_files: ../x.jsonl\n---\n", "it names for train do not exist"),
        ("---\nconfigs:\n- config_name: a\n  data_dir: gone\n---\n", "it names for train do not exist"),
        (
            "---\nconfigs:\n- config_name: a\n  data_files: x.jsonl\n- config_name: b\n  data_files: x.jsonl\n---\n",
            "has the configs a, b, and none of them is the default",
        ),
        (CARD.format("  - split: test\n    path: x.jsonl\n"), r"no files of split 'train'; it has test \(x.jsonl\)"),
    ],
)
def test_a_card_that_does_not_help_is_one_line(card, said, tmp_path):
    make(tmp_path / "folder", ("x.jsonl", card))
    make(tmp_path, ("x.jsonl",))
    with pytest.raises(UserError, match=said) as error:
        problems(tmp_path / "folder", "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["the issue's", "hub-like", "subfolders", "no word", "card with patterns"])
def test_the_same_in_a_bucket(name, bucket, tmp_path):
    files, splits = LAYOUTS[name]
    make(tmp_path / "set", files)
    for here, _, names in os.walk(tmp_path / "set"):
        for file in names:
            within = (tmp_path / "set").joinpath(here, file).relative_to(tmp_path)
            as_path(f"gs://s1-test/{within}").write_bytes((tmp_path / within).read_bytes())
    for split in splits.split():
        assert problems("gs://s1-test/set", split) == problems(tmp_path / "set", split)
        assert len(problems("gs://s1-test/set", split)) % 3 == 0 < len(problems("gs://s1-test/set", split))
    shutil.rmtree(tmp_path / "set")
    assert str(split_files(as_path("gs://s1-test/set"), splits.split()[0])[0]).startswith("gs://s1-test/set/")
