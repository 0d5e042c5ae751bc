"""What all boards share: the machine they ran on and how their results are written."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the timings."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory[0] / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def goal(name: str, wanted: str, value: float | str, holds: bool) -> dict[str, Any]:
    """Return one goal of a board, and print it as it becomes known."""
    print(f"{'holds ' if holds else 'FAILS '} {name}: {value} (goal {wanted})", flush=True)
    return {"name": name, "goal": wanted, "value": value, "holds": bool(holds)}


def write(board: str, goals: list[dict[str, Any]], rows: list[dict[str, Any]]) -> int:
    """Write ``results/BOARD.json`` and return the exit status: 0 when every goal holds."""
    RESULTS.mkdir(exist_ok=True)
    result = {"board": board, "machine": machine(), "goals": goals, "rows": rows}
    (RESULTS / f"{board}.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(item["holds"] for item in goals) else 1


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """Return the CPU seconds, user and system, that *who* (this process, or its ended children) has used."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of *values* that at least *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1))]


def load() -> float:
    """Return how many processes wanted a core over the last minute: timings above 3 on two cores mean little."""
    return round(os.getloadavg()[0], 2)


def aligned(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return *columns* of *rows* as lines of text, for people."""
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(text) for text in texts) for texts in zip(columns, *cells, strict=True)]
    lines = (columns, ["-" * width for width in widths], *cells)
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print *columns* of *rows*."""
    print(aligned(rows, columns), end="\n\n", flush=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
