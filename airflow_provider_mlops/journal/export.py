"""Entries as a file that an auditor can read and check without this package. Pure."""

from __future__ import annotations

import csv
import html
import io
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean
from airflow_provider_mlops.journal.narrative import tell
from airflow_provider_mlops.journal.record import Head

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mlops.journal.record import Entry

__all__ = ["export", "heads_of"]

_COLUMNS = ("stream", "sequence", "at", "actor", "kind", "what", "payload", "previous_hash", "hash")


def export(entries: Iterable[Entry], format: str) -> str:  # noqa: A002 - the word that the command line uses
    """
    Return *entries* as one text.

    :param format: ``json`` (with the heads of the streams, see `heads_of`), ``csv``, or ``html`` (one file, no links).
    :raises ConfigError: another format.
    """
    formats = {"json": _json, "csv": _csv, "html": _html}
    if format not in formats:
        near = did_you_mean(format, formats)
        raise ConfigError(f"{format!r} is no format of an export; use {', '.join(formats)}.{near}")
    return formats[format](list(entries))


def heads_of(exported: str) -> dict[str, Head]:
    """
    Return where the streams ended in a JSON *exported* earlier: what `verify` needs to find a cut tail.

    :raises DataError: the text is no such export.
    """
    try:
        return {
            name: Head(int(head["sequence"]), str(head["hash"])) for name, head in json.loads(exported)["heads"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "This is no journal export in JSON. Make one with `mlops journal export --format json`."
        ) from error


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "stream": entry.stream,
        "sequence": entry.sequence,
        "at": entry.record.at.isoformat(timespec="microseconds"),
        "actor": entry.record.actor,
        "kind": entry.record.kind,
        "what": tell(entry.record),
        "payload": entry.record.payload,
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }


def _json(entries: list[Entry]) -> str:
    heads = {entry.stream: {"sequence": entry.sequence, "hash": entry.hash} for entry in entries}
    return json.dumps({"format": 1, "heads": heads, "entries": [_fields(entry) for entry in entries]}, indent=1) + "\n"


def _csv(entries: list[Entry]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for entry in entries:
        fields = {**_fields(entry), "payload": entry.record.text}
        writer.writerow([_cell(fields[column]) for column in _COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> Any:
    # A spreadsheet runs what begins with these; the apostrophe is its own mark for "this is text".
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _html(entries: list[Entry]) -> str:
    rows = "\n".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(text)}</td>"
            for text in (
                entry.stream,
                str(entry.sequence),
                f"{entry.record.at:%Y-%m-%d %H:%M:%S} UTC",
                entry.record.actor,
                tell(entry.record),
                entry.hash,
            )
        )
        + "</tr>"
        for entry in entries
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Journal</title><style>'
        "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border:1px solid #bbb;padding:.3em .5em;text-align:left;vertical-align:top}"
        "td:last-child{font:11px monospace;word-break:break-all}</style></head><body><h1>Journal</h1>\n<table>"
        "<thead><tr><th>Stream</th><th>Entry</th><th>When</th><th>Who</th><th>What and why</th><th>Hash</th>"
        "</tr></thead><tbody>\n"
        f"{rows}\n</tbody></table></body></html>\n"
    )
