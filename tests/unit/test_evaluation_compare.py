"""Bounds of a metric and of a gain: against published formulas, against repetition, and for rows that depend."""

import math

import numpy as np
import pytest

from airflow_provider_mlops.evaluation.compare import Units, compare, estimate, rows_for
from airflow_provider_mlops.evaluation.metrics import METRICS, UserMetric
from airflow_provider_mlops.evaluation.samples import sample
from airflow_provider_mlops.evaluation.values import GatePolicy

POLICY = GatePolicy(bootstrap_draws=1000)
ABOVE = GatePolicy(bootstrap_rows=10)  # never by bootstrap


def encoded(label, predicted, policy=POLICY):
    classes = np.unique(label) if label.dtype.kind in "bi" else None
    return sample(label, predicted, policy=policy, classes=classes, columns=None, who="candidate")


def plain(rows):
    return Units.of(rows, time=None, entity=None, block=None)


def pair(rows=800, seed=0, noise=(0.3, 0.8)):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    signal = 1.2 * label - 0.6 + rng.normal(size=rows)
    return [encoded(label, 1 / (1 + np.exp(-signal - size * rng.normal(size=rows)))) for size in noise]


def delong(label, one, other):
    """The textbook's paired standard error, by its definition: placements of every pair of rows."""
    placements = []
    for score in (one, other):
        wins = (score[label == 1][:, None] > score[label == 0]) + 0.5 * (
            score[label == 1][:, None] == score[label == 0]
        )
        placements.append((wins.mean(axis=1), wins.mean(axis=0)))
    positives = np.cov(placements[0][0], placements[1][0])
    negatives = np.cov(placements[0][1], placements[1][1])
    contrast = np.array([1, -1])
    return math.sqrt(
        contrast @ positives @ contrast / np.sum(label == 1) + contrast @ negatives @ contrast / np.sum(label == 0)
    )


def test_the_standard_error_of_roc_auc_is_delongs():
    one, other = pair(rows=300)
    found = compare(METRICS["roc_auc"], one, other, plain(300), ABOVE)
    assert found.method == "DeLong"
    assert found.standard_error == pytest.approx(delong(one.truth, one.score, other.score), rel=0.01)


@pytest.mark.parametrize(
    "metric", ["accuracy", "f1", "balanced_accuracy", "roc_auc", "average_precision", "log_loss", "brier"]
)
def test_the_bootstrap_and_the_influences_agree(metric):
    one, other = pair(rows=1500)
    drawn = compare(METRICS[metric], one, other, plain(1500), POLICY)
    analytic = compare(METRICS[metric], one, other, plain(1500), ABOVE)
    assert "bootstrap" in drawn.method
    assert "bootstrap" not in analytic.method
    assert drawn.value == analytic.value
    width = 2 * 1.645 * analytic.standard_error
    assert drawn.high - drawn.low == pytest.approx(width, rel=0.12)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "log_loss"])
def test_the_interval_covers_the_truth_as_often_as_it_says(metric):
    policy = GatePolicy(bootstrap_draws=200)
    truth = METRICS[metric].value(pair(rows=200_000, seed=99)[0])
    hits = 0
    for seed in range(150):
        own = estimate(METRICS[metric], pair(rows=300, seed=seed)[0], plain(300), policy)
        hits += own.low <= truth <= own.high
    assert 0.82 <= hits / 150 <= 0.97  # 0.90 two-sided


def test_rows_of_an_entity_count_once():
    label, score = np.repeat([pair(rows=100)[0].truth], 10, axis=0).T.ravel(), np.repeat(pair(rows=100)[0].score, 10)
    entity = np.repeat(np.arange(100), 10)
    one = encoded(label, score)
    few = pair(rows=100)[0]
    for policy in (POLICY, ABOVE):
        apart = estimate(METRICS["log_loss"], one, plain(1000), policy)
        together = estimate(METRICS["log_loss"], one, Units.of(1000, time=None, entity=entity, block=None), policy)
        single = estimate(METRICS["log_loss"], few, plain(100), policy)
        assert together.units == 100
        assert together.high - together.low == pytest.approx(single.high - single.low, rel=0.12)
        assert apart.high - apart.low < 0.5 * (together.high - together.low)


def autocorrelated(rows, seed, r=0.9):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=rows)
    error = np.empty(rows)
    error[0] = noise[0] / math.sqrt(1 - r * r)
    for t in range(1, rows):
        error[t] = r * error[t - 1] + noise[t]
    return error


