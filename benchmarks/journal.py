"""
What the journal costs: an append, the history of a model among a million entries, a check of the chain.

``python benchmarks/journal.py [--entries 1000000]`` writes ``results/journal.json``. The entries are spread over a
thousand models. *append* is measured on this machine's disk, whose fsync is measured beside it, and on one whose every
fsync takes 4 ms more, since an entry that was appended is on the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import goal, load, quantile, write

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.cli.main import main as mlops
from airflow_provider_mlops.journal import Entry, Record, append_next, kinds, model_stream, payloads
from airflow_provider_mlops.journal.record import GENESIS

START = datetime(2020, 1, 1, tzinfo=UTC)
MODELS = 1000
APPENDS = 500
SLOW_FSYNC = """
#include <time.h>
#include <unistd.h>
static int wait_for_it(void) { struct timespec pause = {0, 4000000}; return nanosleep(&pause, 0); }
int fsync(int file) { (void)file; return wait_for_it(); }
int fdatasync(int file) { (void)file; return wait_for_it(); }
"""


def evidence(number):
    """Return an entry of the size that is usual: a judged window of twelve columns."""
    payload = payloads.drift_checked(
        window=f"2026-01-{number % 28 + 1:02}",
        verdict="no_drift",
        reason="within_variation",
        sentence="Nothing moved more than it does by itself: the largest change, 1.2 points of temperature, is usual.",
        columns=[f"column_{column}" for column in range(5)],
        numbers={f"column_{column}": {"distance": 0.01 * column, "p": 0.5} for column in range(12)},
    )
    return Record(kinds.DRIFT_CHECKED, START + timedelta(minutes=number), "airflow: rain__monitor r1 check", payload)


def append_milliseconds(folder):
    """Return how long each of many appends took, and each fsync of this disk."""
    journal = SqlJournal(f"sqlite:///{folder}/append.db")
    append_next(journal, "model/m", evidence(0))
    appends, syncs = [], []
    for number in range(1, APPENDS):
        record = evidence(number)
        began = time.perf_counter()
        journal.append("model/m", number, record)
        appends.append(1000 * (time.perf_counter() - began))
    with (Path(folder) / "probe").open("wb") as probe:
        for _ in range(100):
            probe.write(b"x" * 4096)
            probe.flush()
            began = time.perf_counter()
            os.fdatasync(probe.fileno())
            syncs.append(1000 * (time.perf_counter() - began))
    return appends, syncs


def append_on_a_slow_disk(folder):
    """Return the same, measured by a process whose every fsync takes 4 ms."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = Path(folder) / "slow_fsync.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=SLOW_FSYNC, text=True, check=True
    )
    script = "import sys, journal; print(*journal.append_milliseconds(sys.argv[1])[0])"
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def fill(folder, count):
    """Write *count* entries, as whole chains, without a commit for each. Returns the URL."""
    url = f"sqlite:///{folder}/full.db"
    SqlJournal(url).migrate()

    def rows():
        for model in range(MODELS):
            stream, previous = model_stream(f"model_{model}"), GENESIS
            for sequence in range(1, count // MODELS + 1):
                entry = Entry.following(stream, sequence, evidence(sequence), previous)
                record, previous = entry.record, entry.hash
                yield (
                    *(stream, sequence, record.kind, record.at.isoformat(timespec="microseconds"), record.actor),
                    *(record.text, entry.previous_hash, entry.hash),
                )

    with contextlib.closing(sqlite3.connect(f"{folder}/full.db")) as database, database:
        database.executemany("INSERT INTO mlops_journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows())
    return url


def seconds_of(*words):
    """Return how long a command of ``mlops journal`` takes in a running process, and how many lines it printed."""
    out = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(out):
        code = mlops(["journal", *words])
    if code:
        raise RuntimeError(f"mlops journal {' '.join(words)} ended with {code}")
    return time.perf_counter() - began, out.getvalue().count("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    goals, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        appends, syncs = append_milliseconds(folder)
        median, sync = quantile(appends, 0.5), quantile(syncs, 0.5)
        rows.append(
            {"what": "append", "median_ms": round(median, 2), "p95_ms": round(quantile(appends, 0.95), 2)}
            | {"fsync_median_ms": round(sync, 2), "load": load()}
        )
        goals.append(goal(f"append, fsync {sync:.1f} ms: median ms", "<= 5", round(median, 2), median <= 5))
        Path(folder, "append.db").unlink()
        slow = append_on_a_slow_disk(folder)
        if slow is not None:
            median = quantile(slow, 0.5)
            rows.append(
                {"what": "append", "median_ms": round(median, 2), "p95_ms": round(quantile(slow, 0.95), 2)}
                | {"fsync_median_ms": 4.0, "load": load()}
            )
            goals.append(goal("append, fsync 4.0 ms: median ms", "<= 5", round(median, 2), median <= 5))
        url = fill(folder, options.entries)
        shown = [seconds_of("show", f"model_{model}", "--url", url) for model in range(0, MODELS, 50)]
        show = quantile([seconds for seconds, _ in shown], 0.5)
        rows.append(
            {"what": "show", "entries": options.entries, "of_the_model": shown[0][1], "median_seconds": round(show, 4)}
        )
        goals.append(goal(f"show of a model among {options.entries:,}: seconds", "<= 0.2", round(show, 3), show <= 0.2))
        began = time.process_time()
        check = seconds_of("verify", "--url", url)[0] * 100_000 / options.entries
        spent = (time.process_time() - began) * 100_000 / options.entries
        rows.append(
            {"what": "verify", "entries": options.entries, "seconds_per_100k": round(check, 2)}
            | {"cpu_seconds_per_100k": round(spent, 2), "load": load()}
        )
        goals.append(goal("verify: seconds per 100,000 entries", "<= 10", round(check, 2), check <= 10))
        size = Path(folder, "full.db").stat().st_size
        rows.append({"what": "size", "entries": options.entries, "bytes_per_entry": size // options.entries})
    return write("journal", goals, rows)


if __name__ == "__main__":
    raise SystemExit(main())
