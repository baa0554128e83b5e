"""Errors that a client is told, with the JSON that each protocol has for them."""

from __future__ import annotations

from typing import Any

from s1_jax.errors import UserError
from s1_jax.serving.generation import Terms

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
OPENAI_TYPES = TYPES | {500: "server_error", 503: "service_unavailable"}
ANTHROPIC_TYPES = TYPES | {500: "api_error", 503: "overloaded_error"}
LONGEST = 400  # characters of a message, which may repeat a value


class ApiError(Exception):
    """An error that a client is told, in one sentence.

    `param` is the field of the request that is wrong, and `code` is a word that a program can look for.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        message = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def openai_error(error: ApiError) -> dict[str, Any]:
    """Return the body of an error in OpenAI's protocol."""
    kind = _type(OPENAI_TYPES, error.status)
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_error(error: ApiError) -> dict[str, Any]:
    """Return the body of an error in Anthropic's protocol."""
    return {"type": "error", "error": {"type": _type(ANTHROPIC_TYPES, error.status), "message": error.message}}


def refusal(error: UserError, terms: Terms, param: str | None = None) -> ApiError:
    """Return the 400 for a request that cannot be decoded, with the model's public name in place of its path."""
    path = terms.tokenizer.name_or_path
    message = str(error).replace(path, terms.model_name) if path else str(error)
    return ApiError(400, message, param)


def too_long(what: str, terms: Terms) -> ApiError:
    """Return the 400 for a prompt that does not fit, which `what` says."""
    most = f"prompt, thinking and answer together have at most {terms.max_model_len:,} tokens"
    return ApiError(400, f"{what}; {most}", code="context_length_exceeded")


def _type(types: dict[int, str], status: int) -> str:
    return types.get(status) or types[400 if status < 500 else 500]
