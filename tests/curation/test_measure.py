"""Tokens of traces: as transformers counts them one by one."""

import json
from importlib.resources import files

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from s1_jax.config.curate import CurateConfig
from s1_jax.curation import measure as module
from s1_jax.curation.measure import measure, measure_inputs
from s1_jax.curation.stages import Source
from s1_jax.errors import UserError
from s1_jax.runtime.progress import progress_bar

TINY = str(files("s1_jax") / "assets" / "tiny_base")


def measured(folder, texts, tokenizer=TINY):
    pq.write_table(pa.table({"thinking": pa.array(texts, pa.string())}), folder / "before.parquet")
    with progress_bar(shown=False) as bar:
        made = measure(CurateConfig(tokenizer=tokenizer), Source(folder / "before.parquet"), folder, bar)
        assert bar.tasks[0].completed == len(texts)
    assert made.rows is None and not made.dropped and made.columns["thinking_tokens"].type == pa.int32()
    return made.columns["thinking_tokens"].to_pylist()


@pytest.mark.parametrize("texts_of_batch", [1, 2, 64])
def test_every_batch_and_no_trace(tmp_path, monkeypatch, texts_of_batch):
    monkeypatch.setattr(module, "TEXTS_OF_BATCH", texts_of_batch)
    texts = ["3 + 4 = 7", None, "", "Wait, 12 - 5", "<|im_start|>answer"]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert measured(tmp_path, texts) == [len(tokenizer.encode(text or "", add_special_tokens=False)) for text in texts]


def test_what_a_tokenizer_adds_to_a_text_is_not_counted(tmp_path):
    tokenizer = Tokenizer(WordLevel({"[CLS]": 0, "one": 1}, unk_token="[CLS]"))
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert measured(tmp_path, ["one"], str(tmp_path)) == [1]


def test_no_rows(tmp_path):
    assert measured(tmp_path, []) == []


def test_real_traces_with_the_real_tokenizer(tmp_path, shared_data):
    folder = shared_data / "qwen25_tokenizer"
    known = [json.loads(line) for line in (folder / "known_encodings.jsonl").read_text().splitlines()]
    lines = (shared_data / "long_cot_traces" / "thought_anchors_r1distill.jsonl").read_text().splitlines()
    traces = [json.loads(line)["thinking"] for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [len(case["ids"]) for case in known] + [len(tokenizer.encode(trace)) for trace in traces]
    assert measured(tmp_path, [case["text"] for case in known] + traces, str(folder)) == expected


def test_a_tokenizer_in_a_folder_counts_by_its_files():
    assert [path.name for path in measure_inputs(CurateConfig(tokenizer=TINY))] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert measure_inputs(CurateConfig(tokenizer="Qwen/Qwen2.5-32B-Instruct")) == []


def test_no_tokenizer_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer"):
        measured(tmp_path, ["a"], str(tmp_path))
