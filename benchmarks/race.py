"""
Many processes want the same thing at once: one gets it, nothing is lost, and whoever is killed is made good.

``python benchmarks/race.py [--races 100] [--processes 50] [--databases sqlite postgresql]`` writes
``results/race.json``. PostgreSQL is a private server without fsync: what is measured here is whether it is right.
*promote*: every process wants to move the alias from version 1 to a version of its own. *request*: every process asks
for a training. *kill*: one process promotes and gets SIGKILL at a random moment; another promotes after it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from common import goal, quantile, write

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.errors import MlopsError
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads, verify
from airflow_provider_mlops.promotion import ModelVersion, PromotionRequest, promote, state
from airflow_provider_mlops.retraining import RetrainPolicy, Trigger, request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from services import postgres_server

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


@lru_cache(maxsize=1)
def journal_at(url):
    """Return this process's journal: it keeps its connection from race to race, as a process keeps it."""
    return SqlJournal(url)


def promotion(journal, registry, model, version, expected, owner, ahead=timedelta(0)):
    wish = PromotionRequest(
        model=model,
        version=version,
        expected_champion=expected,
        actor=owner,
        owner=owner,
        gate={"verdict": "passed", "digest": "d"},
    )
    return promote(wish, journal=journal, registry=registry, clock=lambda: datetime.now(UTC) + ahead)


class Runners:
    """Processes that are ready, so that those of a race start at the same moment: each takes part in every race."""

    def __init__(self, count):
        self.count = count
        self._barrier, self._results = FORK.Barrier(count), FORK.SimpleQueue()
        self._orders = [FORK.SimpleQueue() for _ in range(count)]
        self._processes = [FORK.Process(target=self._run, args=(n,), daemon=True) for n in range(count)]
        for process in self._processes:
            process.start()

    def race(self, act, url, folder, model):
        """Return how often each outcome happened when all did *act* at the same time."""
        for orders in self._orders:
            orders.put((act, url, folder, model))
        return Counter(self._results.get() for _ in self._orders)

    def end(self):
        for orders in self._orders:
            orders.put(None)
        for process in self._processes:
            process.join()

    def _run(self, number):
        while (order := self._orders[number].get()) is not None:
            act, *where = order
            self._barrier.wait()
            self._results.put(outcome(act, *where, number))


def outcome(act, *arguments):
    try:
        return act(*arguments)
    except MlopsError as error:
        return type(error).__name__


def promote_own(url, folder, model, number):
    """Register a version of this process's own and want it to be the champion."""
    evidence = payloads.model_registered(version=str(number + 2), run_id=f"run{number + 2}", source="s")
    journal = journal_at(url)
    append_next(journal, model_stream(model), Record(kinds.MODEL_REGISTERED, datetime.now(UTC), "me", evidence), 1000)
    done = promotion(journal, FileRegistry(folder), model, str(number + 2), "1", f"p{number}")
    return "won" if done.changed else "unchanged"


def race_promotions(runners, url, folder, model):
    registry = FileRegistry(folder)
    promotion(journal_at(url), registry, model, "1", None, "first")
    began = time.perf_counter()
    outcomes = runners.race(promote_own, url, folder, model)
    seconds = time.perf_counter() - began
    entries = journal_at(url).read(model_stream(model))
    folded = state(entries)
    registered = sum(entry.record.kind == kinds.MODEL_REGISTERED for entry in entries)
    return {
        "seconds": seconds,
        "one_winner": outcomes["won"] == 1 and outcomes["PromotionConflictError"] == runners.count - 1,
        "lost": runners.count - registered + (len(folded.moves) != 2),
        "linear": verify(entries) == [] and [entry.sequence for entry in entries] == list(range(1, len(entries) + 1)),
        "agree": folded.champion("champion") == registry.version_of(model, alias="champion") and folded.pending is None,
        "outcomes": dict(outcomes),
    }


