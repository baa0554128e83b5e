"""Fields of a request's body: what kinds there are, and the one sentence that says what is wrong with a value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from s1_jax.config.options import LARGEST
from s1_jax.runtime.texts import NOT_UNICODE, is_unicode
from s1_jax.serving.accepted import Accepted
from s1_jax.serving.errors import ApiError

SHOWN = 40  # characters of a value or a name in a message
MOST_STOPS = 16
MOST_LOGPROBS = 20
MOST_CHOICES = 10_000  # of the option --limits.max-choices


class Fields(BaseModel):
    """Base of bodies and of the objects in them: no other fields, and no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Body = TypeVar("Body", bound=Fields)


def said(wanted: str) -> WrapValidator:
    """Make a validator that says of a wrong value that "it must be" what is `wanted`."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("wanted", "{wanted}", {"wanted": wanted}) from None

    return WrapValidator(check)


# null is the same as no field, as in OpenAI's protocol
_Count = Annotated[int, Field(ge=1, le=LARGEST)]
_Whole = Annotated[int, Field(ge=0, le=LARGEST)]
_OrMinusOne = Annotated[int, Field(ge=-1, le=LARGEST)]
_Stops = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)]
Text = Annotated[str, said("a string")]
MaybeText = Annotated[str | None, said("a string")]
Flag = Annotated[bool | None, said("true or false")]
Count = Annotated[_Count, said("a whole number of at least 1")]
MaybeCount = Annotated[_Count | None, said("a whole number of at least 1")]
MaybeWhole = Annotated[_Whole | None, said("a whole number of at least 0")]
TopK = Annotated[_OrMinusOne | None, said("a whole number of at least 1, or 0 or -1 for all tokens")]
ThinkingTokens = Annotated[_OrMinusOne | None, said("a whole number of at least 0, or -1 for no maximum")]
Temperature = Annotated[Annotated[float, Field(ge=0, le=2)] | None, said("a number from 0 to 2")]
LowTemperature = Annotated[Annotated[float, Field(ge=0, le=1)] | None, said("a number from 0 to 1")]
TopP = Annotated[Annotated[float, Field(gt=0, le=1)] | None, said("a number above 0 and of at most 1")]
MinP = Annotated[Annotated[float, Field(ge=0, le=1)] | None, said("a number from 0 to 1")]
Number = Annotated[float | None, said("a number")]
Numbers = Annotated[list[float] | None, said("a list of numbers")]
Texts = Annotated[list[str] | None, said("a list of strings")]
TextOrTexts = Annotated[str | list[str] | None, said("a string or a list of strings")]
Choices = Annotated[
    Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None, said(f"a whole number from 1 to {MOST_CHOICES:,}")
]
Seed = Annotated[Annotated[int, Field(ge=-(2**63), lt=2**64)] | None, said("a whole number of at most 64 bits")]
Logprobs = Annotated[
    Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None, said(f"a whole number from 0 to {MOST_LOGPROBS}")
]
Stops = Annotated[
    Annotated[str, Field(min_length=1)] | _Stops | None,
    said(f"a string or a list of at most {MOST_STOPS} strings, none of them empty"),
]
Object = Annotated[dict[str, Any] | None, said("an object")]
StopList = Annotated[_Stops | None, said(f"a list of at most {MOST_STOPS} strings, none of them empty")]


def read_fields(kind: type[Body], body: Any, accepted: Mapping[str, Accepted], where: str = "") -> Body:
    """Check an object of a request, which is called `where` in messages; "" is the body itself. Raises ApiError.

    Fields in `accepted` must hold a value that changes nothing, and are left out of the result.
    """
    if not isinstance(body, Mapping):
        raise ApiError(400, f"{where or 'the body'} is {shown(body)}; it must be an object", where or None)
    left = {}
    for name, value in body.items():
        if name not in accepted:
            left[name] = value
        elif not accepted[name].fits(value):
            raise wrong(joined(where, name), value, accepted[name].values)
    try:
        return kind.model_validate(left)
    except ValidationError as error:
        raise _first(error, where) from None


def check_values(body: Any) -> None:
    """Check that all strings of a body are valid Unicode and all numbers finite. Raises ApiError naming the field."""
    left = [("", body)]
    while left:
        where, value = left.pop()
        if isinstance(value, str):
            if not is_unicode(value):
                raise ApiError(400, f"{where or 'the body'} {NOT_UNICODE}", where or None)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise wrong(where, value, "a finite number")
        elif isinstance(value, Mapping):
            for name in value:
                if not is_unicode(name):
                    raise ApiError(400, f"the name of the field {joined(where, name)} {NOT_UNICODE}")
            left.extend((joined(where, name), one) for name, one in reversed(list(value.items())))
        elif isinstance(value, list) and not all(type(one) is int for one in value):
            left.extend((f"{where}[{i}]", one) for i, one in reversed(list(enumerate(value))))


def wrong(name: str, value: Any, wanted: str) -> ApiError:
    """Return the error of a field with a wrong value: "temperature is 'hot'; it must be a number from 0 to 2"."""
    return ApiError(400, f"{name} is {shown(value)}; it must be {wanted}", name)


def shown(value: Any) -> str:
    """Return a value as a message repeats it: short, on one line, and always valid Unicode."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value):,} item{'s' * (len(value) > 1)}" if value else "an empty list"
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}..."
    try:
        text = json.dumps(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def joined(where: str, *parts: str | int) -> str:
    """Return the name of a field in a message: "messages[0].content"."""
    for part in parts:
        if isinstance(part, int):
            where = f"{where}[{part}]"
        else:
            name = part if part.isprintable() else part[:SHOWN].encode("unicode_escape").decode()
            name = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
            where = f"{where}.{name}" if where else name
    return where


def _first(error: ValidationError, where: str) -> ApiError:
    """Put the first mistake that pydantic found into one sentence."""
    first = error.errors(include_url=False)[0]
    name = joined(where, *first["loc"])
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"the field '{name}' is not supported", name)
    if first["type"] == "missing":
        return ApiError(400, f"the field '{name}' is missing", name)
    return wrong(name, first["input"], first["msg"] if first["type"] == "wanted" else "an object")
