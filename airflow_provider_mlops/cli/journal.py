"""``mlops journal``: what happened to a model, and whether the record of it is whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import DataError, NotFoundError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from airflow_provider_mlops.adapters.journal.sql import SqlJournal
    from airflow_provider_mlops.journal import Entry

__all__ = ["check", "export", "migrate", "show", "why"]

_FOUND = 1


def show(arguments: Namespace) -> int:
    """Print the history of a model, a line per entry."""
    from airflow_provider_mlops.journal.narrative import explain

    entries = _history(_journal(arguments), arguments.model, arguments.last)
    _warn(entries, whole=arguments.last is None)
    print("\n".join(explain(entries, arguments.model)))
    return 0


def why(arguments: Namespace) -> int:
    """Print the entries that made the model in use the model in use, and who rejected a later one."""
    from airflow_provider_mlops.journal.narrative import explain

    entries = _history(_journal(arguments), arguments.model)
    _warn(entries)
    reasons = _reasons(entries, arguments.alias)
    if not reasons:
        print(
            f"No version of {arguments.model!r} was ever made {arguments.alias!r}. `mlops journal show` tells the rest."
        )
    told = explain([*reasons, *_rejections(entries, reasons)], arguments.model)
    if told:
        print("\n".join(told))
    return 0 if reasons else _FOUND


def check(arguments: Namespace) -> int:
    """Check the chain of every stream."""
    from airflow_provider_mlops.journal import verify
    from airflow_provider_mlops.journal.export import heads_of

    heads = heads_of(_text(arguments.against)) if arguments.against else {}
    journal = _journal(arguments)
    streams = journal.streams()
    count = found = 0

    def counted(entries: Iterator[Entry]) -> Iterator[Entry]:
        nonlocal count
        for entry in entries:
            count += 1
            yield entry

    for stream in (*sorted({*streams, *heads}), None):  # None: rows whose stream is none any more
        noted = {stream: heads[stream]} if stream in heads else None
        breaks = verify(counted(journal.scan(stream)), noted)
        for fault in breaks:
            print(f"{fault.stream}: {fault.code}: {fault.sentence}")
        found += len(breaks)
    if not count and not found:
        print("There is no entry: nothing was verified. Is this the journal that the deployment writes?")
        return _FOUND
    where = f"{count} entries of {len(streams)} model{'s' if len(streams) != 1 else ''}"
    print(f"{where}: {f'{found} break' + 's' * (found != 1) if found else 'intact'}.")
    return _FOUND if found else 0


def export(arguments: Namespace) -> int:
    """Print all entries, or those of one model, or write them to a new file."""
    from airflow_provider_mlops.journal.export import export as exported

    journal = _journal(arguments)
    if arguments.model:
        entries = _history(journal, arguments.model)
    else:
        entries = [entry for stream in journal.streams() for entry in journal.read(stream)]
    _warn(entries)
    text = exported(entries, arguments.format)
    if arguments.output is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        with Path(arguments.output).open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    return 0


def migrate(arguments: Namespace) -> int:
    """Create the table, or bring it up to date."""
    journal = _journal(arguments)
    journal.migrate()
    print(f"The journal at {journal.address} is ready.")
    return 0


def _journal(arguments: Namespace) -> SqlJournal:
    from airflow_provider_mlops.adapters.journal.sql import SqlJournal

    if arguments.url:
        return SqlJournal(arguments.url)
    from airflow_provider_mlops.hooks.journal import JournalHook

    journal = JournalHook().journal
    if not isinstance(journal, SqlJournal):
        raise TypeError(type(journal).__name__)
    return journal


def _warn(entries: list[Entry], *, whole: bool = True) -> None:
    """
    Say on standard error that what is about to be told is not what was written.

    :param whole: whether *entries* are all of their streams; else those before the first are not missed.
    """
    from airflow_provider_mlops.journal import verify

    faults = [f for f in verify(entries) if whole or f.code != "removed" or f.sequence > entries[0].sequence]
    if faults:
        print(
            f"warning: {faults[0].stream} was changed from outside: {faults[0].sentence} See `mlops journal verify`.",
            file=sys.stderr,
        )


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8, so no journal export.") from error


def _history(journal: SqlJournal, model: str, last: int | None = None) -> list[Entry]:
    """Return the entries of *model*, or its newest *last*."""
    from airflow_provider_mlops.journal import model_stream

    stream = model_stream(model)
    entries = journal.read(stream, after=journal.last_sequence(stream) - last if last else 0)
    if not entries:
        known = [stream.removeprefix("model/") for stream in journal.streams()]
        raise NotFoundError("Model", model, known=known, hint=f"The journal at {journal.address} knows nothing of it.")
    return entries


def _reasons(entries: list[Entry], alias: str) -> list[Entry]:
    """Return what led to the last promotion to *alias*, oldest first: entries about its version, run and request."""
    from airflow_provider_mlops.journal import kinds

    def last(kind: str, key: str, value: object) -> Entry | None:
        found = [e for e in entries if e.record.kind == kind and e.record.payload.get(key) == value]
        return found[-1] if found and value is not None else None

    done = last(kinds.PROMOTION_DONE, "alias", alias)
    if done is None:
        return []
    version = done.record.payload.get("version")
    registered = last(kinds.MODEL_REGISTERED, "version", version)
    run = registered.record.payload.get("run_id") if registered else None
    trained = last(kinds.TRAINING_FINISHED, "run_id", run)
    key = trained.record.payload.get("key") if trained else None
    found = [
        last(kinds.RETRAINING_DECIDED, "key", key),
        trained,
        last(kinds.GATE_DECIDED, "run_id", run),
        registered,
        last(kinds.MODEL_SMOKE_TESTED, "version", version),
        last(kinds.APPROVAL_ANSWERED, "version", version),
        last(kinds.OVERRIDE_USED, "version", version),
        done,
        last(kinds.ROLLOUT_FINISHED, "version", version),
    ]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.sequence)


def _rejections(entries: list[Entry], reasons: list[Entry]) -> list[Entry]:
    """Return where a person said no after the promotion among *reasons*: why nothing newer is in use."""
    from airflow_provider_mlops.journal import kinds

    since = max((entry.sequence for entry in reasons if entry.record.kind == kinds.PROMOTION_DONE), default=0)
    answers = [entry for entry in entries if entry.record.kind == kinds.APPROVAL_ANSWERED and entry.sequence > since]
    return [entry for entry in answers if entry.record.payload.get("approved") is False]
