"""A machine on which things stall: two versions under load, simulated on a clock of its own."""

from __future__ import annotations

import bisect

from airflow_provider_mlops.rollout.analysis import LATENCY_EDGES, Counts, Tally, e_value
from airflow_provider_mlops.serving.traffic import Shares, Traffic

LIMIT = 50  # the e-value at which slowness rolls back
LATENCY = 0.01  # seconds, in the median, of an answer that nothing disturbs


def slow_after(
    rng, *, by="pace", seconds=120, per_second=10, percent=10, factor=1.0, spread=0.05, clients=3, heavy=1.0, **stalls
):
    """
    Return after how many seconds the canary is called slower, looked at every second, or ``None``.

    :param by: the counts that are judged: ``pace``, or ``latency``, as if all answers were independent.
    :param factor: how much slower the canary is.
    :param heavy: how much slower the requests of the first client are, whoever answers.
    :param stalls: ``machine``, ``process`` (each of the two by itself), ``client`` (one at a time, whoever answers):
        mean seconds between two stalls and mean seconds that one takes.
    """
    windows = {}
    for who in ("machine", "process 1", "process 2", "client 0", "client 1", "client 2"):
        every, takes = stalls.get(who.partition(" ")[0], (0, 0))
        windows[who] = list(_stalls(rng, every, takes, seconds))
    shares, traffic = Shares({"1": 100 - percent, "2": percent}), Traffic()
    ended, now = [], 0.0
    while now < seconds:
        now += rng.expovariate(per_second)
        version, client = shares.pick({"1", "2"}), rng.randrange(clients)
        work = LATENCY * rng.lognormvariate(0, spread) * (factor if version == "2" else 1) * (1 if client else heavy)
        end = now + work
        for begin, over in (*windows["machine"], *windows[f"process {version}"], *windows[f"client {client}"]):
            if begin < end and over > now:
                end += over - max(begin, now)
        ended.append((end, end - now, version, client))
    latency = [0] * (len(LATENCY_EDGES) + 1)
    for _ in range(500):
        latency[bisect.bisect_left(LATENCY_EDGES, LATENCY * rng.lognormvariate(0, spread))] += 1
    tally, look = Tally().freeze(Counts(latency=tuple(latency))), 1
    for end, took, version, client in sorted(ended):
        while end > look:
            tally = tally.look("c", _counts(traffic, "2", by), _counts(traffic, "1", by))
            if e_value(tally.slow_logs) >= LIMIT:
                return look
            look += 1
        traffic.record(version, client=str(client), failed=False, seconds=took, at=end)
    return None


def _stalls(rng, every, takes, seconds):
    now = 0.0
    while every and now < seconds:
        begin = now + rng.expovariate(1 / every)
        now = begin + rng.expovariate(1 / takes)
        yield begin, now


def _counts(traffic, version, by):
    values = traffic.counts(version)
    return Counts(values["requests"], pace=tuple(values[by]))
