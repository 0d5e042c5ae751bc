"""Entries as a file that an auditor can read and check without this package. Pure."""

from __future__ import annotations

import csv
import html
import io
import json
from itertools import groupby
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
    parts = "".join(
        f"<h2>{html.escape(stream)}</h2>\n<table><thead><tr>"
        + "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
        + "</tr></thead><tbody>\n"
        + "".join(map(_row, of_stream))
        + "</tbody></table>\n"
        for stream, of_stream in groupby(entries, key=lambda entry: entry.stream)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Journal</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_CSS}</style></head>'
        f"<body><main><h1>Journal</h1>\n{parts or '<p>There is no entry.</p>'}</main></body></html>\n"
    )


def _row(entry: Entry) -> str:
    cells = (
        str(entry.sequence),
        f"{entry.record.at:%Y-%m-%d %H:%M:%S} UTC",
        entry.record.actor,
        tell(entry.record),
        entry.hash,
    )
    shown = (f'<td data-label="{name}">{html.escape(text)}</td>' for name, text in zip(_HEAD, cells, strict=True))
    return f"<tr>{''.join(shown)}</tr>\n"


_HEAD = ("Entry", "When", "Who", "What and why", "Hash")

_CSS = """
:root{color-scheme:light dark;--bg:#f6f5f1;--card:#fff;--ink:#1b2227;--soft:#57626b;--line:#dcdad3}
@media (prefers-color-scheme:dark){:root{--bg:#12171b;--card:#1a2126;--ink:#e7ebee;--soft:#a3afb8;--line:#313b43}}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
main{max-width:1400px;margin:0 auto;padding:28px 24px 48px}
h1{margin:0;font-size:26px}h2{font-size:18px;margin:28px 0 10px}
table{border-collapse:collapse;width:100%;background:var(--card);border-radius:4px;box-shadow:0 1px 2px rgb(0 0 0/.08)}
th,td{padding:9px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
th{border-top:0;color:var(--soft);font-size:13px}
th,td:nth-child(-n+2){white-space:nowrap}td:nth-child(3){width:24%;color:var(--soft);font-size:14px}
td:last-child{width:17ch;color:var(--soft);font:12px/1.5 ui-monospace,Menlo,Consolas,monospace;word-break:break-all}
@media (max-width:700px){main{padding:12px 10px 28px}thead{display:none}
table,tbody,tr,td,td:nth-child(3),td:last-child{display:block;width:auto}
tr{padding:10px 0;border-top:1px solid var(--line)}tr:first-child{border-top:0}td{border:0;padding:1px 12px}
td::before{content:attr(data-label) ": ";color:var(--soft)}}
@media print{body{background:#fff}tr{break-inside:avoid}}
""".replace("\n", "")
