"""The port of the journal, and the few verbs that every user of it shares. Pure but for the port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_mlops.errors import ConflictError, DataError
from airflow_provider_mlops.journal.record import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mlops.journal.record import Entry, Record

__all__ = ["Journal", "append_decided", "append_next", "model_stream", "read_intact"]

_Answer = TypeVar("_Answer")


class Journal(Protocol):
    """An append-only, hash-chained log of streams. Safe to use from many processes at once."""

    def append(self, stream: str, expected_sequence: int | None, record: Record) -> Entry:
        """
        Write *record* as entry ``expected_sequence + 1`` of *stream*, wholly or not at all.

        :param expected_sequence: last sequence that the writer knew when it decided; 0 for an empty stream; ``None``
            for evidence that depends on nothing before it and is written at the end, wherever that is.
        :raises ConflictError: the stream does not end there, or somebody else wrote just then; nothing was written.
        """
        ...

    def read(self, stream: str, after: int = 0) -> list[Entry]:
        """Return the entries of *stream* with a sequence above *after*, oldest first; ``[]`` for an unknown stream."""
        ...

    def last_sequence(self, stream: str) -> int:
        """Return the sequence of the newest entry of *stream*; 0 for an unknown stream."""
        ...

    def streams(self) -> list[str]:
        """Return the names of all streams, sorted."""
        ...


def model_stream(model: str) -> str:
    """Return the name of the stream of the registered model *model*."""
    return f"model/{model}"


def append_next(journal: Journal, stream: str, record: Record, attempts: int = 50) -> Entry:
    """
    Write *record* at the end of *stream*, wherever that is: for evidence that depends on nothing before it.

    :param attempts: how many times to try when others write at the same time.
    :raises ConflictError: others were faster every time.
    """
    for _ in range(attempts):
        try:
            return journal.append(stream, None, record)
        except ConflictError as error:
            conflict = error
    raise ConflictError(f"{stream}: {attempts} attempts to append {record.kind!r} lost against others.") from conflict


def append_decided(
    journal: Journal,
    stream: str,
    entries: list[Entry],
    decide: Callable[[list[Entry]], tuple[Record | None, _Answer]],
    attempts: int = 200,
) -> _Answer:
    """
    Decide on what *stream* holds, and write the decision on that very state: whoever loses reads on and decides anew.

    :param entries: the stream as far as it is known, from its begin; what is read is added.
    :param decide: returns what to write, ``None`` for nothing, and the answer.
    :param attempts: how many times to try when others write at the same time.
    :return: the answer of the decision that counts.
    :raises ConflictError: others were faster every time.
    """
    for _ in range(attempts):
        record, answer = decide(entries)
        if record is None:
            return answer
        known = entries[-1].sequence if entries else 0
        try:
            journal.append(stream, known, record)
        except ConflictError as error:
            conflict, kind = error, record.kind
            entries += journal.read(stream, after=known)
        else:
            return answer
    raise ConflictError(f"{stream}: {attempts} attempts to append {kind!r} lost against others.") from conflict


def read_intact(journal: Journal, stream: str) -> list[Entry]:
    """
    Return all entries of *stream* after checking its chain: for decisions that must not rest on an edited entry.

    :raises DataError: the chain is broken; the message names the entries.
    """
    entries = journal.read(stream)
    breaks = verify(entries)
    if breaks:
        what = " ".join(fault.sentence for fault in breaks[:3])
        raise DataError(
            f"The journal of {stream} was changed from outside: {what} Nothing is decided on it. "
            "See `mlops journal verify`, and restore the entries from a backup or an export."
        )
    return entries
