"""
Records, and the hash chain that makes a change to any of them visible. Pure.

Every entry's hash covers its stream, its place, its record and the hash of the entry before it. So an entry that was
edited, removed, inserted or moved afterwards no longer fits. What a chain alone cannot show: that its *newest* entries
were cut off, or that somebody with the right to write recomputed every hash after a change. Both are found by a `Head`
that was noted elsewhere before (an export, a ticket, another system).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GENESIS", "Break", "Entry", "Head", "Record", "canonical", "check_name", "entry_hash", "verify"]

GENESIS: Final = "0" * 64  # the hash before the first entry of a stream
_LONGEST_NAME = 500  # characters; what an index of every database takes
_DEEPEST = 50  # levels of a payload
_PLAIN = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True)
class Record:
    """
    One thing that happened.

    :param kind: what happened, see `airflow_provider_mlops.journal.kinds`.
    :param at: when; aware, kept in UTC.
    :param actor: who: a person, or the task that acted.
    :param payload: what the reader needs to know; JSON. A copy is kept, tuples become lists.
    :raises ConfigError: an empty or unprintable name, a time without a zone, a payload that is not JSON (NaN included).
    """

    kind: str
    at: datetime
    actor: str
    payload: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_name("kind", self.kind)
        check_name("actor", self.actor)
        if not isinstance(self.at, datetime) or self.at.tzinfo is None:
            raise ConfigError(f"A record needs a time with a zone, got {self.at!r}. Use datetime.now(timezone.utc).")
        if not isinstance(self.payload, Mapping):
            raise ConfigError(f"The payload of {self.kind!r} must be a mapping, got {type(self.payload).__name__}.")
        object.__setattr__(self, "at", self.at.astimezone(UTC))
        object.__setattr__(self, "payload", _plain(self.payload, f"{self.kind}: payload", 0))


@dataclass(frozen=True)
class Entry:
    """
    A record at its place in a stream.

    :param sequence: 1 for the first entry of the stream, then without a gap.
    :param previous_hash: hash of the entry before, `GENESIS` for the first.
    :param hash: 64 hexadecimal digits, see `entry_hash`.
    """

    stream: str
    sequence: int
    record: Record
    previous_hash: str
    hash: str

    @classmethod
    def following(cls, stream: str, sequence: int, record: Record, previous_hash: str) -> Entry:
        """Return the entry of *record* at *sequence*, chained to *previous_hash*."""
        return cls(stream, sequence, record, previous_hash, entry_hash(stream, sequence, record, previous_hash))


@dataclass(frozen=True)
class Head:
    """Where a stream ended when somebody noted it: the sequence and the hash of its last entry."""

    sequence: int
    hash: str


@dataclass(frozen=True)
class Break:
    """
    A place where a stream is not what was written.

    :param sequence: the entry at fault, or the first that is missing.
    :param code: ``edited`` | ``removed`` | ``reordered`` | ``replaced``.
    :param sentence: what is wrong, in words.
    """

    stream: str
    sequence: int
    code: str
    sentence: str


def check_name(what: str, name: str) -> None:
    """
    Check that *name* can name a stream, a kind or an actor: 1..500 characters, none of them a control character.

    :raises ConfigError: it cannot.
    """
    printable = isinstance(name, str) and all(c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff" for c in name)
    if not printable or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigError(
            f"{name!r:.80} cannot be the {what} of a journal record: "
            f"it needs 1..{_LONGEST_NAME} characters and no control characters."
        )


def canonical(value: Any) -> str:
    """Return the one JSON text of *value*: keys sorted, no spaces, ASCII; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def entry_hash(stream: str, sequence: int, record: Record, previous_hash: str) -> str:
    """Return the SHA-256, in hexadecimal, of an entry's canonical JSON."""
    body = {
        "stream": stream,
        "sequence": sequence,
        "record": {
            "kind": record.kind,
            "at": record.at.isoformat(timespec="microseconds"),
            "actor": record.actor,
            "payload": record.payload,
        },
        "previous_hash": previous_hash,
    }
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def verify(entries: Iterable[Entry], heads: Mapping[str, Head] | None = None) -> list[Break]:
    """
    Return every break in *entries*: whole streams, each in the order in which it was read; empty when all is intact.

    :param heads: where streams ended at some earlier time, by stream. Only with them a cut tail, a removed stream, or a
        chain that was recomputed from some entry on can be found.
    """
    streams: dict[str, list[Entry]] = {}
    for entry in entries:
        streams.setdefault(entry.stream, []).append(entry)
    for stream in heads or {}:
        streams.setdefault(stream, [])
    return [
        fault for stream, rows in streams.items() for fault in _verify_stream(stream, rows, (heads or {}).get(stream))
    ]


