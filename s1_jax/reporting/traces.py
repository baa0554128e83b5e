"""The records of a problem as the report shows them: each thinking trace once, and where each setting leaves it.

The thinking of a record is shown on every trace whose tokens begin with its own; the comparison is of tokens, not of
text. Positions are in UTF-16 units, in which a browser counts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from s1_jax.records import Record
from s1_jax.records.options import format_of
from s1_jax.records.setting import Setting
from s1_jax.records.verdicts import is_undecided

SHORTEST_SHARED = 64  # characters that two traces must share to be stored as one with a branch
# of text that samples after the first may add, so that a browser opens the page fast; further ones are only counted
MOST_CHARACTERS = 4 * 10**7
# fields that decide, together with the prompt, which tokens are sampled
DRAWS = ("sample", "seed", "temperature", "top_k", "top_p", "min_p", "min_thinking_tokens", "notices", "banned_words")


class Parts(NamedTuple):
    """The parts of which a record's text is made."""

    thinking: str
    put_in: str  # text that was forced before the answer marker, and between it and the answer
    answer: str


def parts(record: Record) -> Parts:
    """Split a record's text at the answer marker; the two markers belong to no part.

    A newline that was inserted before a forced marker stays with the thinking, because the text does not show it.
    """
    format = format_of(record)
    thinking, _, rest = _body(record).partition(format.answer_start)
    if not (record["forcing"] and record["end"] != "natural" and rest.startswith(format.final_answer)):
        return Parts(thinking, "", rest)
    before = format.early_stopping_text
    return Parts(thinking.removesuffix(before), before + format.final_answer, rest.removeprefix(format.final_answer))


def common_length(a: str, b: str) -> int:
    """Return the length of the common prefix of two strings."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def ignored_ends(record: Record, others: Sequence[Record]) -> list[int]:
    """Return the character positions of ignored ends in the thinking, ascending; in old records perhaps not all.

    Records of earlier versions do not store the positions. They are known if the ignore string occurs in the thinking
    exactly as often as ends were ignored. They are also known if one of the `others`, the records of the problem, has
    the same tokens, ignored fewer ends, and ended by itself there.
    """
    if not record["ignores_used"]:
        return []
    thinking, start = parts(record).thinking, len(record.get("text") or "") - len(_body(record))
    if "ignored_ends" in record:
        return [character - start for _, character in record["ignored_ends"]]
    string = record["ignore_string"]
    if isinstance(string, str) and string:
        found = [match.start() for match in re.finditer(f"(?={re.escape(string)})", thinking)]
        cut = record["end"] != "natural" and any(
            thinking.endswith((string[:i], f"{string[:i]}\n")) for i in range(1, len(string))
        )
        if len(found) == record["ignores_used"] and not cut:
            return found
    return sorted(
        {
            common_length(parts(other).thinking, thinking)
            for other in others
            if _ends_where_ignored(other, record) and _begins(_tokens(other), _tokens(record))
        }
    )


def lay_out(records: Sequence[Record], places: Mapping[Setting, int], draws: int) -> dict[str, Any]:
    """Convert the records of one problem to what the report's script reads; `places` gives each setting's index.

    Each of `traces` holds a text that continues the first `at` characters of its `parent` (-1: none), and the
    `branches` [setting, draw, position] that end on it. Each of `results` holds, for one setting, how many records are
    right and how many undecided, and the first `draws` of them, ordered by seed and sample.
    """
    shown = [record for place, record in _by_draw(records) if place < draws]
    trunks, homes = _trunks(shown)
    texts = [parts(trunk).thinking for trunk in trunks]
    answers: dict[str, int] = {}
    results: list[dict[str, Any]] = [{"right": 0, "undecided": 0, "of": 0, "draws": []} for _ in places]
    for record in records:
        result = results[places[Setting.of(record)]]
        result["right"] += bool(record["correct"])
        result["undecided"] += is_undecided(record)
        result["of"] += 1
    ends: dict[int, tuple[int, int]] = {}  # index of a shown record -> its setting, and its index among the draws
    for i, record in enumerate(shown):
        setting = places[Setting.of(record)]
        ends[i] = setting, len(results[setting]["draws"])
        answer = answers.setdefault(parts(record).answer, len(answers))
        draw = {"trace": homes[i], "answer": answer, **_shown(record, texts[homes[i]], shown)}
        results[setting]["draws"].append(draw)
    return {
        "id": str(records[0]["problem_id"]),
        "gold": records[0].get("gold"),
        "question": next((record["question"] for record in records if record.get("question")), None),
        "answers": list(answers),
        "results": results,
        "traces": [
            {**_stored(texts, i), "branches": _branches(trunk, texts[i], shown, ends)} for i, trunk in enumerate(trunks)
        ],
    }


def by_problem(records: Sequence[Record]) -> list[list[Record]]:
    """Group records by problem, sorted by id; numbers inside an id are compared as numbers."""
    grouped: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        grouped[str(record["problem_id"])].append(record)

    def order(name: str) -> list[tuple[int, str]]:
        pieces = re.split(r"0*([0-9]+)", name)  # by length, then by digits, which works for numbers of any size
        return [(len(piece), piece) if i % 2 else (0, piece) for i, piece in enumerate(pieces)]

    return [grouped[name] for name in sorted(grouped, key=order)]


def draws_shown(records: Sequence[Record]) -> int:
    """Decide how many samples of a problem and setting keep their text: all, or as many as fit into a page."""
    characters: dict[int, int] = defaultdict(int)
    for place, record in _by_draw(records):
        characters[place] += len(record.get("text") or "")
    _, *further = sorted(characters)
    for shown, total in zip(further, accumulate(characters[place] for place in further), strict=True):
        if total > MOST_CHARACTERS:
            return shown
    return max(characters) + 1


def _by_draw(records: Sequence[Record]) -> Iterator[tuple[int, Record]]:
    """Yield records by seed and sample, each after its index among the records of its problem and setting."""
    seen: Counter[tuple[str, Setting]] = Counter()
    for record in sorted(records, key=lambda record: (record["seed"], record["sample"])):
        drawn = str(record["problem_id"]), Setting.of(record)
        yield seen[drawn], record
        seen[drawn] += 1


def _trunks(records: Sequence[Record]) -> tuple[list[Record], list[int]]:
    """Find the records whose tokens are no prefix of another's, longest first, and for each the one it begins."""
    trunks: list[Record] = []
    homes: dict[int, int] = {}
    for place in sorted(range(len(records)), key=lambda place: -len(_tokens(records[place]))):
        tokens = _tokens(records[place])
        home = next((i for i, trunk in enumerate(trunks) if _begins(tokens, _tokens(trunk))), len(trunks))
        if home == len(trunks):
            trunks.append(records[place])
        homes[place] = home
    return trunks, [homes[place] for place in range(len(records))]


