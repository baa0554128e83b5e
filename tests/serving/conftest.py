"""A server that many tests ask, the clients that ask it, and the same model in this process."""

from __future__ import annotations

import pytest

from tests.runs import BASE, PATIENCE


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Requests go straight to this machine."""
    for name in ("http_proxy", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def server():
    """A server that needs a key; its efforts are small, as the model is."""
    from tests.serving.running import KEY, MOST_CHOICES, MOST_WAITING, SIZES, started

    limits = ("--limits.max-choices", str(MOST_CHOICES), "--limits.max-waiting", str(MOST_WAITING))
    with started(*SIZES, *limits, "--effort.low", "20", "--effort.high", "None", key=KEY) as running:
        yield running


@pytest.fixture
def client(server):
    """OpenAI's official client."""
    import openai

    from tests.serving.running import KEY

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def claude(server):
    """Anthropic's official client."""
    import anthropic

    from tests.serving.running import KEY

    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="session")
def model():
    """The tiny model that ships, loaded in this process."""
    import s1_jax

    return s1_jax.load_model(str(BASE))
