"""
What does a drift check of 50 columns cost, next to merely reading the file, and next to other libraries?

    python benchmarks/drift_cost.py [--large] [--without-peers]

Seeded Parquet files of 35 numeric and 15 categorical columns (up to 10,000 values), a million rows each, in row groups
of a million. Every side is a process of its own, started anew: CPU seconds of all its threads, wall time, peak memory.
The other libraries run with their defaults, by the scripts in ``benchmarks/peers``, for each of which uv makes an
environment of its own. Writes ``benchmarks/results/drift-cost.json``. ``--large`` takes a file of ten million rows and
a folder of ten such files, of which ``--max-rows`` reads a part, and writes ``drift-cost-large.json``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import goal, load, table, write

SEED = 20_260_102
CHUNK = 1_000_000  # rows, and rows of a row group
FILES = 10  # of the folder of a hundred million rows
MOST = 5_000_000  # rows to read of that folder
REPEATS = 5
PEERS = Path(__file__).parent / "peers"

DECODE = """\
import resource, sys
import pyarrow.parquet as pq

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

before = cpu()
with pq.ParquetFile(sys.argv[1]) as file:
    rows = sum(batch.num_rows for batch in file.iter_batches())
print(cpu() - before)
"""


def columns(rng, rows):
    """Return one chunk of the 50 columns: what tables in use hold, tied, skewed, rare and missing values included."""
    import numpy as np
    import pyarrow as pa

    made = {}
    for number in range(10):
        made[f"normal_{number}"] = rng.normal(number, 1 + number, rows)
    for number in range(10):
        made[f"amount_{number}"] = np.round(rng.lognormal(3, 1, rows), 2)
    for number in range(5):
        values = rng.normal(size=rows)
        made[f"missing_{number}"] = pa.array(values, mask=rng.random(rows) < 0.05 * (number + 1))
    for number in range(5):
        made[f"zero_inflated_{number}"] = np.where(rng.random(rows) < 0.7, 0.0, rng.exponential(10, rows))
    for number in range(5):
        made[f"count_{number}"] = rng.poisson(2 * 4**number, rows)
    for number, size in enumerate((2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 10_000)):
        share = 1 / np.arange(1, size + 1)
        codes = np.searchsorted(np.cumsum(share / share.sum()), rng.random(rows))
        names = pa.array([f"value {code:05}" for code in range(size)])
        made[f"category_{number}"] = names.take(pa.array(np.minimum(codes, size - 1)))
    return made


def generate(path, seed, chunks):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng([SEED, seed])
    writer = None
    for _ in range(chunks):
        rows = pa.table(columns(rng, CHUNK))
        writer = writer or pq.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    writer.close()


def process(*command):
    """Run *command* to its end; return CPU and wall seconds, peak memory and what it printed."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdout=output)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
    if child.returncode:
        raise RuntimeError(f"{command[:4]} ended with {child.returncode}")
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": time.monotonic() - begin,
        "peak_mib": used.ru_maxrss / 1024,
    }, text


def middle(side, runs, **more):
    """Return the row of one side: the median of its runs."""
    values = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    return {"side": side, "runs": len(runs), **values, **more}


def decoded(current, repeats):
    """Return the row of the bare decode: the whole process, and what only the reading took."""
    runs = [process(sys.executable, "-c", DECODE, current) for _ in range(repeats)]
    reading = statistics.median(float(text) for _, text in runs)
    return middle("pyarrow, bare decode", [run for run, _ in runs], reading_cpu_seconds=round(reading, 3))


def ours(side, arguments, repeats):
    command = [sys.executable, "-m", "airflow_provider_mlops.drift", *map(str, arguments), "--json"]
    return middle(side, [process(*command)[0] for _ in range(repeats)])


