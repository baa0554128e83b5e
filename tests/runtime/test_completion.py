"""Completions as endpoints write them, and an endpoint's own sentence on what went wrong, without the key."""

import json

import pytest

from s1_jax.runtime.completion import complaint, parse
from tests.runtime.asking import KEY


@pytest.mark.parametrize("body", [[], {}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": "yes"}]}, 7])
def test_what_is_no_completion(body):
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        parse(body)


SENTENCE = "The model `x` does not exist."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": SENTENCE, "type": "invalid_request_error", "code": "model_not_found"}}, SENTENCE),
        ({"error": SENTENCE}, SENTENCE),
        ({"error": {"code": "model_not_found"}}, "model_not_found"),
        ([{"error": {"code": 400, "message": SENTENCE, "status": "INVALID_ARGUMENT"}}], SENTENCE),
        ({"object": "error", "message": SENTENCE, "type": "BadRequestError", "code": 400}, SENTENCE),
        ({"error": True, "message": SENTENCE}, SENTENCE),
        ({"detail": SENTENCE}, SENTENCE),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "too small"}, {"loc": [], "msg": "bad"}]}, "too small; bad"),
        ({"errors": [{"message": SENTENCE}]}, SENTENCE),
        ({"type": "error", "error": {"type": "not_found_error", "message": SENTENCE}}, SENTENCE),
        (
            {"error": {"message": "Provider", "metadata": {"raw": json.dumps({"error": SENTENCE})}}},
            f"Provider: {SENTENCE}",
        ),
        (f"{SENTENCE}\n", SENTENCE),
        (f"two\r\nlines\x1b[2J {SENTENCE}", f"two lines [2J {SENTENCE}"),
        ("word " * 1000, ("word " * 60).strip() + " ..."),
        *(("<html><body>Bad gateway</body></html>", ""), ("{half", ""), ("", ""), ({}, ""), ([], ""), (None, "")),
        (b"\xff\xfe" + SENTENCE.encode(), f"\ufffd\ufffd{SENTENCE}"),
        ("[" * 100_000, ""),
    ],
)
def test_an_endpoints_own_sentence(body, said):
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    assert complaint(text) == said


@pytest.mark.parametrize(
    "echo",
    [
        *(KEY, KEY.upper(), f"Bearer {KEY}", f"'{KEY}'", KEY[:8], KEY[-6:], f"x{KEY}y{KEY}z", f"bearer {KEY[2:9]}..."),
        *(f"{KEY[:4]}**********{KEY[-4:]}", f"{KEY[:5]}****."),
    ],
)
def test_no_part_of_a_key_is_passed_on(echo):
    said = complaint(json.dumps({"error": {"message": f"Incorrect API key provided: {echo} (see the docs)"}}), KEY)
    assert said.startswith("Incorrect API key provided: ") and said.endswith(" (see the docs)") and "***" in said
    assert not any(KEY[i : i + 6] in said.lower() for i in range(len(KEY) - 5))
    assert KEY[:4] not in said and KEY[-4:] not in said
    assert complaint("the key abc is wrong, abcd is not", "abc") == "the key *** is wrong, abcd is not"
