"""The journal in memory."""

from __future__ import annotations

import threading

from airflow_provider_mlops.errors import ConflictError
from airflow_provider_mlops.journal.record import GENESIS, Entry, Record, check_name


class MemoryJournal:
    def __init__(self):
        self.entries: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()

    def append(self, stream: str, expected_sequence: int | None, record: Record) -> Entry:
        check_name("stream", stream)
        with self._lock:
            rows = self.entries.get(stream, [])
            if expected_sequence not in (None, len(rows)):
                raise ConflictError(f"{stream} ends at entry {len(rows)}, not at {expected_sequence}.")
            entry = Entry.following(stream, len(rows) + 1, record, rows[-1].hash if rows else GENESIS)
            self.entries.setdefault(stream, []).append(entry)
            return entry

    def read(self, stream: str, after: int = 0) -> list[Entry]:
        return [entry for entry in self.entries.get(stream, []) if entry.sequence > after]

    def last_sequence(self, stream: str) -> int:
        return len(self.entries.get(stream, []))

    def streams(self) -> list[str]:
        return sorted(self.entries)