def peer(script, reference, current):
    """Return the row of one library's defaults in an environment of its own, or one that says why it did not run."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    try:
        subprocess.run([uv, "sync", "--quiet", "--script", script, "--python", sys.executable], check=True)
        found = subprocess.run([uv, "python", "find", "--script", script], check=True, capture_output=True, text=True)
        python = found.stdout.strip()
        freeze = [uv, "pip", "freeze", "--python", python]
        versions = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
        run, _ = process(python, "-W", "ignore", str(script), reference, current)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        return {"side": script.stem, "runs": 0, "not_run": str(error).replace(str(PEERS), "peers")}
    package = script.stem.removesuffix("_loop").replace("_", "-")
    version = next(line.partition("==")[2] for line in versions.splitlines() if line.startswith(f"{package}=="))
    return middle(f"{script.stem}, both from files", [run], version=version)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory() as made:
        reference, current, profile = (str(Path(made) / name) for name in ("a.parquet", "b.parquet", "reference.json"))
        chunks = 10 if options.large else 1
        for path, seed, count in ((reference, 1, 1), (current, 2, chunks)):
            # In a process of its own: the peak memory of a child is never below that of its parent.
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import drift_cost; "
            subprocess.run([sys.executable, "-c", f"{code}drift_cost.generate({path!r}, {seed}, {count})"], check=True)
        process(sys.executable, "-m", "airflow_provider_mlops.drift", reference, reference, "--save-profile", profile)
        if options.large:
            rows, goals = large(current, profile, Path(made) / "folder")
        else:
            rows, goals = small(reference, current, profile, peers=not options.without_peers)
        file = {"columns": 50, "file_mib": round(Path(current).stat().st_size / 2**20), "row_group": CHUNK}
    rows = [{**row, **file, "load_average": before} for row in rows]
    table(rows, ["side", "rows", "cpu_seconds", "reading_cpu_seconds", "wall_seconds", "peak_mib", "runs", "not_run"])
    return write("drift-cost-large" if options.large else "drift-cost", goals, rows)


def small(reference, current, profile, *, peers):
    """Return rows and goals of a million rows against a million."""
    decode = decoded(current, REPEATS)
    stored = ours("ours, stored reference", [profile, current], REPEATS)
    both = ours("ours, both from files", [reference, current], REPEATS)
    rows = [decode, stored, both]
    rows += [peer(script, reference, current) for script in sorted(PEERS.glob("*.py"))] if peers else []
    goals = against("1M x 50, stored reference", stored, decode, 2.0)
    for row in rows:
        if row["side"].startswith("evidently") and row["runs"]:
            times = round(row["cpu_seconds"] / both["cpu_seconds"], 1)
            goals.append(goal("Evidently's CPU / ours, both sides from files", ">= 70", times, times >= 70))
    return [{**row, "rows": CHUNK} for row in rows], goals


def large(current, profile, folder):
    """Return rows and goals of ten million rows, and of a part of a hundred million."""
    decode = decoded(current, 3)
    stored = ours("ours, stored reference", [profile, current], 3)
    folder.mkdir()
    for number in range(FILES):
        os.link(current, folder / f"{number}.parquet")
    part = ours(f"ours, stored reference, --max-rows {MOST:,}", [profile, folder, "--max-rows", MOST], 3)
    goals = against("10M x 50, stored reference", stored, decode, 1.3)
    peak = max(row["peak_mib"] for row in (stored, part))
    goals.append(goal("10M and 100M x 50: peak memory, MiB", "<= 500", peak, peak <= 500))
    for unit in ("cpu_seconds", "wall_seconds"):
        times = round(part[unit] / stored[unit], 2)
        goals.append(goal(f"100M with --max-rows / 10M, {unit.replace('_', ' ')}", "<= 3", times, times <= 3))
    return [{**decode, "rows": 10 * CHUNK}, {**stored, "rows": 10 * CHUNK}, {**part, "rows": FILES * 10 * CHUNK}], goals


def against(size, stored, decode, limit):
    """Return the goals of our whole process next to a process that decodes, and next to its decoding alone."""
    ratio = round(stored["cpu_seconds"] / decode["reading_cpu_seconds"], 2)
    whole = round(stored["cpu_seconds"] / decode["cpu_seconds"], 2)
    return [
        goal(f"{size}: our whole process / reading alone, CPU", f"<= {limit}", ratio, ratio <= limit),
        goal(f"{size}: our whole process / a process that only reads, CPU", f"<= {limit}", whole, whole <= limit),
    ]


if __name__ == "__main__":
    sys.exit(main())
