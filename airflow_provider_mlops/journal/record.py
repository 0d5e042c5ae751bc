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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GENESIS", "Break", "Entry", "Head", "Record", "canonical", "check_name", "entry_hash", "verify"]

GENESIS: Final = "0" * 64  # the hash before the first entry of a stream
_LONGEST_NAME = 500  # characters; what an index of every database takes
_DEEPEST = 50  # levels of a payload
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_PLAIN = frozenset({str, int, bool, type(None)})


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return number


_STORED = json.JSONDecoder(parse_float=_number, parse_constant=_number)


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
    text: str = field(init=False, repr=False, compare=False)
    """The payload as its canonical JSON: what is hashed and stored."""

    def __post_init__(self) -> None:
        check_name("kind", self.kind)
        check_name("actor", self.actor)
        if not isinstance(self.at, datetime) or self.at.tzinfo is None:
            raise ConfigError(f"A record needs a time with a zone, got {self.at!r}. Use datetime.now(timezone.utc).")
        if not isinstance(self.payload, Mapping):
            raise ConfigError(f"The payload of {self.kind!r} must be a mapping, got {type(self.payload).__name__}.")
        object.__setattr__(self, "at", self.at.astimezone(UTC))
        object.__setattr__(self, "payload", _plain(self.payload, f"{self.kind}: payload", 0))
        object.__setattr__(self, "text", canonical(self.payload))

    @classmethod
    def stored(cls, kind: str, at: datetime, actor: str, text: str) -> Record:
        """
        Return the record whose payload is kept as *text*, which stays its text: also one that is not canonical.

        :raises ValueError: the text is no JSON object, or the rest is no record.
        """
        payload = _STORED.decode(text)
        if not isinstance(payload, dict):
            raise ConfigError(f"The payload of {kind!r} must be a mapping, got {type(payload).__name__}.")
        record = cls(kind, at, actor, {})
        object.__setattr__(record, "payload", payload)
        object.__setattr__(record, "text", text)
        return record


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
    printable = isinstance(name, str) and (
        name.isprintable() or all(c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff" for c in name)
    )
    if not printable or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigError(
            f"{name!r:.80} cannot be the {what} of a journal record: "
            f"it needs 1..{_LONGEST_NAME} characters and no control characters."
        )


def canonical(value: Any) -> str:
    """Return the one JSON text of *value*: keys sorted, no spaces, ASCII; equal values give equal text."""
    return _CANONICAL.encode(value)


def entry_hash(stream: str, sequence: int, record: Record, previous_hash: str) -> str:
    """
    Return the SHA-256, in hexadecimal, of an entry's canonical JSON.

    That is ``canonical({"stream", "sequence", "previous_hash", "record": {"kind", "at", "actor", "payload"}})``, put
    together from the payload's text, which is the larger part and there already.
    """
    at = record.at.isoformat(timespec="microseconds")
    body = (
        f'{{"previous_hash":{_quoted(previous_hash)},'
        f'"record":{{"actor":{_quoted(record.actor)},"at":"{at}","kind":{_quoted(record.kind)},"payload":{record.text}}},'
        f'"sequence":{sequence},"stream":{_quoted(stream)}}}'
    )
    return hashlib.sha256(body.encode()).hexdigest()


def verify(entries: Iterable[Entry], heads: Mapping[str, Head] | None = None) -> list[Break]:
    """
    Return every break in *entries*: whole streams, each in the order in which it was read; empty when all is intact.

    :param heads: where streams ended at some earlier time, by stream. Only with them a cut tail, a removed stream, or a
        chain that was recomputed from some entry on can be found.
    """
    heads = heads or {}
    streams: dict[str, _Stream] = {}
    for entry in entries:
        if entry.stream not in streams:
            streams[entry.stream] = _Stream(entry.stream, heads.get(entry.stream))
        streams[entry.stream].add(entry)
    for stream in heads:
        streams.setdefault(stream, _Stream(stream, heads[stream]))
    return [fault for stream in streams.values() for fault in stream.breaks()]


@dataclass
class _Stream:
    """What is known of a stream after some of its entries, of which it keeps no more than their hashes."""

    name: str
    head: Head | None
    last: int = 0
    last_hash: str = GENESIS
    head_differs: bool = False
    places: dict[str, int] = field(default_factory=dict)
    faults: list[Break | Entry] = field(default_factory=list)  # an entry: one whose content does not fit its hash

    def add(self, row: Entry) -> None:
        expected = self.last + 1
        if row.sequence < 1:  # it counts as missing where it was
            self.faults.append(row)
            return
        if row.sequence > expected:
            gone = (
                f"Entry {expected} is"
                if row.sequence == expected + 1
                else f"Entries {expected}..{row.sequence - 1} are"
            )
            self._fault(expected, "removed", f"{gone} missing before entry {row.sequence}.")
        if entry_hash(self.name, row.sequence, row.record, row.previous_hash) != row.hash:
            self.faults.append(row)
        elif row.sequence < expected:
            self._fault(row.sequence, "reordered", f"Entry {row.sequence} comes after entry {expected - 1}.")
        elif row.sequence == expected and row.previous_hash != self.last_hash:
            sentence = f"Entry {row.sequence} does not follow the entry before it: one of the two was replaced."
            self._fault(row.sequence, "replaced", sentence)
        if self.head is not None and row.sequence == self.head.sequence and row.hash != self.head.hash:
            self.head_differs = True
        self.last, self.last_hash = row.sequence, row.hash
        self.places[row.hash] = row.sequence

    def breaks(self) -> list[Break]:
        found = [self._named(fault) if isinstance(fault, Entry) else fault for fault in self.faults]
        if self.head is None:
            return found
        if self.last < self.head.sequence:
            sentence = (
                f"The stream ends at entry {self.last}, but entry {self.head.sequence} was seen before: "
                "the tail was cut off."
            )
            return [*found, Break(self.name, self.last + 1, "removed", sentence)]
        if self.head_differs:
            sentence = (
                f"Entry {self.head.sequence} has another hash than the one noted before: it, or one before it, "
                "was replaced."
            )
            return [*found, Break(self.name, self.head.sequence, "replaced", sentence)]
        return found

    def _named(self, row: Entry) -> Break:
        """Say of an entry that does not fit its hash whether it would where the one it follows says it was written."""
        written_at = self.places.get(row.previous_hash, 0) + 1
        if written_at != row.sequence and entry_hash(self.name, written_at, row.record, row.previous_hash) == row.hash:
            sentence = f"Entry {row.sequence} was written as entry {written_at}."
            return Break(self.name, row.sequence, "reordered", sentence)
        if row.sequence < 1:
            return Break(self.name, row.sequence, "edited", "A row is at no place: the first entry of a stream is 1.")
        return Break(self.name, row.sequence, "edited", f"The content of entry {row.sequence} does not fit its hash.")

    def _fault(self, sequence: int, code: str, sentence: str) -> None:
        self.faults.append(Break(self.name, sequence, code, sentence))


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