def _shown(record: Record, text: str, others: Sequence[Record]) -> dict[str, Any]:
    """Return what the page shows of a record beside its trace with this `text`."""
    ignored = ignored_ends(record, others)
    return {
        "seed": record["seed"],
        "sample": record["sample"],
        "at": _units(text, common_length(parts(record).thinking, text)),
        "end": record["end"],
        "tokens": record["num_thinking_tokens"],
        "ignored": [_units(text, character) for character in ignored],
        "unmarked": record["ignores_used"] - len(ignored),
        "put_in": parts(record).put_in,
        "found": record["extracted_answer"],
        "right": bool(record["correct"]),
        "undecided": is_undecided(record),
    }


def _branches(
    trunk: Record, text: str, shown: Sequence[Record], ends: Mapping[int, tuple[int, int]]
) -> list[tuple[int, int, int]]:
    return [
        (*ends[i], _units(text, common_length(parts(record).thinking, text)))
        for i, record in enumerate(shown)
        if _begins(_tokens(record), _tokens(trunk))
    ]


def _stored(texts: Sequence[str], i: int) -> dict[str, Any]:
    alike = [common_length(text, texts[i]) for text in texts[:i]]
    if (longest := max(alike, default=0)) < SHORTEST_SHARED:
        return {"parent": -1, "at": 0, "text": texts[i]}
    return {"parent": alike.index(longest), "at": _units(texts[i], longest), "text": texts[i][longest:]}


def _ends_where_ignored(other: Record, record: Record) -> bool:
    """Whether `other` ended by itself at a position where `record`, with the same thinking, ignored an end."""
    alike = all(other.get(name) == record.get(name) for name in DRAWS)
    same_string = other["num_ignore"] == 0 or other["ignore_string"] == record["ignore_string"]
    ended = other["forcing"] and other["end"] == "natural" and other["ignores_used"] == other["num_ignore"]
    return alike and same_string and ended and other["num_ignore"] < record["ignores_used"]


def _body(record: Record) -> str:
    return (record.get("text") or "").removeprefix(format_of(record).think_start)


def _tokens(record: Record) -> Sequence[int]:
    return record.get("thinking_token_ids") or ()


def _begins(short: Sequence[int], long: Sequence[int]) -> bool:
    n = len(short)
    return n == 0 or (n <= len(long) and short[-1] == long[n - 1] and short == long[:n])


def _units(text: str, characters: int) -> int:
    return len(text[:characters].encode("utf-16-le", "surrogatepass")) // 2
