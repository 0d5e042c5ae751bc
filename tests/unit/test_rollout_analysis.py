"""The evidence: what it says when there is a fault, and how seldom it says so when there is none."""

import math
import random

import numpy as np
import pytest
import stalls
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.rollout import RolloutPlan
from airflow_provider_mlops.rollout.analysis import (
    LATENCY_EDGES,
    Counts,
    FindingVerdict,
    Tally,
    e_value,
    error_bound,
    judge,
    log_products,
    slow_edge,
)

PLAN = RolloutPlan(weights_percent=(10,), min_requests_per_step=500)
BINS = len(LATENCY_EDGES) + 1


def counts(requests, errors=0, clients=None, latency=()):
    """Counts of independent requests, each by a client of its own."""
    failed = errors if clients is None else clients
    return Counts(requests, errors, requests, errors, failed, latency)


def paced(spans, bin_counts):
    """Counts of so many spans, with the answers of each spread over the bins in this way."""
    total = sum(bin_counts.values())
    return Counts(1000, pace=tuple(spans * count / total for count in at(bin_counts)))


def at(bin_counts):
    latency = [0] * BINS
    for index, count in bin_counts.items():
        latency[index] = count
    return tuple(latency)


def verdict(canary, stable, plan=PLAN, tally=None):
    finding, _ = judge(plan, (tally or Tally()).look("c", canary, stable))
    return finding.verdict.value, finding.reason


@pytest.mark.parametrize(
    ("canary", "stable", "expected"),
    [
        (counts(0), counts(1000), ("no_data", "no_data")),
        (counts(100), counts(900), ("undecided", "too_few_requests")),
        (counts(1000), counts(9000), ("healthy", "few_errors")),
        (counts(1000, 15), counts(9000, 70), ("undecided", "not_proved")),
        (counts(3000, 15), counts(27000, 135), ("healthy", "as_healthy_as_stable")),
        (counts(300, 30), counts(2700, 27), ("unhealthy", "more_errors")),
        (counts(20, 6, 3), None, ("unhealthy", "error_ceiling")),
        (counts(20, 6, 2), None, ("undecided", "too_few_requests")),  # two broken callers stop nothing
        (counts(19, 19, 19), None, ("undecided", "too_few_requests")),  # too few for a ceiling
        (counts(20, 20, 1), counts(180, 0), ("unhealthy", "all_failed")),  # one caller, whom the stable version answers
        (counts(20, 20, 1), counts(180, 180), ("undecided", "too_few_requests")),  # one caller whom nobody can answer
    ],
)
def test_a_look_says(canary, stable, expected):
    assert verdict(canary, stable) == expected


def test_a_slow_canary_is_found_and_a_slightly_slow_one_is_not():
    tally = Tally().freeze(counts(1000, latency=at({20: 950, 30: 50})))
    assert tally.slow_bin == 20
    stable = paced(400, {20: 95, 30: 5})
    assert verdict(paced(400, {20: 93, 30: 7}), stable, tally=tally)[1] != "slower"
    assert verdict(paced(400, {20: 80, 30: 20}), stable, tally=tally) == ("unhealthy", "slower")


def test_a_stall_of_some_seconds_proves_nothing_however_many_it_keeps_waiting():
    tally = Tally().freeze(counts(1000, latency=at({20: 1000})))
    spans, late = 30, 5
    canary = Counts(1000, pace=at({20: spans - late, 40: late}))
    assert verdict(canary, Counts(9000, pace=at({20: spans})), tally=tally)[1] != "slower"
    assert e_value(tally.look("c", canary, Counts(9000, pace=at({20: spans}))).slow_logs) < 6


def test_a_client_that_fails_again_and_again_is_one_error():
    canary = Counts(requests=300, errors=60, exposure=241, first_errors=1, clients_with_error=1)
    finding, _ = judge(PLAN, Tally().look("c", canary, Counts(2700, 0, 2700, 0, 0)))
    assert finding.verdict is FindingVerdict.UNDECIDED


@pytest.mark.parametrize("broken", [math.nan, -1, math.inf])
def test_a_number_that_is_none_is_no_data(broken):
    assert Tally().look("c", Counts(requests=broken), counts(10)) == Tally()
    assert Tally().freeze(Counts(latency=(broken,) * BINS)) == Tally()


def test_many_small_looks_are_one_large_look():
    tally = Tally()
    for k in range(1, 11):
        tally = tally.look("c", counts(10 * k, k), counts(90 * k, k))
    whole = Tally().look("c", counts(100, 10), counts(900, 10))
    assert tally.error_logs == pytest.approx(whole.error_logs)
    assert (tally.requests, tally.errors) == (100, 10)


def test_counters_that_begin_anew_are_added():
    tally = Tally().look("a", counts(100, 2), counts(900)).look("b", counts(50, 1), counts(400))
    assert (tally.requests, tally.errors, tally.stable_requests) == (150, 3, 1300)


def test_counters_that_are_lower_than_before_have_begun_anew():
    tally = Tally().look("a", counts(100, 2), counts(900)).look("a", counts(50, 1), counts(950))
    assert (tally.requests, tally.errors, tally.stable_requests) == (150, 3, 950)


def test_the_bound_is_spent_only_when_requests_have_grown():
    tally = Tally()
    for requests in (600, 601, 640, 661):
        _, tally = judge(PLAN, tally.look("c", counts(requests, 12), counts(9 * requests, 60)))
    assert (tally.bound_looks, tally.bound_requests) == (2, 661)


