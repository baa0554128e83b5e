"""The records that a sweep plans, and their fields that are known before decoding."""

import pytest

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, TaskConfig
from s1_jax.evaluation.settings import plan_records
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
    planned = plan_records(config, load_task(TaskConfig(limit=1)), settings, byte_tokenizer())
    assert [one.request.free_tokens for one in planned] == [limit, None, None]
    assert [one.known.get("max_new_tokens") for one in planned] == [limit, None, None]
    assert [one.known["max_answer_tokens"] for one in planned] == [answer] * 3
    assert len({one.key for one in planned}) == 3
