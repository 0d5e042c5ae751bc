"""
Writes ``docs/benchmarks.md`` from what the boards last measured.

    python benchmarks/page.py
"""

from __future__ import annotations

import ast
import json
import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import RESULTS, aligned

WIDEST = 80  # characters of a list that a table shows
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """\
# Benchmarks

A board is one command with fixed seeds. It measures all sides in one run, ours and what it is compared with, prints a
table and writes `benchmarks/results/NAME.json`. This page is made from those files by `make bench-page`; what a board
fails or loses stands here as well. CPU seconds are user plus system time. `load_average` is how many processes wanted a
core in the minute before: timings of a busy machine are too long, so a goal that holds then holds on a quiet one.
"""
# What a reader should know before the numbers, and where the other side is better.
NOTES = {
    "parse": """\
A file by hand of as many PythonOperators is cheaper to build than ours: it holds no specification that must be read and
checked. `first_file_ms` is the first file of a process and pays the imports; `alone_in_a_fork_ms` is one file in a
process forked from the dag-processor, which is what each parse costs there.""",
    "overhead": """\
The empty task imports Airflow and does nothing. Most of what ours add is MLflow's client, whose import any task that
talks to MLflow pays; its own line says how much.""",
    "drift-cost": """\
Reading alone is what pyarrow takes to decode all columns in a process that already runs; the other goal compares whole
processes. A third of ours is imports: numpy, pyarrow and scipy.special. Text columns are counted by their dictionaries,
which the bare decode spells out. With both sides from files the reference is read twice, once to choose bins.""",
    "drift-cost-large": """\
The same on ten times the rows: what is fixed weighs less, and the memory is that of one batch, not of a row group. The
hundred million rows are the file of ten million under ten names.""",
    "drift-engines": """\
Measured on one core of a busy machine. Reading the file is by far the cheapest; a database is asked to spare moving its
rows, not CPU. SQLite and Spark are the slowest by far.""",
    "drift-trust": """\
Measured with `--full`. Where others are better: of a change of KS .2 or .3 in one column, among days that depend on
each other, ours sees 8 to 13 % or 52 to 61 %, and the rules that alarm in quiet weeks as well see all. alibi-detect too
keeps its .05 among independent rows of like numbers, and sees as much there; with 5,000 rows against 50, with days that
depend on each other, and at five million rows it alarms without need. Most small windows are `insufficient` by ours,
not quiet. With six years of rain ours sees 14 of 16 changed years. The rules of alibi-detect 0.13.0 and whylogs 1.6.4
are restated, not run.""",
    "triggerer": """\
Airflow's FileTrigger only matches names, and does so in the event loop itself; ours reads sizes and times of change in
a thread, which costs more CPU per listing and blocks less.""",
}


def command(board):
    """Return the command that wrote the results of *board*."""
    if board.endswith("-large"):
        name = board.removesuffix("-large")
        return f"python benchmarks/{name.replace('-', '_')}.py --large"
    return f"make bench-{board}"


def question(board):
    """Return what the board's file says that it asks."""
    file = Path(__file__).parent / f"{board.removesuffix('-large').replace('-', '_')}.py"
    return ast.get_docstring(ast.parse(file.read_text())).split("\n\n")[0]


def flat(row):
    """Return *row* with a column per key of its mappings, and long lists left to the results file."""
    found = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found.update(value)
        elif not (isinstance(value, list) and len(str(value)) > WIDEST):
            found[key] = value
    return found


def section(result):
    board, machine = result["board"], result["machine"]
    goals = [
        {"": "holds" if goal["holds"] else "FAILS", **{key: goal[key] for key in ("name", "goal", "value")}}
        for goal in result["goals"]
    ]
    tables = [aligned(goals, list(goals[0]))]
    for _, rows in groupby(map(flat, result["rows"]), key=list):
        kept = list(rows)
        tables.append(aligned(kept, list(kept[0])))
    note = [NOTES[board]] if board in NOTES else []
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}"
    measured = "\n\n".join(tables)
    return "\n\n".join(
        [f"## {board}", question(board), *note, f"```text\n$ {command(board)}\n{where}\n\n{measured}\n```"]
    )


def page():
    """Return the page that the results in ``benchmarks/results`` make."""
    results = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return "\n".join([HEAD, *(f"{section(result)}\n" for result in results)])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