def request_own(url, _folder, model, number):
    """Ask for one of three trainings."""
    decision = request(
        journal_at(url),
        RetrainPolicy(),
        model,
        key=f"k{number % 3}",
        trigger=Trigger.SCHEDULE,
        owner=f"scheduler {number}",
        actor="me",
        clock=lambda: datetime.now(UTC),
    )
    return decision.verdict.value


def race_requests(runners, url, folder, model):
    began = time.perf_counter()
    outcomes = runners.race(request_own, url, folder, model)
    seconds = time.perf_counter() - began
    entries = journal_at(url).read(model_stream(model))
    granted = sum(entry.record.payload["verdict"] == "train" for entry in entries)
    return {
        "seconds": seconds,
        "one_winner": outcomes["train"] == 1 == granted,
        "lost": sum(outcomes[verdict] for verdict in ("train", "wait", "blocked")) - len(entries),
        "linear": verify(entries) == [],
        "agree": True,
        "gave_up": outcomes["ConflictError"],
        "outcomes": dict(outcomes),
    }


def kill_promotion(_runners, url, folder, model):
    registry = FileRegistry(folder)
    promotion(journal_at(url), registry, model, "1", None, "first")
    barrier = FORK.Barrier(2)

    def run():
        barrier.wait()
        outcome(promotion, journal_at(url), registry, model, "2", "1", "victim")

    victim = FORK.Process(target=run)
    victim.start()
    barrier.wait()
    time.sleep(random.uniform(0, 0.12))
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    died_at = [entry.record.kind for entry in journal_at(url).read(model_stream(model))][-1]
    died_at += ", alias moved" if registry.version_of(model, alias="champion") == "2" else ""
    began = time.perf_counter()
    done = promotion(journal_at(url), registry, model, "2", "1", "next", ahead=timedelta(minutes=3))
    entries = journal_at(url).read(model_stream(model))
    folded = state(entries)
    return {
        "seconds": time.perf_counter() - began,
        "one_winner": (done.version, done.previous) == ("2", "1"),
        "lost": len(folded.moves) != 2,
        "linear": verify(entries) == [],
        "agree": folded.champion("champion") == registry.version_of(model, alias="champion") and folded.pending is None,
        "died_at": died_at,
    }


@contextlib.contextmanager
def databases(names, folder):
    """Give, for each of *names*, the URL of a journal."""
    with contextlib.ExitStack() as stack:
        urls = {}
        if "sqlite" in names:
            urls["sqlite"] = f"sqlite:///{folder}/journal.db"
        if "postgresql" in names:
            urls["postgresql"] = stack.enter_context(postgres_server()).format(database="postgres")
        for url in urls.values():
            SqlJournal(url).migrate()
        yield urls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=("sqlite", "postgresql"))
    options = parser.parse_args()
    random.seed(1)
    goals, rows = [], []
    runners = Runners(options.processes)
    with tempfile.TemporaryDirectory() as folder, databases(options.databases, folder) as urls:
        for (database, url), (name, race) in itertools.product(
            urls.items(), (("promote", race_promotions), ("request", race_requests), ("kill", kill_promotion))
        ):
            home = Path(folder, f"{name} {database}")
            home.mkdir()
            results = [race(runners, url, home, f"{name}_{number}") for number in range(options.races)]
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
                "seconds_median": round(quantile([result["seconds"] for result in results], 0.5), 3),
            }
            if faulty := [result for result in results if not result["one_winner"]]:
                row["outcomes_without_one_winner"] = [result.get("outcomes") for result in faulty]
            if name == "kill":
                row["died_at"] = dict(Counter(result["died_at"] for result in results))
            rows.append(row)
            faults = sum(
                row[key]
                for key in ("without_one_winner", "lost_updates", "broken_chains", "alias_and_journal_disagree")
            )
            goals.append(goal(f"{name} on {database}: races with a fault", "0", faults, faults == 0))
        runners.end()
    return write("race", goals, rows)


if __name__ == "__main__":
    raise SystemExit(main())
