"""Every metric against scikit-learn; every metric's influence against what its weights do."""

import numpy as np
import pytest
import sklearn.metrics as skm
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.evaluation.metrics import METRICS, UserMetric, find_metric, lacks
from airflow_provider_mlops.evaluation.samples import Sample, class_order, encode, missing, sample
from airflow_provider_mlops.evaluation.values import Finding, GatePolicy, Reason

POLICY = GatePolicy()


def encoded(label, predicted, task="binary", policy=POLICY, columns=None):
    classes = class_order(label, task, columns, policy) if task in ("binary", "multiclass") else None
    found = sample(label, predicted, policy=policy, classes=classes, columns=columns, who="candidate")
    assert isinstance(found, Sample), found
    return found


def binary(rows=500, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    score = np.round(np.clip(0.5 * label + 0.3 * rng.random(rows) + 0.2 * rng.normal(size=rows), 0.01, 0.99), 2)  # ties
    return label, score


def multiclass(rows=600, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array(["x", "y", "z"]), rows, p=[0.5, 0.3, 0.2])
    raw = rng.random((rows, 3)) + 0.4 * (label[:, None] == np.array(["x", "y", "z"]))
    return label, raw / raw.sum(axis=1, keepdims=True)


def values(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    label = 5 + rng.normal(size=rows)
    return label, label + 0.5 * rng.normal(size=rows)


BINARY = {
    "accuracy": lambda y, p: skm.accuracy_score(y, p >= 0.5),
    "balanced_accuracy": lambda y, p: skm.balanced_accuracy_score(y, p >= 0.5),
    "precision": lambda y, p: skm.precision_score(y, p >= 0.5),
    "recall": lambda y, p: skm.recall_score(y, p >= 0.5),
    "f1": lambda y, p: skm.f1_score(y, p >= 0.5),
    "f1_macro": lambda y, p: skm.f1_score(y, p >= 0.5, average="macro"),
    "precision_macro": lambda y, p: skm.precision_score(y, p >= 0.5, average="macro"),
    "recall_macro": lambda y, p: skm.recall_score(y, p >= 0.5, average="macro"),
    "roc_auc": skm.roc_auc_score,
    "average_precision": skm.average_precision_score,
    "log_loss": skm.log_loss,
    "brier": skm.brier_score_loss,
}
MULTICLASS = {
    "accuracy": lambda y, p: skm.accuracy_score(y, np.array(["x", "y", "z"])[p.argmax(1)]),
    "balanced_accuracy": lambda y, p: skm.balanced_accuracy_score(y, np.array(["x", "y", "z"])[p.argmax(1)]),
    "f1": lambda y, p: skm.f1_score(y, np.array(["x", "y", "z"])[p.argmax(1)], average="macro"),
    "precision": lambda y, p: skm.precision_score(y, np.array(["x", "y", "z"])[p.argmax(1)], average="macro"),
    "recall": lambda y, p: skm.recall_score(y, np.array(["x", "y", "z"])[p.argmax(1)], average="macro"),
    "roc_auc": lambda y, p: skm.roc_auc_score(y, p, multi_class="ovr"),
    "average_precision": lambda y, p: np.mean(
        [skm.average_precision_score(y == k, p[:, i]) for i, k in enumerate("xyz")]
    ),
    "log_loss": skm.log_loss,
    "brier": lambda y, p: np.mean(((p - (y[:, None] == np.array(["x", "y", "z"]))) ** 2).sum(1)),
}
VALUES = {
    "mae": skm.mean_absolute_error,
    "rmse": skm.root_mean_squared_error,
    "mape": skm.mean_absolute_percentage_error,
    "r2": skm.r2_score,
    "pinball_p50": lambda y, p: skm.mean_absolute_error(y, p) / 2,
    "pinball_p05": lambda y, p: skm.mean_pinball_loss(y, p, alpha=0.05),
    "pinball_p90": lambda y, p: skm.mean_pinball_loss(y, p, alpha=0.9),
}
CASES = [
    *(("binary", name, oracle) for name, oracle in BINARY.items()),
    *(("multiclass", name, oracle) for name, oracle in MULTICLASS.items()),
    *(("regression", name, oracle) for name, oracle in VALUES.items()),
]
DATA = {"binary": binary, "multiclass": multiclass, "regression": values}


@pytest.mark.parametrize(("task", "name", "oracle"), CASES)
def test_a_metric_says_what_scikit_learn_says(task, name, oracle):
    label, predicted = DATA[task]()
    assert METRICS[name].value(encoded(label, predicted, task)) == pytest.approx(oracle(label, predicted), rel=1e-9)


@pytest.mark.parametrize(("task", "name", "oracle"), CASES)
def test_weights_mean_that_a_row_is_there_so_many_times(task, name, oracle):
    label, predicted = DATA[task]()
    weights = np.random.default_rng(1).integers(0, 4, len(label))
    rows = np.repeat(np.arange(len(label)), weights)
    one = encoded(label, predicted, task)
    found = METRICS[name].weighted(one, weights[None, :].astype(float))
    assert found.shape == (1,)
    assert found[0] == pytest.approx(oracle(label[rows], predicted[rows]), rel=1e-9)


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, name, _ in CASES] + [("binary", "ece")])
def test_the_influence_is_what_a_little_more_weight_does(task, name):
    label, predicted = DATA[task](rows=120)
    one = encoded(label, predicted, task)
    influence = METRICS[name].influence(one)
    step = 1e-5
    shifted = np.ones((len(label), len(label)))
    up = METRICS[name].weighted(one, shifted + step * np.eye(len(label)))
    down = METRICS[name].weighted(one, shifted - step * np.eye(len(label)))
    # DeLong's variance divides by n - 1 where the derivative divides by n.
    tolerance = 0.05 if name == "roc_auc" else 1e-3
    scale = np.abs(influence).max()
    assert np.allclose(influence, (up - down) / (2 * step), rtol=tolerance, atol=tolerance * scale)
    assert abs(influence.sum()) < 1e-6 * np.abs(influence).sum() + 1e-9