def _verify_stream(stream: str, rows: list[Entry], head: Head | None) -> list[Break]:
    breaks: list[Break] = []
    places = {row.hash: row.sequence for row in rows}
    expected, previous = 1, GENESIS
    for row in rows:
        fault = None
        if row.sequence > expected:
            gone = (
                f"Entry {expected} is"
                if row.sequence == expected + 1
                else f"Entries {expected}..{row.sequence - 1} are"
            )
            breaks.append(Break(stream, expected, "removed", f"{gone} missing before entry {row.sequence}."))
        elif row.sequence < expected:
            fault = ("reordered", f"Entry {row.sequence} comes after entry {expected - 1}.")
        if entry_hash(stream, row.sequence, row.record, row.previous_hash) != row.hash:
            written_at = places.get(row.previous_hash, 0) + 1
            if written_at != row.sequence and entry_hash(stream, written_at, row.record, row.previous_hash) == row.hash:
                fault = ("reordered", f"Entry {row.sequence} was written as entry {written_at}.")
            else:
                fault = ("edited", f"The content of entry {row.sequence} does not fit its hash.")
        elif fault is None and row.sequence == expected and row.previous_hash != previous:
            fault = (
                "replaced",
                f"Entry {row.sequence} does not follow the entry before it: one of the two was replaced.",
            )
        if fault is not None:
            breaks.append(Break(stream, row.sequence, *fault))
        expected, previous = row.sequence + 1, row.hash
    if head is not None:
        breaks += _verify_head(stream, rows, head)
    return breaks


def _verify_head(stream: str, rows: list[Entry], head: Head) -> list[Break]:
    last = rows[-1].sequence if rows else 0
    if last < head.sequence:
        sentence = f"The stream ends at entry {last}, but entry {head.sequence} was seen before: the tail was cut off."
        return [Break(stream, last + 1, "removed", sentence)]
    if any(row.sequence == head.sequence and row.hash != head.hash for row in rows):
        sentence = (
            f"Entry {head.sequence} has another hash than the one noted before: it, or one before it, was replaced."
        )
        return [Break(stream, head.sequence, "replaced", sentence)]
    return []


def _plain(value: Any, path: str, depth: int) -> Any:
    """Return a copy of *value* made of JSON types only. :raises ConfigError: naming the path of what is none."""
    if depth > _DEEPEST:
        raise ConfigError(f"{path} is nested deeper than {_DEEPEST} levels.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{path} is {value}, which JSON cannot hold. Say None where there is no number.")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                near = did_you_mean(str(key), [k for k in value if isinstance(k, str)])
                raise ConfigError(f"{path} has the key {key!r}; JSON keys are strings.{near}")
        # Most of a payload is plain already; the whole journal passes through here when it is verified.
        return {
            str.__str__(key): item
            if type(item) in _PLAIN or (type(item) is float and math.isfinite(item))
            else _plain(item, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise ConfigError(
        f"{path} is a {type(value).__name__}, which JSON cannot hold. Turn it into a number or text first."
    )