@pytest.mark.parametrize("bootstrap_rows", [20_000, 10])
def test_blocks_of_time_see_that_neighbors_resemble_each_other(bootstrap_rows):
    policy = GatePolicy(bootstrap_draws=200, bootstrap_rows=bootstrap_rows)
    covered = {"blocks": 0, "rows": 0}
    for seed in range(40):
        error = autocorrelated(1000, seed)
        one, other = (
            encoded(np.zeros(1000), np.abs(10 + error), policy),
            encoded(np.zeros(1000), np.full(1000, 10.0), policy),
        )
        timed = Units.of(1000, time=np.arange(1000), entity=None, block=None)
        for kind, units in (("blocks", timed), ("rows", plain(1000))):
            found = compare(METRICS["mae"], one, other, units, policy)
            covered[kind] += found.low <= 0 <= found.high  # true gain 0: |10 + error| has mean 10, nearly always
    assert covered["blocks"] / 40 >= 0.7
    assert covered["rows"] / 40 <= 0.5


def test_the_order_of_time_is_what_counts_not_that_of_the_rows():
    error = autocorrelated(600, 1)
    order = np.random.default_rng(0).permutation(600)
    one, other = encoded(np.zeros(600), 10 + error), encoded(np.zeros(600), np.full(600, 10.0))
    timed = Units.of(600, time=np.arange(600), entity=None, block=12)
    shuffled = Units.of(600, time=np.arange(600)[order], entity=None, block=12)
    first = compare(METRICS["mae"], one, other, timed, ABOVE)
    second = compare(METRICS["mae"], one.take(order), other.take(order), shuffled, ABOVE)
    assert first.standard_error == pytest.approx(second.standard_error)
    assert first.units == 50


def test_slices_keep_their_time_and_their_entities():
    mask = np.arange(100) % 2 == 0
    timed = Units.of(100, time=np.arange(100)[::-1], entity=None, block=5).take(mask)
    assert timed.order.tolist() == list(range(50))[::-1]
    grouped = Units.of(100, time=None, entity=np.arange(100) // 4, block=None).take(mask)
    assert grouped.rows == 50
    assert grouped.entity.max() == 24


def test_entities_that_never_repeat_are_rows():
    assert Units.of(3, time=None, entity=np.array(["a", "b", "c"]), block=None).kind == "rows"
    assert Units.of(3, time=None, entity=np.array(["a", "a", None], dtype=object), block=None).kind == "entities"


def test_fewer_than_ten_units_bound_nothing():
    one, other = pair(rows=60)
    found = compare(
        METRICS["log_loss"], one, other, Units.of(60, time=None, entity=np.arange(60) // 10, block=None), POLICY
    )
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("won", "lost", "shown"), [(3, 0, False), (4, 0, False), (5, 0, True), (9, 3, False), (10, 2, True)]
)
def test_a_gain_in_accuracy_on_few_rows_must_pass_the_exact_test(won, lost, shown):
    label = np.arange(1000) % 2
    candidate, champion = label.copy(), label.copy()
    champion[:won] ^= 1
    candidate[500 : 500 + lost] ^= 1
    found = compare(METRICS["accuracy"], encoded(label, candidate), encoded(label, champion), plain(1000), POLICY)
    assert (found.low > 0) is shown


@pytest.mark.parametrize("kind", ["rows", "entities", "blocks"])
def test_a_function_of_the_users_own_has_an_error_on_many_rows_too(kind):
    metric = UserMetric("mine", False, lambda label, predicted: float(np.mean(np.abs(label - predicted))))
    rng = np.random.default_rng(8)
    label = rng.normal(size=2000)
    one, other = (encoded(label, label + size * rng.normal(size=2000)) for size in (0.5, 0.6))
    units = Units.of(
        2000,
        time=np.arange(2000) if kind == "blocks" else None,
        entity=np.arange(2000) // 2 if kind == "entities" else None,
        block=1 if kind == "blocks" else None,
    )
    found = compare(metric, one, other, units, ABOVE)
    known = compare(METRICS["mae"], one, other, units, ABOVE)
    assert found.value == pytest.approx(known.value)
    assert found.standard_error == pytest.approx(known.standard_error, rel=0.35)


def test_rows_for_a_gain():
    disagreement, gain = 0.05, 0.01
    error = math.sqrt(disagreement / 700)
    assert rows_for(700, error, gain, GatePolicy()) == pytest.approx(3091, abs=2)
    assert rows_for(700, error, gain, GatePolicy(power=0.9)) == pytest.approx(4282, abs=2)
