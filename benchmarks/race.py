"""
Many processes want the same thing at once: one gets it, nothing is lost, and whoever is killed is made good.

``python benchmarks/race.py [--races 100] [--processes 50] [--postgres URL]`` writes ``results/race.json``.
*promote*: every process wants to move the alias from version 1 to a version of its own. *request*: every process asks
for a training. *kill*: one process promotes and gets SIGKILL at a random moment; another promotes after it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from common import goal, write

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.errors import MlopsError
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads, verify
from airflow_provider_mlops.promotion import ModelVersion, PromotionRequest, promote, state
from airflow_provider_mlops.retraining import RetrainPolicy, Trigger, request

FORK = multiprocessing.get_context("fork")  # a race needs its runners ready: an import each would spread the start


class FileRegistry:
    """A registry whose aliases are files, written as careless as a registry may be: the last writer wins."""

    def __init__(self, folder: Path):
        self.folder = folder

    def version(self, model, version):
        return ModelVersion(model, version, f"run{version}", "models:/m", {}, ())

    def version_of(self, model, *, alias):
        file = self.folder / f"{model}@{alias}"
        return file.read_text() if file.exists() else None

    def set_alias(self, model, *, alias, version):
        new = self.folder / f"new.{os.getpid()}"
        new.write_text(version)
        new.rename(self.folder / f"{model}@{alias}")


def promotion(journal, registry, version, expected, owner, ahead=timedelta(0)):
    wish = PromotionRequest(
        model="m",
        version=version,
        expected_champion=expected,
        actor=owner,
        owner=owner,
        gate={"verdict": "passed", "digest": "d"},
    )
    return promote(wish, journal=journal, registry=registry, clock=lambda: datetime.now(UTC) + ahead)


def runner(act, barrier, results, number):
    barrier.wait()
    try:
        results.put(act(number))
    except MlopsError as error:
        results.put(type(error).__name__)


def run_at_once(act, processes):
    """Return how often each outcome happened when *act* ran in that many processes at the same time."""
    barrier, results = FORK.Barrier(processes), FORK.SimpleQueue()
    workers = [FORK.Process(target=runner, args=(act, barrier, results, n)) for n in range(processes)]
    for worker in workers:
        worker.start()
    outcomes = Counter(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return outcomes


def race_promotions(url, folder, processes):
    registry = FileRegistry(folder)
    promotion(SqlJournal(url), registry, "1", None, "first")

    def act(number):
        evidence = payloads.model_registered(version=str(number + 2), run_id=f"run{number + 2}", source="s")
        journal = SqlJournal(url)
        append_next(journal, model_stream("m"), Record(kinds.MODEL_REGISTERED, datetime.now(UTC), "me", evidence), 1000)
        return "won" if promotion(journal, registry, str(number + 2), "1", f"p{number}").changed else "unchanged"

    began = time.perf_counter()
    outcomes = run_at_once(act, processes)
    seconds = time.perf_counter() - began
    entries = SqlJournal(url).read(model_stream("m"))
    folded = state(entries)
    registered = sum(entry.record.kind == kinds.MODEL_REGISTERED for entry in entries)
    return {
        "seconds": seconds,
        "one_winner": outcomes["won"] == 1 and outcomes["PromotionConflictError"] == processes - 1,
        "lost": processes - registered + (len(folded.moves) != 2),
        "linear": verify(entries) == [] and [entry.sequence for entry in entries] == list(range(1, len(entries) + 1)),
        "agree": folded.champion("champion") == registry.version_of("m", alias="champion") and folded.pending is None,
    }


def race_requests(url, _folder, processes):
    def act(number):
        decision = request(
            SqlJournal(url),
            RetrainPolicy(),
            "m",
            key=f"k{number % 3}",
            trigger=Trigger.SCHEDULE,
            owner=f"scheduler {number}",
            actor="me",
            clock=lambda: datetime.now(UTC),
        )
        return decision.verdict.value

    SqlJournal(url).migrate()
    began = time.perf_counter()
    outcomes = run_at_once(act, processes)
    seconds = time.perf_counter() - began
    entries = SqlJournal(url).read(model_stream("m"))
    granted = sum(entry.record.payload["verdict"] == "train" for entry in entries)
    return {
        "seconds": seconds,
        "one_winner": outcomes["train"] == 1 == granted,
        "lost": sum(outcomes[verdict] for verdict in ("train", "wait", "blocked")) - len(entries),
        "linear": verify(entries) == [],
        "agree": True,
        "gave_up": outcomes["ConflictError"],
    }


def kill_promotion(url, folder, _processes):
    registry = FileRegistry(folder)
    promotion(SqlJournal(url), registry, "1", None, "first")
    barrier, results = FORK.Barrier(2), FORK.SimpleQueue()
    victim = FORK.Process(
        target=runner,
        args=(lambda _: promotion(SqlJournal(url), registry, "2", "1", "victim").sentence, barrier, results, 0),
    )
    victim.start()
    barrier.wait()
    time.sleep(random.uniform(0, 0.12))
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    died_at = [entry.record.kind for entry in SqlJournal(url).read(model_stream("m"))][-1]
    died_at += ", alias moved" if registry.version_of("m", alias="champion") == "2" else ""
    began = time.perf_counter()
    done = promotion(SqlJournal(url), registry, "2", "1", "next", ahead=timedelta(minutes=3))
    entries = SqlJournal(url).read(model_stream("m"))
    folded = state(entries)
    return {
        "seconds": time.perf_counter() - began,
        "one_winner": (done.version, done.previous) == ("2", "1"),
        "lost": len(folded.moves) != 2,
        "linear": verify(entries) == [],
        "agree": folded.champion("champion") == registry.version_of("m", alias="champion") and folded.pending is None,
        "died_at": died_at,
    }


def databases(postgres):
    """Yield a name and a function that makes an empty journal: its URL."""
    yield "sqlite", lambda folder, _n: f"sqlite:///{folder}/journal.db"
    if postgres:
        server = sa.make_url(postgres)

        def create(_folder, name):
            engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
            with engine.connect() as connection:
                connection.execute(sa.text(f'DROP DATABASE IF EXISTS "{name}"'))
                connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
            url = server.set(database=name).render_as_string(hide_password=False)
            SqlJournal(url).migrate()
            return url

        yield "postgresql", create


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--postgres", help="URL of a PostgreSQL server that may create databases; left out without it")
    options = parser.parse_args()
    random.seed(1)
    goals, rows = [], []
    for database, create in databases(options.postgres):
        for name, race in (("promote", race_promotions), ("request", race_requests), ("kill", kill_promotion)):
            results = []
            for number in range(options.races):
                with tempfile.TemporaryDirectory() as folder:
                    url = create(folder, f"race_{name}_{number % 2}")
                    results.append(race(url, Path(folder), options.processes))
            row = {
                "race": name,
                "database": database,
                "races": options.races,
                "processes": 1 if name == "kill" else options.processes,
                "without_one_winner": sum(not result["one_winner"] for result in results),
                "lost_updates": sum(result["lost"] for result in results),
                "broken_chains": sum(not result["linear"] for result in results),
                "alias_and_journal_disagree": sum(not result["agree"] for result in results),
                "gave_up": sum(result.get("gave_up", 0) for result in results),
                "seconds_median": round(sorted(result["seconds"] for result in results)[len(results) // 2], 3),
            }
            if name == "kill":
                row["died_at"] = dict(Counter(result["died_at"] for result in results))
            rows.append(row)
            faults = sum(
                row[key]
                for key in ("without_one_winner", "lost_updates", "broken_chains", "alias_and_journal_disagree")
            )
            goals.append(goal(f"{name} on {database}: races with a fault", "0", faults, faults == 0))
    return write("race", goals, rows)


if __name__ == "__main__":
    raise SystemExit(main())
