"""What the tests of an endpoint share: a key, a clock that only sleeping moves, and one way to ask."""

from typing import Any

from s1_jax.config import JudgeConfig
from s1_jax.runtime.endpoint import Endpoint

KEY = "sk-not-to-be-seen"
FAST = 10**6  # requests a minute: no pause between them


class Time:
    """A clock that goes on only where somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 100.0, []

    def sleep(self, seconds):
        self.now += seconds
        self.pauses += [seconds] if seconds > 0.5 else []

    def clock(self):
        return self.now


def endpoint(server, **options):
    made = Time()
    defaults: dict[str, Any] = {"requests_per_minute": FAST, "attempts": 4, "key_variable": "THE_KEY"}
    config = JudgeConfig("some-model", server.url, **defaults | options)
    return Endpoint(config, "the model", made.sleep, made.clock), made.pauses


def ask(model, prompt="why?"):
    return model.ask(prompt, temperature=0.5, max_tokens=9).text


def ask_many(model, prompts, concurrent=4, **options):
    return dict(model.ask_many(prompts, temperature=0, max_tokens=9, concurrent=concurrent, **options))
