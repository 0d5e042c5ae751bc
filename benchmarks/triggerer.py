"""
What do 1,000 waiting drift sensors cost the one event loop of a triggerer, and do they block it?

    python benchmarks/triggerer.py

1,000 triggers, each on a folder of its own with ten files, polled once a minute, run in one loop as the triggerer
runs them, next to a watchdog that does what the triggerer's does: sleep 0.1 s and look how long that took. All 1,000
were started in the same moment, the worst case (after a restart of the triggerer), so their listings come at once.
Beside it Airflow's own FileTrigger on a glob over the same folders that matches nothing. Writes
``benchmarks/results/triggerer.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

from common import cpu_seconds, goal, load, quantile, table, write

TRIGGERS = 1_000
FILES = 10
POLL = 60.0
FIRST = 15.0
SECONDS = 60.0


async def watch(intervals):
    """The triggerer's watchdog, which keeps what it saw."""
    while True:
        last = time.monotonic()
        await asyncio.sleep(0.1)
        intervals.append(time.monotonic() - last)


async def follow(trigger, events):
    """Run one trigger as the triggerer does, with a portal that lets it call back from synchronous code."""
    await import_module("greenback").ensure_portal()
    async for event in trigger.run():
        events.append(event)


async def run(make, folders):
    events, intervals = [], []
    followers = [asyncio.create_task(follow(make(folder), events)) for folder in folders]
    await asyncio.sleep(FIRST - 5)  # so that the minute holds one listing of each of either trigger
    intervals.clear()
    watchdog = asyncio.create_task(watch(intervals))
    cpu, wall = cpu_seconds(), time.monotonic()
    await asyncio.sleep(SECONDS)
    cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
    alive = sum(not follower.done() for follower in followers)
    for waiting in (watchdog, *followers):
        waiting.cancel()
    await asyncio.gather(watchdog, *followers, return_exceptions=True)
    return {
        "waiting_at_the_end": alive,
        "events": len(events),
        "cpu_share_percent": round(100 * cpu / wall, 2),
        "cpu_ms_per_listing": round(1000 * cpu / len(folders), 3),
        "watchdog_p99_seconds": round(quantile(intervals, 0.99), 4),
        "watchdog_longest_seconds": round(max(intervals), 4),
    }


def ours(folder):
    from airflow_provider_mlops.adapters.fingerprint import fingerprint
    from airflow_provider_mlops.triggers.data import NewDataTrigger

    trigger = NewDataTrigger(path=folder, seen=fingerprint(folder), poll_interval=POLL, minimum_wait=FIRST)
    trigger.task_instance = SimpleNamespace(task_id="wait")  # it waits for a task, not for an asset
    return trigger


def airflows(folder):
    from airflow.providers.standard.triggers.file import FileTrigger

    return FileTrigger(filepath=f"{folder}/*.missing", poke_interval=POLL)


def side(name, folder):
    """Measure one side; runs in a process of its own."""
    import airflow.triggers.base  # noqa: F401 - what every triggerer has loaded

    before = cpu_seconds()
    makers = {"NewDataTrigger": ours, "FileTrigger": airflows}
    folders = sorted(str(path) for path in Path(folder).iterdir())
    makers[name](folders[0])
    loaded = cpu_seconds() - before
    row = {"trigger": name, "triggers": len(folders), "load_average": load(), "import_cpu_seconds": round(loaded, 3)}
    return {**row, **asyncio.run(run(makers[name], folders))}


def measured(name, folder, environment):
    code = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import triggerer; "
    code += f"print(json.dumps(triggerer.side({name!r}, {folder!r})))"
    answer = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(answer.stdout.splitlines()[-1])


def main():
    with tempfile.TemporaryDirectory() as made:
        data = Path(made) / "data"
        for number in range(TRIGGERS):
            folder = data / f"{number:04}"
            folder.mkdir(parents=True)
            for part in range(FILES):
                (folder / f"part-{part}.parquet").write_bytes(b"PAR1")
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(Path(made) / "home"),
        }
        us, them = (measured(name, str(data), environment) for name in ("NewDataTrigger", "FileTrigger"))
    table(
        [us, them],
        ["trigger", "triggers", "cpu_share_percent", "cpu_ms_per_listing", "watchdog_longest_seconds", "load_average"],
    )
    share, longest = us["cpu_share_percent"], us["watchdog_longest_seconds"]
    goals = [
        goal("1,000 triggers: share of one core over a minute, percent", "< 25", share, share < 25),
        goal("longest interval of the watchdog (0.1 s of sleep included), s", "< 0.2", longest, longest < 0.2),
        goal("triggers that still wait", TRIGGERS, us["waiting_at_the_end"], us["waiting_at_the_end"] == TRIGGERS),
    ]
    return write("triggerer", goals, [us, them])


if __name__ == "__main__":
    sys.exit(main())
