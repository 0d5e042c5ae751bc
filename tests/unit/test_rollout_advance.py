"""One look at a time: tables of (state, observation, now) -> (state, what is wanted)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.errors import DataError, RolloutFailedError
from airflow_provider_mlops.rollout import Arm, Observation, Role, RolloutPhase, RolloutPlan, RolloutState, advance
from airflow_provider_mlops.rollout.advance import join, wanted
from airflow_provider_mlops.rollout.analysis import LATENCY_EDGES, Counts, Tally

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CANARY = RolloutPlan(weights_percent=(10, 50), min_requests_per_step=100)
BLUE_GREEN = RolloutPlan(strategy="blue_green")
ROLLING = RolloutPlan(strategy="rolling")


def state(phase, **changes):
    values = {
        "name": "churn",
        "request": "run-1",
        "version": "2",
        "model": "/m/2",
        "stable_version": "1",
        "stable_model": "/m/1",
        "phase": RolloutPhase(phase),
        "started_at": NOW,
        "step_started_at": NOW,
        "reason": "before",
        "sentence": "",
    }
    return RolloutState(**{**values, **changes})


def step(index, weight, **changes):
    return state("progressing", step=index, weight=weight, **changes)


def seen(new=None, old=None, **changes):
    arms = {version: arm for version, arm in (("2", new), ("1", old)) if arm is not None}
    return Observation(arms=arms, counter="c", **changes)


def arm(percent, requests=0, errors=0, ready=True, restarts=0, latency=()):
    return Arm(percent, ready, restarts, Counts(requests, errors, requests, errors, errors, latency))


BLIND = Observation(arms={}, error="connection refused")
WELL = seen(arm(10, 1000), arm(90, 9000))
WORSE = seen(arm(10, 1000, 200), arm(90, 9000))
UNCLEAR = seen(arm(10, 120, 3), arm(90, 1000, 20))

CASES = [
    # name, plan, state, observation, later, phase, step, weight, reason
    ("nothing is seen yet", CANARY, state("starting"), seen(), SECOND, "starting", -1, 0, "before"),
    ("it is not ready", CANARY, state("starting"), seen(arm(0, ready=False)), SECOND, "starting", -1, 0, "before"),
    ("it is ready", CANARY, state("starting"), seen(arm(0), arm(100)), SECOND, "progressing", 0, 10, "ready"),
    (
        "it is ready and the stable version is not yet",
        CANARY,
        state("starting"),
        seen(arm(0), arm(100, ready=False)),
        SECOND,
        "starting",
        -1,
        0,
        "before",
    ),
    (
        "it is ready and the stable version is down",
        CANARY,
        state("starting"),
        seen(arm(0)),
        timedelta(minutes=11),
        "settling",
        -1,
        100,
        "stable_down",
    ),
    ("ready, blue and green", BLUE_GREEN, state("starting"), seen(arm(0)), SECOND, "settling", -1, 100, "ready"),
    (
        "ready, and there is no stable version",
        CANARY,
        state("starting", stable_version=None, stable_model=None),
        seen(arm(0)),
        SECOND,
        "settling",
        -1,
        100,
        "ready",
    ),
    (
        "it never gets ready",
        CANARY,
        state("starting"),
        seen(arm(0, ready=False)),
        timedelta(minutes=11),
        "failed",
        -1,
        0,
        "start_timeout",
    ),
    (
        "it crashes while it starts",
        CANARY,
        state("starting"),
        seen(arm(0, ready=False, restarts=3)),
        SECOND,
        "failed",
        -1,
        0,
        "crash_loop",
    ),
    (
        "the target is blind while it starts",
        CANARY,
        state("starting", blind_looks=9),
        BLIND,
        SECOND,
        "starting",
        -1,
        0,
        "before",
    ),
    (
        "the target is blind too long while it starts",
        CANARY,
        state("starting"),
        BLIND,
        timedelta(minutes=11),
        "failed",
        -1,
        0,
        "start_timeout",
    ),
    ("a step passes", CANARY, step(0, 10), WELL, SECOND, "progressing", 1, 50, "few_errors"),
    (
        "the last step passes",
        CANARY,
        step(1, 50),
        seen(arm(50, 1000), arm(50, 1000)),
        SECOND,
        "baking",
        1,
        50,
        "few_errors",
    ),
    ("a step is worse", CANARY, step(0, 10), WORSE, SECOND, "rolled_back", 0, 0, "more_errors"),
    ("a step is unclear", CANARY, step(0, 10), UNCLEAR, SECOND, "progressing", 0, 10, "before"),
    (
        "its time is up: roll back",
        CANARY,
        step(0, 10),
        UNCLEAR,
        timedelta(minutes=31),
        "rolled_back",
        0,
        0,
        "inconclusive",
    ),
    (
        "its time is up: hold",
        replace(CANARY, if_inconclusive="hold"),
        step(0, 10),
        UNCLEAR,
        timedelta(minutes=31),
        "progressing",
        0,
        10,
        "held",
    ),
    (
        "its time is up: promote",
        replace(CANARY, if_inconclusive="promote"),
        step(0, 10),
        UNCLEAR,
        timedelta(minutes=31),
        "progressing",
        1,
        50,
        "inconclusive",
    ),
    (
        "no traffic until the time is up",
        CANARY,
        step(0, 10),
        seen(arm(10), arm(90)),
        timedelta(minutes=31),
        "rolled_back",
        0,
        0,
        "inconclusive",
    ),
    (
        "good numbers under another share prove nothing",
        CANARY,
        step(1, 50),
        WELL,
        SECOND,
        "progressing",
        1,
        50,
        "before",
    ),
    (
        "the share is never applied",
        CANARY,
        step(1, 50),
        WELL,
        timedelta(minutes=31),
        "rolled_back",
        1,
        0,
        "inconclusive",
    ),
    ("blind for a moment", CANARY, step(0, 10, blind_looks=3), BLIND, SECOND, "progressing", 0, 10, "before"),
    ("blind too often", CANARY, step(0, 10, blind_looks=4), BLIND, SECOND, "rolled_back", 0, 0, "blind"),
    (
        "blind too often: never promoted unseen",
        replace(CANARY, if_inconclusive="promote"),
        step(0, 10, blind_looks=4),
        BLIND,
        SECOND,
        "rolled_back",
        0,
        0,
        "blind",
    ),
    (
        "blind too often: hold",
        replace(CANARY, if_inconclusive="hold"),
        step(0, 10, blind_looks=9),
        BLIND,
        SECOND,
        "progressing",
        0,
        10,
        "before",
    ),
    (
        "a canary restarts",
        CANARY,
        step(0, 10),
        seen(arm(10, ready=False, restarts=1), arm(90)),
        SECOND,
        "progressing",
        0,
        10,
        "before",
    ),
    (
        "a canary stays unready",
        CANARY,
        step(0, 10, unready_since=NOW),
        seen(arm(10, ready=False, restarts=1), arm(90)),
        timedelta(minutes=11),
        "rolled_back",
        0,
        0,
        "readiness_lost",
    ),
    (
        "a canary crashes again and again",
        CANARY,
        step(0, 10),
        seen(arm(10, ready=False, restarts=3), arm(90)),
        SECOND,
        "rolled_back",
        0,
        0,
        "crash_loop",
    ),
    (
        "the bake goes on",
        CANARY,
        state("baking", step=0, weight=10),
        WELL,
        timedelta(minutes=4),
        "baking",
        0,
        10,
        "before",
    ),
    (
        "the bake is over",
        CANARY,
        state("baking", step=0, weight=10),
        WELL,
        timedelta(minutes=5),
        "settling",
        0,
        100,
        "baked",
    ),
    (
        "the bake shows a fault",
        CANARY,
        state("baking", step=0, weight=10),
        WORSE,
        SECOND,
        "rolled_back",
        0,
        0,
        "more_errors",
    ),
    ("it settles", CANARY, state("settling", weight=100), seen(arm(100)), SECOND, "settling", -1, 100, "before"),
    (
        "it has settled",
        CANARY,
        state("settling", weight=100),
        seen(arm(100)),
        timedelta(minutes=5),
        "promoted",
        -1,
        100,
        "promoted",
    ),
    (
        "it settles and fails",
        CANARY,
        state("settling", weight=100),
        seen(arm(100, 50, 20)),
        SECOND,
        "rolled_back",
        -1,
        0,
        "error_ceiling",
    ),
    (
        "it settles and dies, the old one is warm",
        CANARY,
        state("settling", weight=100),
        seen(arm(100, ready=False, restarts=1)),
        SECOND,
        "rolled_back",
        -1,
        0,
        "readiness_lost",
    ),
    (
        "it settles and dies, the old one is gone",
        ROLLING,
        state("settling", weight=100),
        seen(arm(100, ready=False, restarts=1)),
        SECOND,
        "settling",
        -1,
        100,
        "before",
    ),
    (
        "the first version fails",
        ROLLING,
        state("settling", weight=100, stable_version=None, stable_model=None),
        seen(arm(100, 50, 50)),
        SECOND,
        "failed",
        -1,
        0,
        "error_ceiling",
    ),
    (
        "the total time is up",
        CANARY,
        step(0, 10),
        WELL,
        timedelta(hours=13),
        "rolled_back",
        0,
        0,
        "total_timeout",
    ),
    ("promoted is final", CANARY, state("promoted", weight=100), WORSE, SECOND, "promoted", -1, 100, "before"),
    ("rolled back is final", CANARY, state("rolled_back"), WELL, timedelta(days=9), "rolled_back", -1, 0, "before"),
]


@pytest.mark.parametrize(
    ("plan", "before", "observation", "later", "phase", "index", "weight", "reason"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_a_look(plan, before, observation, later, phase, index, weight, reason):
    after, actions = advance(plan, before, observation, NOW + later)
    assert (after.phase.value, after.step, after.weight, after.reason) == (phase, index, weight, reason)
    assert actions == wanted(plan, after)
    assert RolloutState.from_json(after.to_json()) == after
    if after.phase != before.phase:
        assert after.sentence
        assert after.step_started_at == NOW + later


@pytest.mark.parametrize(
    ("plan", "at", "expected"),
    [
        (CANARY, state("idle"), []),
        (CANARY, state("starting"), [("1", 100, Role.STABLE), ("2", 0, Role.CANDIDATE)]),
        (CANARY, step(0, 10), [("1", 90, Role.STABLE), ("2", 10, Role.CANDIDATE)]),
        (CANARY, state("baking", weight=50), [("1", 50, Role.STABLE), ("2", 50, Role.CANDIDATE)]),
        (CANARY, state("settling", weight=100), [("2", 100, Role.STABLE), ("1", 0, Role.PREVIOUS)]),
        (ROLLING, state("settling", weight=100), [("2", 100, Role.STABLE)]),
        (CANARY, state("promoted", weight=100), [("2", 100, Role.STABLE)]),
        (CANARY, state("rolled_back"), [("1", 100, Role.STABLE)]),
        (CANARY, state("failed"), [("1", 100, Role.STABLE)]),
        (CANARY, state("failed", stable_version=None, stable_model=None), []),
    ],
)
def test_what_is_wanted_follows_from_the_state(plan, at, expected):
    assert [(action.version, action.percent, action.role) for action in wanted(plan, at)] == expected


def test_the_p95_is_frozen_while_the_stable_version_is_alone():
    latency = [0] * (len(LATENCY_EDGES) + 1)
    latency[12] = 500
    after, _ = advance(CANARY, state("starting"), seen(arm(0), arm(100, 500, latency=tuple(latency))), NOW)
    assert after.tally.slow_bin == 12


def test_the_same_request_is_the_same_rollout():
    running = step(0, 10)
    assert join(running, name="churn", version="2", model="/m/2", request="run-1", now=NOW) is running


def test_a_new_request_begins_with_what_serves():
    after_promotion = join(state("promoted"), name="churn", version="3", model="/m/3", request="run-2", now=NOW)
    assert (after_promotion.stable_version, after_promotion.stable_model) == ("2", "/m/2")
    after_failure = join(state("rolled_back"), name="churn", version="3", model="/m/3", request="run-2", now=NOW)
    assert after_failure.stable_version == "1"
    first = join(None, name="churn", version="1", model="/m/1", request="run-0", now=NOW)
    assert (first.stable_version, first.phase) == (None, RolloutPhase.STARTING)


def test_a_version_that_serves_already_is_not_rolled_out_again():
    again = join(state("promoted"), name="churn", version="2", model="/m/2", request="run-2", now=NOW)
    assert (again.phase, again.reason) == (RolloutPhase.PROMOTED, "already_serving")
    assert [(action.version, action.percent) for action in wanted(CANARY, again)] == [("2", 100)]


def test_a_replaced_request_never_comes_back():
    later = join(step(0, 10), name="churn", version="3", model="/m/3", request="run-2", now=NOW)
    assert (later.superseded, later.stable_version) == (("run-1",), "1")
    with pytest.raises(RolloutFailedError, match="to version '2' was replaced by a later one, to version '3'"):
        join(later, name="churn", version="2", model="/m/2", request="run-1", now=NOW)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no rollout state"),
        ("[]", "is no rollout state"),
        ('{"format": 9}', "has format 9; this package reads 1"),
        ('{"format": 1}', "is damaged"),
    ],
)
def test_a_state_that_cannot_be_read_says_why(text, message):
    with pytest.raises(DataError, match=message):
        RolloutState.from_json(text)


numbers = st.one_of(st.integers(0, 5000), st.just(float("nan")))
arms = st.builds(
    Arm,
    percent=st.sampled_from([0, 10, 50, 90, 100]),
    ready=st.booleans(),
    restarts=st.integers(0, 3),
    counts=st.builds(Counts, numbers, numbers, numbers, numbers, numbers),
)
observations = st.builds(
    Observation,
    arms=st.dictionaries(st.sampled_from(["1", "2"]), arms),
    counter=st.sampled_from("ab"),
    error=st.sampled_from([None, None, "gone"]),
)


@given(looks=st.lists(st.tuples(observations, st.integers(0, 2000)), max_size=30), stable=st.booleans())
def test_whatever_is_seen_the_traffic_adds_up_and_the_end_stays_the_end(looks, stable):
    now, end = NOW, None
    at = state("starting", **({} if stable else {"stable_version": None, "stable_model": None}), tally=Tally())
    for observation, seconds in looks:
        now += timedelta(seconds=seconds)
        at, actions = advance(CANARY, at, observation, now)
        total = sum(action.percent for action in actions)
        assert total == 100 or (total == 0 and not stable)
        assert RolloutState.from_json(at.to_json()) == at
        assert end in (None, at)
        end = at if at.phase.is_final else None
    now += timedelta(hours=13)
    at, _ = advance(CANARY, at, Observation(arms={}), now)
    assert at.phase.is_final
