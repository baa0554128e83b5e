"""Types of options that several commands share: ranges of numbers, and switches that are written out."""

from __future__ import annotations

from typing import Annotated

import tyro

from s1_jax.config.options import LARGEST, Range

# what is planned, or has its place in memory, before anything is done: more would never begin
Epochs = Annotated[int, Range(1, 10_000)]
Limit = Annotated[int, Range(1, 10**6)]
Samples = Annotated[int, Range(1, 10**5)]
Devices = Annotated[int, Range(1, LARGEST, also=-1)]
Rows = Annotated[int, Range(1, 2**16)]
RowLength = Annotated[int, Range(1, 2**24)]
Drafted = Annotated[int, Range(0, 1024)]
# what float32 can divide by and add
Softness = Annotated[float, Range(1e-6, 1e6)]
Temperature = Annotated[float, Range(1e-6, 1e6, also=0)]
TopP = Annotated[float, Range(0, 1, above=True)]
Fraction = Annotated[float, Range(0, 1, above=True, below=True)]
Repetitions = Annotated[int, Range(2, LARGEST, also=0)]
Bias = Annotated[float, Range(0, 1e6)]
MOST_GRACE = 0.1
Grace = Annotated[float, Range(0, MOST_GRACE)]


def _true_or_false(words: list[str]) -> bool:
    if words[0].lower() not in ("true", "false"):
        raise ValueError(f"{words[0]!r} is neither true nor false")
    return words[0].lower() == "true"


# an option that is written out, `--section.name false`, instead of `--section.no-name`
Switch = Annotated[
    bool,
    tyro.conf.FlagConversionOff,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{true,false}",
        instance_from_str=_true_or_false,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
    ),
]
