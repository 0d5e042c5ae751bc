"""How far two versions' predictions are apart, and how sure one may be of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.rollout import RolloutPlan
from airflow_provider_mlops.rollout.analysis import Counts, FindingVerdict, Tally, judge
from airflow_provider_mlops.rollout.predictions import distance, margin, spread

PLAN = RolloutPlan(weights_percent=(10,), min_requests_per_step=100_000)  # no step passes while one looks
RNG = np.random.default_rng(3)
SCORES = RNG.beta(2, 5, 20_000)
PRICES = RNG.lognormal(12, 0.4, 20_000)
LABELS = RNG.choice(["yes", "no"], 20_000, p=[0.2, 0.8])

ALIKE = {
    "scores, each a little other": (SCORES, np.clip(SCORES + RNG.normal(0, 0.02, SCORES.size), 0, 1)),
    "prices, two per cent up": (PRICES, PRICES * 1.02),
    "one row again and again, a little other": (np.full(500, 0.42), np.full(500, 0.45)),
    "labels, a few other": (LABELS, np.where(RNG.random(LABELS.size) < 0.05, "yes", LABELS)),
    "nothing on one side": (SCORES, []),
}
APART = {
    "scores of the other class": (SCORES, 1 - SCORES, 0.5),
    "one score for everybody": (SCORES, np.full(500, 0.5), 0.5),
    "log-odds for probabilities": (SCORES, np.log(SCORES / (1 - SCORES)), 0.5),
    "prices in thousands": (PRICES, PRICES / 1000, 0.99),
    "not a number": (SCORES, np.full(500, np.nan), 0.99),
    "rare scores ten times as high": (SCORES / 100, SCORES / 10, 0.8),
    "always the same label": (LABELS, np.full(500, "no"), 0.15),
    "labels for numbers": (SCORES, LABELS, 0.99),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_what_is_much_alike_is_near(one, other):
    assert distance(spread(one), spread(other)) < 0.1


@pytest.mark.parametrize(("one", "other", "least"), APART.values(), ids=APART)
def test_what_a_broken_version_says_is_far(one, other, least):
    assert distance(spread(one), spread(other)) > least


numbers = st.lists(st.one_of(st.floats(-1e9, 1e9), st.floats(0, 1), st.just(math.nan)), min_size=1, max_size=30)
classes = st.lists(st.sampled_from("abcde"), min_size=1, max_size=30)


@given(one=st.one_of(numbers, classes), other=st.one_of(numbers, classes))
def test_a_distance_is_a_share_and_has_no_direction(one, other):
    a, b = spread(one), spread(other)
    assert sum(a.values()) == pytest.approx(1)
    assert 0 <= distance(a, b) <= 1
    assert distance(a, b) == distance(b, a)
    assert distance(a, a) == 0
    assert distance(a, {name: 7 * share for name, share in b.items()}) == pytest.approx(distance(a, b))


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=2))
def test_a_larger_number_is_in_no_earlier_bin(pair):
    low, high = (int(*spread([value])) for value in sorted(pair))
    assert low <= high


def test_several_columns_are_their_last():
    assert spread([[0.9, 0.1], [0.2, 0.8]]) == spread([0.1, 0.8])


def test_without_answers_nothing_is_sure():
    assert margin({}, {"1": 9}, 0.05) == math.inf


def watch(canary, stable, looks=60, per_look=50, plan=PLAN):
    """The look at which the versions were called different, and the tally; each look with so many canary answers."""
    arms = {"canary": {}, "stable": {}}
    tally = Tally()
    for look in range(1, looks + 1):
        for name, draw, answers in (("canary", canary, per_look), ("stable", stable, 2 * per_look)):
            for bin_, share in spread(draw(answers)).items():
                arms[name][bin_] = arms[name].get(bin_, 0) + answers * share
        counts = {name: Counts(look * per_look, predictions=dict(bins)) for name, bins in arms.items()}
        finding, tally = judge(plan, tally.look("c", counts["canary"], counts["stable"]))
        if finding.verdict is FindingVerdict.UNHEALTHY:
            assert finding.reason == "other_predictions"
            return look, tally
    return None, tally


def test_versions_as_far_apart_as_is_allowed_are_hardly_ever_called_different_however_often_one_looks():
    rng = np.random.default_rng(5)
    found = [watch(lambda n: rng.random(n) < 0.5, lambda n: rng.random(n) < 0.3)[0] for _ in range(100)]
    assert sum(look is not None for look in found) <= 1


def test_a_version_that_says_the_same_to_everybody_is_found_within_some_hundred_answers():
    rng = np.random.default_rng(6)
    look, tally = watch(lambda n: np.full(n, 0.5), lambda n: rng.beta(2, 5, n))
    assert look * 50 <= 300
    assert Tally.from_dict(tally.to_dict()) == tally


def test_a_larger_limit_accepts_it_and_one_accepts_anything():
    rng = np.random.default_rng(6)
    for limit in (0.9, 1.0):
        plan = RolloutPlan(weights_percent=(10,), min_requests_per_step=100_000, max_prediction_shift=limit)
        assert watch(lambda n: np.full(n, 0.5), lambda n: rng.beta(2, 5, n), plan=plan)[0] is None


def test_looks_are_spent_when_the_answers_have_grown_and_go_on_counting_in_the_next_step():
    rng = np.random.default_rng(7)
    _, tally = watch(rng.random, rng.random, looks=40, per_look=50)
    assert 20 <= tally.prediction_looks <= 30
    after = tally.next_step()
    assert (after.prediction_looks, after.prediction_answers, after.predictions) == (tally.prediction_looks, 0, {})
