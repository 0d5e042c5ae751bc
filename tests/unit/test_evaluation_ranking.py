"""Rankings: every metric against a plain loop, and the gate over queries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.evaluation import GatePolicy, Predictions, Reason, Rule, check_rules, decide
from airflow_provider_mlops.evaluation.compare import Units, estimate
from airflow_provider_mlops.evaluation.metrics import METRICS
from airflow_provider_mlops.evaluation.samples import sample

FAST = GatePolicy(bootstrap_draws=400)
NAMES = ("ndcg", "ndcg_at_10", "mrr", "hit_rate_at_10")


def ranked(relevance, score, query):
    relevance, score = np.asarray(relevance), np.asarray(score, dtype=float)
    return sample(relevance, score, policy=FAST, classes=None, columns=None, who="candidate", group=np.asarray(query))


def by_hand(name, relevance, score, query):
    found = []
    for one in sorted(set(query)):
        rows = [(s, r) for s, r, q in zip(score, relevance, query, strict=True) if q == one]
        order = [r for _, r in sorted(rows, key=lambda row: (-row[0], row[1]))]
        if not any(order):
            continue
        first = next(place for place, r in enumerate(order) if r)
        cut = 10 if name == "ndcg_at_10" else len(order)
        gain, best = (sum(r / np.log2(i + 2) for i, r in enumerate(o[:cut])) for o in (order, sorted(order)[::-1]))
        found.append({"mrr": 1 / (1 + first), "hit_rate_at_10": float(first < 10)}.get(name, gain / best))
    return float(np.mean(found)) if found else float("nan")


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 4)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_ranking_metric_is_what_a_plain_loop_says(name, rows):
    relevance, score, query = zip(*rows, strict=True)
    value = METRICS[name].value(ranked(relevance, score, query))
    assert value == pytest.approx(by_hand(name, relevance, score, query), nan_ok=True)
    assert np.isnan(value) or 0 <= value <= 1


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_rows_says_nothing(name, rows, random):
    mixed = random.sample(rows, len(rows))
    values = [METRICS[name].value(ranked(*zip(*some, strict=True))) for some in (rows, mixed)]
    assert values[0] == pytest.approx(values[1], nan_ok=True)


@pytest.mark.parametrize(("name", "k"), [("ndcg", None), ("ndcg_at_10", 10)])
def test_ndcg_without_ties_is_that_of_scikit_learn(name, k):
    rng = np.random.default_rng(3)
    relevance, score = rng.integers(0, 4, (30, 15)), rng.random((30, 15))
    query = np.repeat(np.arange(30), 15)
    value = METRICS[name].value(ranked(relevance.ravel(), score.ravel(), query))
    assert value == pytest.approx(ndcg_score(relevance, score, k=k))


@pytest.mark.parametrize(
    ("name", "value"), [("mrr", 1 / 12), ("hit_rate_at_10", 0.0), ("ndcg_at_10", 0.0), ("ndcg", 1 / np.log2(13))]
)
def test_a_model_that_says_the_same_of_every_row_gets_the_worst_order(name, value):
    relevance = [1] + [0] * 11
    assert METRICS[name].value(ranked(relevance, [0.5] * 12, [0] * 12)) == pytest.approx(value)


@pytest.mark.parametrize("name", NAMES)
def test_the_standard_error_is_that_of_a_mean_over_queries(name):
    relevance, score, query = lists(queries=200, noise=2.0)
    each = [by_hand(name, relevance[query == q], score[query == q], query[query == q]) for q in range(200)]
    units = Units.of(len(query), time=None, entity=query, block=None)
    found = estimate(METRICS[name], ranked(relevance, score, query), units, FAST, quick=True)
    assert found.units == 200
    assert found.standard_error == pytest.approx(np.std(each, ddof=1) / np.sqrt(200), rel=1e-3, abs=1e-9)


def lists(queries=300, rows=12, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    relevance = (rng.random(queries * rows) < 0.2).astype(int)
    relevance[::rows] = 1
    return relevance, relevance + noise * rng.normal(size=queries * rows), np.repeat(np.arange(queries), rows)


def judge(noises=(0.4, 1.2), **changes):
    relevance, candidate, query = lists(noise=noises[0], seed=1)
    champion = relevance + noises[1] * np.random.default_rng(2).normal(size=len(relevance))
    values = {"label": relevance, "candidate": candidate, "champion": champion, "entity": query}
    values |= {key: change(values[key]) for key, change in changes.items()}
    return decide([Rule("ndcg_at_10", at_least=0.5)], Predictions(**values), task="ranking", policy=FAST)


def test_a_better_ranking_is_shown_better_over_queries():
    decision = judge()
    assert decision.passed
    assert decision.rules[0].numbers["units"] == 300
    assert decision.rules[0].numbers["gain_method"] == "paired bootstrap of entities"
    assert judge(noises=(1.2, 0.4)).reason is Reason.NOT_BETTER


def test_queries_are_sliced_by_a_column_of_theirs():
    relevance, candidate, query = lists()
    predictions = Predictions(relevance, candidate, candidate, {"country": query % 2}, entity=query)
    rules = [Rule("mrr", max_drop_vs_champion=0.01), Rule("mrr", per="country", at_least=0.3)]
    decision = decide(rules, predictions, task="ranking", policy=FAST)
    assert decision.passed, decision.sentence
    assert list(decision.rules[1].numbers["slices"]) == ["0", "1"]


def test_a_slice_without_a_relevant_row_is_named():
    relevance, candidate, query = lists()
    relevance[query % 2 == 1] = 0
    predictions = Predictions(relevance, candidate, candidate, {"country": query % 2}, entity=query)
    rules = [Rule("mrr", max_drop_vs_champion=0.01), Rule("mrr", per="country", at_least=0.3)]
    assert "mrr on country=1 is not a number" in decide(rules, predictions, task="ranking", policy=FAST).sentence


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"entity": lambda q: None}, "no_groups", "which rows compete"),
        ({"entity": lambda q: np.where(q < 5, None, q.astype(object))}, "no_groups", "60 of 3600 rows have no query"),
        ({"label": lambda y: y - 1}, "bad_predictions", "how relevant a row is, 0 or more; the smallest is -1"),
        ({"label": lambda y: y * 0}, "one_class", "No evaluation row is relevant"),
    ],
)
def test_what_is_no_ranking_is_refused(changes, reason, text):
    decision = judge(**changes)
    assert decision.reason.value == reason
    assert text in decision.sentence


@pytest.mark.parametrize(
    ("metric", "task", "text"),
    [
        ("ndcg", "binary", "ndcg is not defined for task: binary"),
        ("roc_auc", "ranking", "Use one of hit_rate_at_10, mrr, ndcg, ndcg_at_10"),
        ("ncdg", "ranking", "Did you mean 'ndcg'"),
    ],
)
def test_metrics_of_rankings_are_for_rankings(metric, task, text):
    with pytest.raises(ConfigError, match=text):
        check_rules([Rule(metric)], task=task)
