"""Stages: what is there is not made again, what is not whole does not count, rows pass in groups."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s1_jax.curation import stages
from s1_jax.curation.stages import Count, Made, Source, Stage, counts_of, run_stages
from s1_jax.errors import UserError
from s1_jax.runtime.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 10
    least: int = 3
    order: tuple[int, ...] = (2, 0)


def make(log):
    def first(config, source, folder, bar):
        log.append("first")
        assert source is None
        return Made({"number": pa.array(range(config.size)), "text": pa.array(map(str, range(config.size)))})

    def second(config, source, folder, bar):
        log.append("second")
        numbers = source.column("number").to_numpy()
        rows = np.flatnonzero(numbers >= config.least)
        return Made({"square": pa.array(numbers[rows] ** 2)}, rows, [("small", config.least), ("odd", 0)])

    def third(config, source, folder, bar):
        log.append("third")
        (folder / "note").write_text("kept")
        return Made(rows=np.asarray(config.order), dropped=[("not chosen", source.num_rows - len(config.order))])

    return [Stage("first", first, ("size",)), Stage("second", second, ("least",)), Stage("third", third, ("order",))]


def run(folder, log, config=Config(), **options):
    with progress_bar(shown=False) as bar:
        return run_stages(make(log), config, folder, bar, **options)


@pytest.mark.parametrize("rows_of_group", [1, 4, 100])
def test_rows_columns_and_counts(tmp_path, monkeypatch, rows_of_group):
    monkeypatch.setattr(stages, "ROWS_OF_GROUP", rows_of_group)
    path = run(tmp_path, [])
    assert path == tmp_path / "3_third.parquet" and (tmp_path / "third" / "note").read_text() == "kept"
    assert pq.read_table(path).to_pylist() == [
        {"number": 5, "text": "5", "square": 25},
        {"number": 3, "text": "3", "square": 9},
    ]
    assert pq.read_table(tmp_path / "2_second.parquet")["number"].to_pylist() == list(range(3, 10))
    assert counts_of(path) == [
        Count("first", "", 0, 10),
        Count("second", "small", 3, 7),
        Count("second", "odd", 0, 7),
        Count("third", "not chosen", 5, 2),
    ]
    assert Source(path).num_rows == 2


def test_what_is_there_is_not_made_again(tmp_path):
    log = []
    run(tmp_path, log)
    run(tmp_path, log)
    assert log == ["first", "second", "third"]
    run(tmp_path, log, Config(least=5))  # and all behind it
    assert log[3:] == ["second", "third"]
    run(tmp_path, log, Config(least=5), again_from="third")
    assert log[5:] == ["third"]
    (tmp_path / "2_second.parquet").write_bytes(b"PAR1 half")
    run(tmp_path, log, Config(least=5))
    assert log[6:] == ["second"]
    with pytest.raises(UserError, match="no stage 'fourth'; the stages are first, second, third"):
        run(tmp_path, log, again_from="fourth")


def test_files_count_by_what_is_in_them(tmp_path):
    pool, made = tmp_path / "pool.txt", []

    def read(config, source, folder, bar):
        made.append(pool.read_text())
        return Made({"text": pa.array([made[-1]])})

    stage = Stage("read", read, (), lambda config: [pool])
    for text in ("one", "one", "two"):
        pool.write_text(text)
        with progress_bar(shown=False) as bar:
            run_stages([stage], Config(), tmp_path / "run", bar)
    assert made == ["one", "two"]


def test_a_stop_leaves_no_table(tmp_path):
    log = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_beside", lambda *tables: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            run(tmp_path, log)
    assert [path.name for path in sorted(tmp_path.glob("*.parquet"))] == ["1_first.parquet"]
    run(tmp_path, log)
    assert log == ["first", "second", "second", "third"]


def test_a_table_without_rows(tmp_path):
    path = run(tmp_path, [], Config(least=10, order=()))
    assert pq.read_table(path).column_names == ["number", "text", "square"] and Source(path).num_rows == 0


def test_a_damaged_table_is_made_again_or_named(tmp_path):
    run(tmp_path, [])
    table = tmp_path / "2_second.parquet"
    whole = table.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # where what tells of all pages begins
    for damaged in (
        whole[:end] + b"\xff" * 20 + whole[end + 20 :],
        whole[:-8] + b"\xff" * 4 + b"PAR1",
        whole[:50],
        b"",
    ):
        table.write_bytes(damaged)
        log = []
        run(tmp_path, log)
        assert log == ["second"], "what cannot be read is no table"
        assert table.read_bytes() == whole
    page = pq.read_metadata(table).row_group(1).column(0).dictionary_page_offset
    # its end says that it is whole, its pages are not
    table.write_bytes(whole[:page] + b"\xff" * 40 + whole[page + 40 :])
    (tmp_path / "3_third.parquet").unlink()
    with pytest.raises(UserError, match=r"2_second\.parquet is damaged \(.*\); remove it to make it again") as error:
        run(tmp_path, [])
    assert "\n" not in str(error.value)
    table.unlink()
    assert run(tmp_path, []) == tmp_path / "3_third.parquet"
