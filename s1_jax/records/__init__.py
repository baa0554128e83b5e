"""Records: one JSON line per problem and setting; their fields, reading and writing."""

from typing import Any

Record = dict[str, Any]
