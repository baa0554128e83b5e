"""docs/guides/serve.md: what it shows is asked of a server, and the pages name every field of the protocols."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from pydantic import BaseModel

from s1_jax.serving import anthropic, openai_chat, openai_text, thinking
from s1_jax.serving.app import COUNT_TOKENS
from s1_jax.serving.errors import TYPES
from s1_jax.serving.fronts import FRONTS
from s1_jax.serving.openai_common import StreamOptions
from tests.pages import PROJECT, Block, blocks_of
from tests.runs import PATIENCE
from tests.serving.running import KEY, NAME

PAGE = PROJECT / "docs" / "guides" / "serve.md"
REFERENCE = (PROJECT / "docs" / "reference" / "server.md").read_text()
ASKS = "it asks a running server"
BLOCKS = [block for block in blocks_of(PAGE) if (block.not_run or "").startswith(ASKS)]
BODIES: dict[str, type[BaseModel]] = {
    "a chat": openai_chat.ChatBody,
    "a message of a chat": openai_chat.Message,
    "a completion": openai_text.TextBody,
    "messages": anthropic.MessagesBody,
    "a thinking block": anthropic.ThinkingBlock,
    "thinking": thinking.ThinkingObject,
    "stream_options": StreamOptions,
}


def adapted(block: Block, url: str) -> str:
    """The text of a block that asks the server of these tests."""
    text = block.text.replace("http://127.0.0.1:8000", url).replace('"quickstart"', f'"{NAME}"')
    text = text.replace('reasoning + "Wait"', 'reasoning[:40] + "Wait"')  # the tiny base fills its context
    return text.replace('api_key="none"', f'api_key="{KEY}"')


def test_the_python_of_the_guide_works(server, capsys):
    namespace: dict = {"__name__": "block"}
    ran = [block for block in BLOCKS if block.language == "python"]
    for block in ran:
        exec(compile(adapted(block, server.url), block.where, "exec"), namespace)
    printed = capsys.readouterr().out
    assert len(ran) >= 4 and namespace["message"].stop_reason == "end_turn"
    counts = [int(count) for count in re.findall(r"^ ?(\d+) tokens, ", printed, re.MULTILINE)]
    assert len(counts) == 7
    assert counts[0] <= 16 and counts[2] >= 60 and counts[5] == 0  # a maximum, a minimum, a cut


def test_the_requests_by_curl_work(server, tmp_path):
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {KEY}"\nsilent\nnoproxy = "*"\n')
    ran = [block for block in BLOCKS if block.language == "bash"]
    said = [
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", adapted(block, server.url)],
            env=os.environ | {"CURL_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout
        for block in ran
    ]
    reply, health = json.loads(said[0]), said[1]
    (shown,) = [json.loads(block.text) for block in blocks_of(PAGE) if block.language == "json"]
    assert names_of(reply) == names_of(shown)
    assert health.startswith('{"status":"ready"') and 's1_jax_tokens_total{kind="cached"}' in health


def names_of(value) -> list[str]:
    """The names of all fields of a value of JSON, in their order."""
    if isinstance(value, list):
        return [name for one in value for name in names_of(one)]
    return [part for name, one in value.items() for part in (name, *names_of(one))] if isinstance(value, dict) else []


@pytest.mark.parametrize("body", BODIES)
def test_the_reference_names_every_field(body):
    for name in BODIES[body].model_fields:
        assert f"`{name}`" in REFERENCE, f"docs/reference/server.md does not name {name} of {body}"


def test_the_guide_names_every_spelling_of_a_budget():
    text = PAGE.read_text()
    inside: dict[str, type[BaseModel]] = {
        "": thinking.ThinkingFields,
        "reasoning.": thinking.ReasoningObject,
        "chat_template_kwargs.": thinking.TemplateObject,
    }
    for prefix, fields in inside.items():
        for name in fields.model_fields:
            assert f"`{prefix}{name}`" in text or f"`{name}." in text, f"{PAGE.name} does not name {prefix}{name}"


def test_the_reference_names_every_path_and_status():
    for path in (*FRONTS, COUNT_TOKENS):
        assert f"| `{path}` | POST |" in REFERENCE
    for status in TYPES:
        assert f"\n| {status} |" in REFERENCE


def test_the_reference_names_every_metric(server):
    names = re.findall(r"^# TYPE (\S+) ", server.ask("/metrics").body.decode(), re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if f"`{name}`" not in REFERENCE and not name.endswith("_created")] == []