def test_the_bound_is_not_spent_where_even_no_error_would_prove_nothing():
    plan = RolloutPlan(weights_percent=(10,), min_requests_per_step=150)
    finding, tally = judge(plan, Tally().look("a", counts(150), counts(1500)))
    assert (finding.reason, tally.bound_looks) == ("not_proved", 0)
    assert "even without an error its share of errors may be as high as 2.43%" in finding.sentence
    finding, tally = judge(plan, tally.look("a", counts(183), counts(1830)))
    assert (finding.reason, tally.bound_looks) == ("few_errors", 1)


def test_the_next_step_keeps_the_roll_back_evidence_and_forgets_the_rest():
    tally = Tally().look("c", counts(1000, 10), counts(9000, 20))
    after = tally.next_step()
    assert after.error_logs == tally.error_logs
    assert (after.requests, after.health_logs) == (0, (0.0,) * 4)


def test_a_tally_survives_its_json_form():
    tally = Tally().freeze(counts(1000, latency=at({5: 1000}))).look("c", counts(10, 1), counts(90))
    assert Tally.from_dict(tally.to_dict()) == tally


def test_the_slow_edge_needs_two_hundred_answers():
    assert slow_edge(at({3: 199})) is None
    assert slow_edge(at({3: 189, 4: 11})) == 4
    assert slow_edge(at({3: 190, 4: 10})) == 3
    assert slow_edge(()) is None


def test_the_error_bound_is_the_exact_binomial_one():
    bound = error_bound(3, 200, 0.05)
    below = sum(math.comb(200, k) * bound**k * (1 - bound) ** (200 - k) for k in range(4))
    assert below == pytest.approx(0.05, rel=1e-6)
    assert error_bound(5, 5, 0.05) == 1.0


@given(
    share=st.floats(0.01, 0.99),
    ratio=st.sampled_from([0.5, 0.8, 1.2, 1.5, 3.0, 20.0]),
    null=st.sampled_from([1.0, 1.5, 3.0]),
)
def test_one_event_is_worth_one_on_average_when_the_hypothesis_holds(share, ratio, null):
    theta = null * share / (null * share + 1 - share)
    worth = sum(
        chance
        * math.exp(log_products([0.0], events=1, canary_events=x, share=share, ratios=[ratio], null_ratio=null)[0])
        for x, chance in ((1, theta), (0, 1 - theta))
    )
    assert worth == pytest.approx(1.0)


@given(share=st.sampled_from([0.0, 1.0]), events=st.integers(0, 9))
def test_without_two_arms_nothing_is_compared(share, events):
    assert log_products([0.3], events=events, canary_events=0, share=share, ratios=[2.0], null_ratio=1) == (0.3,)


def test_an_e_value_beyond_all_numbers_is_infinite():
    assert e_value((0.0, 1e6)) == math.inf


def _simulate(rng, ratio, looks=40, per_look=500, weight=0.1, rate=0.01):
    tally, canary, stable = Tally(), np.zeros(2), np.zeros(2)
    for _ in range(looks):
        x = rng.binomial(per_look, weight)
        canary += x, rng.binomial(x, min(1, rate * ratio))
        stable += per_look - x, rng.binomial(per_look - x, rate)
        tally = tally.look("c", counts(*canary), counts(*stable))
        if e_value(tally.error_logs) >= 50:
            return canary[0]
    return None


def test_a_healthy_canary_is_rolled_back_at_most_in_two_per_cent_of_cases_however_often_one_looks():
    rng = np.random.default_rng(7)
    assert sum(_simulate(rng, 1) is not None for _ in range(400)) / 400 <= 0.02


def test_a_canary_with_five_times_the_errors_is_found_within_a_few_hundred_requests():
    rng = np.random.default_rng(8)
    needed = [_simulate(rng, 5) for _ in range(100)]
    assert None not in needed
    assert np.median(needed) <= 400


STALLS = {
    "of the whole machine": {"machine": (20, 1)},
    "of one process for a moment": {"process": (10, 0.3)},
    "of one process for seconds": {"process": (60, 3)},
    "of one client": {"client": (20, 1)},
    "never, but one client asks for much": {"heavy": 10},
}


@pytest.mark.parametrize("disturbed", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("percent", [10, 60])
def test_stalls_do_not_roll_a_healthy_canary_back_more_often_than_the_budget_allows(disturbed, percent):
    rng, runs = random.Random(9), 60
    found = [stalls.slow_after(rng, percent=percent, **disturbed) for _ in range(runs)]
    assert sum(after is not None for after in found) / runs <= 0.02


def test_counted_by_answers_the_same_stalls_would_roll_it_back_often():
    """Why answers are not counted: what this test sees is what users of such a rule would."""
    rng, runs = random.Random(9), 60
    found = [
        stalls.slow_after(rng, by="latency", percent=10, **STALLS["of one process for seconds"]) for _ in range(runs)
    ]
    assert sum(after is not None for after in found) / runs > 0.1


@pytest.mark.parametrize("percent", [10, 60])
@pytest.mark.parametrize(("factor", "within"), [(5, 20), (2, 20)])
def test_a_slower_canary_is_found_within_seconds_of_traffic(percent, factor, within):
    rng = random.Random(10)
    found = [
        stalls.slow_after(rng, percent=percent, factor=factor, **STALLS["of one process for a moment"])
        for _ in range(20)
    ]
    assert None not in found
    assert sorted(found)[len(found) // 2] <= within
