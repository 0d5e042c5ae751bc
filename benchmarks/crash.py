"""
A task is killed by SIGKILL after each of its persisted steps and run again: every time the same end, once.

``python benchmarks/crash.py`` writes ``results/crash.json``. A persisted step is what others can see: a request that
changes something in MLflow, an entry in the journal, a job, a file made for good. Against a real MLflow server, with
the journal in SQLite; the worlds, and how to die in them, are those of ``tests/dags/test_kills.py``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import goal, load, write

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "dags")]


def train(world, _trained, case, **more):
    return world.train(case, **more)


def register(world, trained, case, **more):
    arguments = {"model": case, "run_id": trained["run_id"], "data_digest": "sha256:0", "gate_digest": "sha256:1"}
    return world.run("model.RegisterModelOperator", case, arguments, **more)


def promote(world, trained, case, **more):
    from test_kills import registered

    if not world.registry.versions(case):
        registered(world, case, trained)
    return world.run("model.PromoteModelOperator", case, {"model": case, "version": "1"}, **more)


def trained_once(world, case, again):
    finished = [run for run in world.runs(case) if run.status == "FINISHED"]
    told = world.kinds(case)
    return {
        "converged": bool(finished) and finished[0].run_id == again.result["run_id"],
        "duplicates": len(finished) - 1 + told.count("training.finished") - 1,
        "left_running": sum(run.status == "RUNNING" for run in world.runs(case)),
    }


def registered_once(world, case, again):
    versions = world.registry.versions(case)
    return {
        "converged": [version.aliases for version in versions] == [("challenger",)]
        and again.result["version"] == versions[0].version,
        "duplicates": len(versions) - 1 + world.kinds(case).count("model.registered") - 1,
        "left_running": 0,
    }


def promoted_once(world, case, _again):
    from airflow_provider_mlops.hooks.journal import JournalHook
    from airflow_provider_mlops.journal import model_stream
    from airflow_provider_mlops.promotion import state

    folded = state(JournalHook().journal.read(model_stream(case)))
    return {
        "converged": world.registry.version_of(case, alias="champion") == "1" == folded.champion("champion"),
        "duplicates": world.kinds(case).count("promotion.done") - 1,
        "left_running": int(folded.pending is not None),
    }


def kill_everywhere(world, trained, name, act, judge):
    """Kill *act* after its first step, the next case after its second, ...; return a row of the board."""
    killed, faults, began = [], Counter(), time.perf_counter()
    while True:
        case = f"crash_{name}_{len(killed) + 1}"
        ended = act(world, trained, case, kill_after=len(killed) + 1)
        if ended.signal is None:  # it had fewer steps: this one ran through
            break
        killed.append(ended.steps[-1])
        again = act(world, trained, case)
        if again.error is not None:
            faults["not_converged"] += 1
            print(f"{name}, killed after {killed[-1]}: {again.error}", file=sys.stderr)
            continue
        found = judge(world, case, again)
        faults["not_converged"] += not found["converged"]
        faults["duplicates"] += found["duplicates"]
        faults["left_running"] += found["left_running"]
    return {
        "what": name,
        "kill_points": len(killed),
        **{fault: faults[fault] for fault in ("not_converged", "duplicates", "left_running")},
        "seconds": round(time.perf_counter() - began, 1),
        "load": load(),
        "killed_after": killed,
    }


def main():
    goals, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "false"
        os.environ["AIRFLOW__MLOPS__STORAGE"] = str(folder / "world" / "storage")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        # Airflow reads these while it is imported.
        from services_mlflow import mlflow_server
        from test_kills import World

        for part in ("mlflow", "world"):
            (folder / part).mkdir()
        with mlflow_server(folder / "mlflow") as address:
            world = World(folder / "world", address)
            ready = world.train("crash_ready")
            if ready.error is not None:
                raise RuntimeError(ready.error)
            for what, act, judge in (
                ("train", train, trained_once),
                ("register", register, registered_once),
                ("promote", promote, promoted_once),
            ):
                row = kill_everywhere(world, ready.result, what, act, judge)
                rows.append(row)
                for fault in ("not_converged", "duplicates", "left_running"):
                    label = f"{what}, killed at {row['kill_points']} steps: {fault.replace('_', ' ')}"
                    goals.append(goal(label, "0", row[fault], row[fault] == 0))
            world.worker.close()
    return write("crash", goals, rows)


if __name__ == "__main__":
    raise SystemExit(main())