def test_the_calibration_error_is_the_weighted_gap_per_bin():
    label = np.array([1, 0, 1, 1])
    score = np.array([0.15, 0.15, 0.95, 0.95])
    assert METRICS["ece"].value(encoded(label, score)) == pytest.approx(0.5 * abs(0.5 - 0.15) + 0.5 * 0.05)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=4, max_size=40))
@settings(max_examples=60, deadline=None)
def test_roc_auc_counts_pairs_and_ties_by_half(rows):
    label = np.array([int(positive) for positive, _ in rows])
    score = np.array([value / 10 + 0.2 for _, value in rows])
    if len(set(label)) < 2:
        return
    pairs = [(p > q) + 0.5 * (p == q) for p in score[label == 1] for q in score[label == 0]]
    assert METRICS["roc_auc"].value(encoded(label, score)) == pytest.approx(np.mean(pairs))


def test_a_class_that_is_never_predicted_counts_nothing():
    assert METRICS["precision"].value(encoded(np.array([0, 1, 1]), np.array([0, 0, 0]))) == 0.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("roc_acu", "no metric. Did you mean 'roc_auc'"),
        ("no.such.module:f", "cannot be imported"),
        ("math:no_such", "cannot be imported"),
        ("math:pi", "no function"),
    ],
)
def test_a_metric_that_is_not_there_is_named(name, text):
    with pytest.raises(ConfigError, match=text):
        find_metric(name, higher_is_better=None if ":" not in name else True)


def test_the_direction_of_a_function_must_be_said_and_that_of_a_metric_must_not():
    with pytest.raises(ConfigError, match="say higher_is_better"):
        find_metric("math:dist")
    with pytest.raises(ConfigError, match="Leave it out"):
        find_metric("accuracy", higher_is_better=True)


def test_a_metric_of_the_users_own_gets_plain_arrays():
    metric = find_metric("math:dist", higher_is_better=False)
    label, predicted = values(rows=5)
    one = encoded(label, predicted, "regression")
    assert metric.value(one) == pytest.approx(np.linalg.norm(label - predicted))
    assert metric.weighted(one, np.array([[2, 0, 0, 0, 0]]))[0] == pytest.approx(2**0.5 * abs(label[0] - predicted[0]))
    assert metric.influence(one) is None


def test_a_function_that_sorts_what_it_is_given_spoils_nothing():
    def sorts(label, predicted):
        label.sort()
        predicted.sort()
        return 1.0

    one = encoded(*values(rows=5), "regression")
    before = one.raw_truth.copy(), one.raw.copy()
    assert UserMetric("mine:sorts", True, sorts).value(one) == 1.0
    assert np.array_equal(one.raw_truth, before[0])
    assert np.array_equal(one.raw, before[1])


