"""A stand-in endpoint for the tests that ask one."""

import pytest

from tests.curation.stand_in_endpoint import StandInEndpoint
from tests.runtime.asking import KEY


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THE_KEY", KEY + "\n")
    with StandInEndpoint() as server:
        yield server
