"""A target in memory: versions get ready when asked to, requests are answered by share, clients are counted."""

from __future__ import annotations

import hashlib
import itertools

from airflow_provider_mlops.errors import ConflictError
from airflow_provider_mlops.rollout.analysis import LATENCY_EDGES, Counts
from airflow_provider_mlops.rollout.target import Arm, Observation


class MemoryTarget:
    """Serves by rotation. *answer* says of a version and a request's number: ``(fails, latency bin)``."""

    def __init__(self, answer=lambda version, number: (False, 10), starts=lambda version: True):
        self.answer = answer
        self.starts = starts
        self.states = {}
        self.wishes = {}
        self.restarts = {}
        self.generation = itertools.count(1)
        self.counters = {}
        self.number = itertools.count()

    def read_state(self, name):
        state = self.states.get(name)
        return state, _token(state)

    def write_state(self, name, state, expected_token):
        if _token(self.states.get(name)) != expected_token:
            raise ConflictError(f"The rollout state of {name!r} was written by somebody else.")
        self.states[name] = state
        return _token(state)

    def observe(self, name):
        counter, counts, _failed, _credit = self.counters.get(name, ("", {}, set(), {}))
        arms = {
            action.version: Arm(
                percent=action.percent,
                ready=self.starts(action.version),
                restarts=self.restarts.get((name, action.version), 0),
                counts=_counts(counts.get(action.version)),
            )
            for action in self.wishes.get(name, ())
        }
        return Observation(arms=arms, counter=counter)

    def act(self, name, actions):
        before = {action.version: action.percent for action in self.wishes.get(name, ()) if action.percent}
        self.wishes[name] = actions
        if {action.version: action.percent for action in actions if action.percent} != before:
            self.counters[name] = (str(next(self.generation)), {}, set(), {})

    def ask(self, name, client="someone"):
        """Answer one request; return ``(version, failed)``, or ``(None, True)`` when nothing serves."""
        ready = [action for action in self.wishes.get(name, ()) if action.percent and self.starts(action.version)]
        if not ready:
            return None, True
        _counter, counts, failed_clients, credit = self.counters[name]
        total = sum(action.percent for action in ready)
        for action in ready:
            credit[action.version] = credit.get(action.version, 0) + action.percent / total
        version = max(ready, key=lambda action: credit[action.version]).version
        credit[version] -= 1
        row = counts.setdefault(
            version, {"requests": 0, "errors": 0, "exposure": 0, "first": 0, "failed": set(), "latency": {}}
        )
        fails, latency = self.answer(version, next(self.number))
        row["requests"] += 1
        row["latency"][latency] = row["latency"].get(latency, 0) + 1
        at_risk = client not in failed_clients
        row["exposure"] += at_risk
        if fails:
            row["errors"] += 1
            row["first"] += at_risk
            row["failed"].add(client)
            failed_clients.add(client)
        return version, fails


def _counts(row):
    if row is None:
        return Counts()
    latency = tuple(row["latency"].get(index, 0) for index in range(len(LATENCY_EDGES) + 1))
    return Counts(row["requests"], row["errors"], row["exposure"], row["first"], len(row["failed"]), latency)


def _token(state):
    return "" if state is None else hashlib.sha256(state.to_json().encode()).hexdigest()