@pytest.mark.parametrize("answer", ["x", None, np.ones(2)])
def test_a_function_that_returns_no_number_is_named(answer):
    one = encoded(*values(rows=5), "regression")
    with pytest.raises(ConfigError, match="evaluate: mine:odd must return one number for labels and predictions"):
        UserMetric("mine:odd", True, lambda _label, _predicted: answer).value(one)
    with pytest.raises(ConfigError, match="failed: ZeroDivisionError: division by zero"):
        UserMetric("mine:odd", True, lambda _label, _predicted: 1 / 0).value(one)


@pytest.mark.parametrize(
    ("name", "predicted", "text"),
    [
        ("roc_auc", np.array([0, 1, 1, 0]), "needs scores.*predict_proba"),
        ("log_loss", np.array([-2.0, 3.0, 0.5, 1.0]), "needs probabilities"),
        ("accuracy", np.array([-2.0, 3.0, 0.5, 1.0]), "needs labels"),
        ("roc_auc", np.array([-2.0, 3.0, 0.5, 1.0]), "^$"),
    ],
)
def test_what_a_metric_lacks_is_said(name, predicted, text):
    import re

    assert re.search(text, lacks(METRICS[name], encoded(np.array([0, 1, 1, 0]), predicted)))


@pytest.mark.parametrize(
    ("label", "predicted", "text"),
    [
        (np.array([0, 1]), np.array([0.5]), "1 predictions for 2 rows"),
        (np.array([0, 1]), np.array([0.5, np.nan]), "NaN, infinity or nothing for 1 of 2"),
        (np.array([0, 1]), np.array([None, "a"], dtype=object), "nothing for 1 of 2"),
        (np.array([0, 1]), np.full((2, 3), 1 / 3), "3 columns for the 2 classes"),
    ],
)
def test_predictions_that_cannot_be_judged_are_found(label, predicted, text):
    found = sample(label, predicted, policy=POLICY, classes=np.array([0, 1]), columns=None, who="candidate")
    assert isinstance(found, Finding)
    assert text in found.sentence


def test_a_regression_needs_one_number_per_row():
    found = sample(np.ones(2), np.array(["a", "b"]), policy=POLICY, classes=None, columns=None, who="candidate")
    assert found.reason is Reason.BAD_PREDICTIONS


@pytest.mark.parametrize(
    ("label", "task", "given", "positive", "text"),
    [
        (np.array([1, 1]), "binary", None, None, "hold the one class 1"),
        (np.array([1, 2, 3]), "binary", None, None, "binary and the labels hold 3 values"),
        (np.array(["a", "b"]), "binary", None, "c", "'c' is not among the labels a and b"),
        (np.array(["a", "z"]), "multiclass", ("a", "b", "c"), None, "'z', which the model does not know"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_found(label, task, given, positive, text):
    found = class_order(label, task, given, GatePolicy(positive_label=positive))
    assert isinstance(found, Finding)
    assert text in found.sentence


def test_the_positive_label_can_be_the_smaller_one():
    label, predicted = np.array(["no", "yes", "yes"]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    policy = GatePolicy(positive_label="no")
    assert encoded(label, predicted, policy=policy).score.tolist() == [0.9, 0.2, 0.7]
    assert encoded(label, predicted).score.tolist() == [0.1, 0.8, 0.3]


def test_numbers_compare_as_numbers_and_texts_as_texts():
    assert encode(np.array([1.0, 0.0, 7.0]), np.array([0, 1])).tolist() == [1, 0, 2]
    assert encode(np.array([True, False]), np.array([0, 1])).tolist() == [1, 0]
    assert encode(np.array(["b"]), np.array(["b", "a"])).tolist() == [0]


def test_missing_values_are_seen_in_every_type():
    assert missing(np.array([1.0, np.nan])).tolist() == [False, True]
    assert missing(np.array(["a", None, float("nan")], dtype=object)).tolist() == [False, True, True]
    assert missing(np.array(["2026-01-01", "NaT"], dtype="datetime64[s]")).tolist() == [False, True]
    assert missing(np.array([1, 2])).tolist() == [False, False]
