"""The rows that a sweep asks for, and the fields of their records that are known before decoding."""

import pytest

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, TaskConfig
from s1_jax.evaluation.settings import plan_rows
from s1_jax.tasks import load_task
from tests.tokenizer import byte_tokenizer


@pytest.mark.parametrize("given,limit,answer", [(None, None, 512), (512, 512, 512), (0, 0, 0)])
def test_without_forcing_an_answers_limit_bounds_all_where_it_is_given(given, limit, answer):
    config = EvaluateConfig(max_answer_tokens=given, max_model_len=4096)
    settings = [
        SettingConfig(BudgetConfig(forcing=False)),
        SettingConfig(BudgetConfig(max_thinking_tokens=9, forcing=False)),
        SettingConfig(),
    ]
    rows = plan_rows(config, load_task(TaskConfig(limit=1)), settings, byte_tokenizer())
    assert [row.request.free_tokens for row in rows] == [limit, None, None]
    assert [row.known.get("max_new_tokens") for row in rows] == [limit, None, None]
    assert [row.known["max_answer_tokens"] for row in rows] == [answer] * 3
    assert len({row.key for row in rows}) == 3
