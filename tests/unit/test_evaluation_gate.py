"""The gate's decisions: one table per kind of rule, one text per refusal, and what must hold whatever the numbers."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.evaluation import (
    Finding,
    GatePolicy,
    GateVerdict,
    Importance,
    Predictions,
    Reason,
    Rule,
    check_rules,
    decide,
)
from airflow_provider_mlops.evaluation.importance import Drop

FAST = GatePolicy(bootstrap_draws=400)


def models(rows=2000, won=0, lost=0, accuracy=0.8, seed=0):
    """Return label, candidate and champion: the candidate mends *won* of the champion's errors and makes *lost* new."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    champion = np.where(rng.random(rows) < accuracy, label, 1 - label)
    candidate = champion.copy()
    for count, pool in ((won, np.flatnonzero(champion != label)), (lost, np.flatnonzero(champion == label))):
        candidate[rng.choice(pool, count, replace=False)] ^= 1
    return label, candidate, champion


def scores(rows=2000, seed=0, noise=(0.1, 1.0)):
    """Return label and the scores of two models: the one with less noise is better."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, rows)
    signal = 1.5 * label - 0.75 + rng.normal(size=rows)
    return label, *(1 / (1 + np.exp(-signal - size * rng.normal(size=rows))) for size in noise)


def ask(rules, arrays, *, slices=None, policy=FAST, task="binary", **others):
    label, candidate, champion = arrays
    names = {"time", "entity", "newest", "champion_error", "classes"}
    own = {key: others.pop(key) for key in list(others) if key in names}
    predictions = Predictions(label, candidate, champion, slices or {}, **own)
    return decide(rules, predictions, task=task, policy=policy, **others)


RELATIVE = [
    # id, rule, won, lost, verdict, reason
    ("better", Rule("accuracy"), 60, 20, "passed", "holds"),
    ("equal, few rows change", Rule("accuracy"), 10, 10, "refused", "not_better"),
    ("equal, many rows change", Rule("accuracy"), 100, 100, "underpowered", "underpowered"),
    ("a little better, many rows change", Rule("accuracy"), 105, 95, "underpowered", "underpowered"),
    ("shown worse, many rows change", Rule("accuracy"), 60, 160, "refused", "not_better"),
    ("the same model", Rule("accuracy"), 0, 0, "refused", "not_better"),
    ("three lucky rows", Rule("accuracy"), 3, 0, "refused", "not_better"),
    ("gain asked and shown", Rule("accuracy", min_gain_vs_champion=0.005), 60, 20, "passed", "holds"),
    ("gain asked and not shown", Rule("accuracy", min_gain_vs_champion=0.019), 40, 0, "refused", "not_better"),
    ("within the margin", Rule("accuracy", max_drop_vs_champion=0.02), 20, 30, "passed", "holds"),
    ("the same within any margin", Rule("accuracy", max_drop_vs_champion=0.001), 0, 0, "passed", "holds"),
    ("beyond the margin", Rule("accuracy", max_drop_vs_champion=0.01), 10, 60, "refused", "worse_than_champion"),
    (
        "margin too small for the rows",
        Rule("accuracy", max_drop_vs_champion=0.003),
        50,
        50,
        "underpowered",
        "underpowered",
    ),
    ("champion ignored", Rule("accuracy", at_least=0.5, unsafe_ignore_champion=True), 0, 200, "passed", "holds"),
]


@pytest.mark.parametrize(
    ("rule", "won", "lost", "verdict", "reason"), [case[1:] for case in RELATIVE], ids=[c[0] for c in RELATIVE]
)
def test_the_candidate_against_the_champion(rule, won, lost, verdict, reason):
    decision = ask([rule], models(won=won, lost=lost))
    assert (decision.verdict.value, decision.reason.value) == (verdict, reason)
    assert decision.passed is (verdict == "passed")
    assert (decision.rows_needed is not None) is (verdict == "underpowered")


def test_rows_needed_follow_the_disagreement():
    decision = ask([Rule("accuracy")], models(won=100, lost=100))
    disagreement = 200 / 2000
    assert decision.rows_needed == pytest.approx((1.645 + 0.8416) ** 2 * disagreement / 0.01**2, rel=1e-3)
    assert re.search(r"2000 rows could not have shown a true gain 0.01.*About 6183 rows would", decision.sentence)


def test_rows_needed_of_roc_auc_follow_delong():
    decision = ask([Rule("roc_auc")], scores(rows=400, noise=(0.5, 0.5), seed=2))
    assert decision.verdict is GateVerdict.UNDERPOWERED
    error = decision.rules[0].numbers["standard_error"]
    assert decision.rows_needed == pytest.approx(400 * (2.5 * error / 0.01) ** 2, rel=0.02)


def test_the_ignored_champion_is_on_record():
    decision = ask([Rule("accuracy", at_least=0.5, unsafe_ignore_champion=True)], models(lost=200))
    assert decision.champion_ignored
    assert decision.rules[0].reason is Reason.CHAMPION_IGNORED
    assert decision.to_dict()["rules"][0]["rule"]["unsafe_ignore_champion"] is True


def test_only_the_first_metric_must_beat_the_champion():
    rules = [Rule("accuracy"), Rule("f1", at_least=0.5)]
    decision = ask(rules, models(won=60, lost=20))
    assert decision.passed
    assert "gain" not in decision.rules[1].numbers
    assert ask([Rule("f1", at_least=0.5), Rule("accuracy", at_least=0.5)], models()).reason is Reason.NOT_BETTER


ABSOLUTE = [
    (Rule("accuracy", at_least=0.75), "passed"),
    (Rule("accuracy", at_least=0.85), "refused"),
    (Rule("accuracy", at_most=0.75), "refused"),
    (Rule("f1", at_least=0.7, at_most=0.9), "passed"),
]


@pytest.mark.parametrize(("rule", "verdict"), ABSOLUTE)
def test_a_limit_on_the_value_judges_the_point_estimate_and_reports_the_interval(rule, verdict):
    label, candidate, _ = models()
    decision = ask([rule], (label, candidate, None))
    numbers = decision.rules[0].numbers
    assert decision.verdict.value == verdict
    assert numbers["low"] < numbers["value"] < numbers["high"]
    assert decision.bootstrap


def test_the_first_model_is_held_to_absolute_limits_only_and_marked_so():
    label, candidate, _ = models()
    decision = ask([Rule("accuracy", at_least=0.5), Rule("f1", max_drop_vs_champion=0.01)], (label, candidate, None))
    assert decision.passed
    assert decision.bootstrap
    assert [outcome.reason for outcome in decision.rules] == [Reason.FIRST_MODEL, Reason.FIRST_MODEL]
    assert "First model: nothing was compared" in decision.sentence


def sliced(loss_in_b, rows=1500):
    """Return a pair that is better as a whole while slice b loses *loss_in_b* rows."""
    label, candidate, champion = models(rows=rows, won=120, lost=0, seed=3)
    names = np.where(np.arange(rows) < rows * 2 // 3, "a", "b")
    spare = np.flatnonzero((names == "b") & (candidate == label))[:loss_in_b]
    candidate[spare] ^= 1
    return (label, candidate, champion), {"part": names}


SLICES = [
    ("none worse", 0, Rule("accuracy", per="part"), "passed", "holds"),
    ("one shown worse", 80, Rule("accuracy", per="part"), "refused", "slice_worse"),
    ("worse, not shown", 42, Rule("accuracy", per="part"), "passed", "holds"),
    ("worse, ignored", 80, Rule("accuracy", per="part", unsafe_ignore_champion=True), "passed", "holds"),
    ("worse, within the margin", 80, Rule("accuracy", per="part", max_drop_vs_champion=0.2), "passed", "holds"),
    ("protected and better", 0, Rule("accuracy", per="part", protected=True), "passed", "holds"),
    ("protected and not shown", 42, Rule("accuracy", per="part", protected=True), "underpowered", "underpowered"),
    ("protected and shown worse", 80, Rule("accuracy", per="part", protected=True), "refused", "slice_worse"),
    (
        "protected with a margin",
        42,
        Rule("accuracy", per="part", protected=True, max_drop_vs_champion=0.08),
        "passed",
        "holds",
    ),
    ("below the limit", 80, Rule("accuracy", per="part", at_least=0.8), "refused", "below_absolute"),
    ("too few rows in one", 0, Rule("accuracy", per="part", min_rows=600), "passed", "holds"),
    ("too few rows in all", 0, Rule("accuracy", per="part", min_rows=2000), "refused", "slice_underfilled"),
    (
        "protected, too few",
        0,
        Rule("accuracy", per="part", protected=True, min_rows=600),
        "refused",
        "slice_underfilled",
    ),
    ("no such column", 0, Rule("accuracy", per="parts"), "refused", "missing_slice"),
]


@pytest.mark.parametrize(
    ("loss", "rule", "verdict", "reason"), [case[1:] for case in SLICES], ids=[c[0] for c in SLICES]
)
def test_slices(loss, rule, verdict, reason):
    arrays, slices = sliced(loss)
    decision = ask([Rule("accuracy", max_drop_vs_champion=0.05), rule], arrays, slices=slices)
    assert (decision.verdict.value, decision.reason.value) == (verdict, reason), decision.sentence


def test_a_slice_with_too_few_rows_leaves_a_note():
    arrays, slices = sliced(0)
    decision = ask([Rule("accuracy"), Rule("accuracy", per="part", min_rows=600)], arrays, slices=slices)
    assert decision.rules[1].numbers["notes"] == ["part=b: 500 rows < 600, not judged"]


def test_rows_without_a_slice_are_a_slice_of_their_own():
    arrays, _ = sliced(0)
    names = np.array(["a", None, "b"], dtype=object)[np.arange(1500) % 3]
    decision = ask([Rule("accuracy"), Rule("accuracy", per="part")], arrays, slices={"part": names})
    assert list(decision.rules[1].numbers["slices"]) == ["a", "b", "(missing)"]


def test_a_slice_that_is_called_missing_is_judged_beside_the_rows_without_one():
    label = np.arange(1500) % 2
    names = np.array(["(missing)", None, "b"], dtype=object)[np.arange(1500) % 3]
    wrong_there = np.where(names == "(missing)", 1 - label, label)
    rules = [Rule("accuracy", at_least=0.5), Rule("accuracy", per="part", at_least=0.5)]
    decision = ask(rules, (label, wrong_there, None), slices={"part": names})
    assert decision.reason is Reason.BELOW_ABSOLUTE
    assert "part=(missing) is 0.0000" in decision.sentence
    decision = ask(rules, (label, label, None), slices={"part": names})
    assert list(decision.rules[1].numbers["slices"]) == ["(missing)", "b", "((missing))"]


def test_a_slice_per_row_takes_no_memory_per_pair_and_names_the_first_few():
    label, candidate, champion = models(rows=200_000)
    rules = [Rule("accuracy", at_least=0.1), Rule("accuracy", per="customer")]
    decision = ask(rules, (label, candidate, champion), slices={"customer": np.arange(200_000)})
    assert decision.rules[1].reason is Reason.SLICE_UNDERFILLED
    assert decision.rules[1].numbers["notes"][-1] == "and 199950 more"


def test_labels_above_2_to_the_53_are_told_apart():
    label = np.arange(1000) % 2 + 2**53
    decision = ask([Rule("accuracy", at_least=0.5)], (label, label[::-1].copy(), None))
    assert decision.rules[0].numbers["value"] == 0.0


def test_predictions_for_the_labeled_rows_only_are_refused():
    label, candidate, champion = (values.astype(float) for values in models())
    label[:10] = np.nan
    assert ask([Rule("accuracy")], (label, candidate[10:], champion)).reason is Reason.BAD_PREDICTIONS
    assert ask([Rule("accuracy")], (label, candidate, champion[10:])).reason is Reason.CHAMPION_UNSCORABLE


def test_nested_labels_and_predictions_are_refused():
    label, candidate, champion = models()
    lists = np.empty(2000, dtype=object)
    lists[:] = [[value] for value in label]
    arrays = np.empty(2000, dtype=object)
    arrays[:] = [np.zeros(2) for _ in label]
    for nested in (lists, arrays):
        assert ask([Rule("accuracy")], (nested, candidate, champion)).reason is Reason.BAD_PREDICTIONS
        assert ask([Rule("accuracy")], (label, nested, champion)).reason is Reason.BAD_PREDICTIONS
    assert ask([Rule("accuracy")], (label, np.zeros((2000, 2, 2)), champion)).reason is Reason.BAD_PREDICTIONS


@pytest.mark.parametrize("times", [[None], ["2026-01-01", None], [1, "2026", None]], ids=str)
def test_rows_without_a_time_come_last(times):
    label, candidate, champion = models(won=60, lost=20)
    time = np.array(times * 2000, dtype=object)[:2000]
    decision = ask([Rule("accuracy", at_least=0.1)], (label, candidate, champion), time=time)
    assert decision.rules[0].numbers["gain_method"] == "paired bootstrap of blocks"


@pytest.mark.parametrize(
    ("metric", "limit", "reason"),
    [
        ("demographic_parity_difference", 0.5, "holds"),
        ("demographic_parity_difference", 0.1, "unfair"),
        ("equal_opportunity_difference", 0.5, "holds"),
        ("equal_opportunity_difference", 0.1, "unfair"),
        ("equalized_odds_difference", 0.1, "unfair"),
    ],
)
def test_fairness_is_the_largest_gap_between_groups_with_its_interval(metric, limit, reason):
    label, _, champion = models()
    group = np.arange(2000) % 3
    candidate = np.where((group == 2) & (np.arange(2000) % 7 < 3), 0, champion)
    rules = [Rule("accuracy", at_least=0.1), Rule(metric, per="group", at_most=limit)]
    decision = ask(rules, (label, candidate, None), slices={"group": group})
    outcome = decision.rules[1]
    rates = [candidate[(group == g) & ((label == 1) | (metric[0] == "d"))].mean() for g in range(3)]
    assert outcome.reason.value == reason
    assert outcome.numbers["value"] == pytest.approx(max(rates) - min(rates))
    assert outcome.numbers["low"] < outcome.numbers["value"] < outcome.numbers["high"]
    assert outcome.numbers["between"][1] == "2"


def test_a_gap_needs_two_groups_with_enough_rows():
    rules = [Rule("accuracy", at_least=0.1), Rule("demographic_parity_difference", per="g", at_most=0.1, min_rows=5)]
    label, candidate, _ = models(rows=200)
    decision = ask(rules, (label, candidate, None), slices={"g": np.where(np.arange(200) < 3, "x", "y")})
    assert decision.reason is Reason.SLICE_UNDERFILLED
    assert decision.rules[1].numbers["notes"] == ["x: 3 rows < 5, left out"]


@pytest.mark.parametrize(
    ("measured", "reason", "text"),
    [
        ({"latency_p95_ms": 40.0}, "holds", "within the budget of 50"),
        ({"latency_p95_ms": 60.0}, "budget_exceeded", "latency_p95_ms is 60, the budget is 50"),
        ({"latency_p95_ms": float("nan")}, "not_a_number", "was measured as nan"),
        ({"memory_mib": 3.0}, "missing_metric", "latency_p95_ms was not measured. Measured: memory_mib"),
    ],
)
def test_budgets(measured, reason, text):
    label, candidate, _ = models()
    rules = [Rule("accuracy", at_least=0.1), Rule("latency_p95_ms", at_most=50)]
    decision = ask(rules, (label, candidate, None), measurements=measured)
    assert decision.rules[1].reason.value == reason
    assert text in decision.rules[1].sentence


def test_a_measurement_of_the_users_own_can_be_bounded():
    label, candidate, _ = models()
    rules = [Rule("accuracy", at_least=0.1), Rule("toxicity", at_most=0.2)]
    assert ask(rules, (label, candidate, None), measurements={"toxicity": 0.3}).reason is Reason.BUDGET_EXCEEDED


def test_small_losses_do_not_add_up_against_the_anchor():
    label, candidate, champion = models(won=5, lost=12)
    _, _, anchor = models(won=0, lost=0)
    anchor = np.where((champion != label) & (np.arange(2000) % 3 == 0), label, champion)
    rule = Rule("accuracy", max_drop_vs_champion=0.02)
    assert ask([rule], (label, candidate, champion)).passed
    decision = ask([rule], (label, candidate, champion), anchor=anchor)
    assert decision.reason is Reason.WORSE_THAN_ANCHOR
    assert "Small losses have added up" in decision.sentence
    assert ask([rule], (label, candidate, champion), anchor=champion).passed


def newest(loss, rows=2000, share=0.2):
    """Return a pair that is better as a whole while the newest rows lose *loss*, and which rows these are."""
    label, candidate, champion = models(rows=rows, won=120, lost=0, seed=3)
    new = np.arange(rows) >= rows * (1 - share)
    spare = np.flatnonzero(new & (candidate == label))[:loss]
    candidate[spare] ^= 1
    return (label, candidate, champion), new


NEWEST = [
    ("as good there", 0, 0.2, Rule("accuracy"), "passed", "holds"),
    ("worse, not shown", 30, 0.2, Rule("accuracy"), "passed", "holds"),
    ("shown worse", 65, 0.2, Rule("accuracy"), "refused", "newest_worse"),
    ("shown worse, within the margin", 65, 0.2, Rule("accuracy", max_drop_vs_champion=0.2), "passed", "holds"),
    ("too few rows to say", 65, 0.04, Rule("accuracy"), "passed", "holds"),
    ("all rows are new", 65, 1.0, Rule("accuracy"), "passed", "holds"),
    ("ignored", 65, 0.2, Rule("accuracy", at_least=0.1, unsafe_ignore_champion=True), "passed", "holds"),
]


@pytest.mark.parametrize(
    ("loss", "share", "rule", "verdict", "reason"), [case[1:] for case in NEWEST], ids=[c[0] for c in NEWEST]
)
def test_the_newest_window_vetoes_when_it_is_shown_worse(loss, share, rule, verdict, reason):
    arrays, new = newest(loss, share=share)
    decision = ask([rule], arrays, newest=new)
    assert (decision.verdict.value, decision.reason.value) == (verdict, reason), decision.sentence
    if reason == "newest_worse":
        assert re.search(r"is shown\. But on the newest 400 rows alone the gain is -0\.\d+ \[", decision.sentence)
        assert decision.rules[0].numbers["newest"]["rows"] == 400


def test_equal_models_are_rarely_stopped_by_the_newest_window():
    rule, stopped = Rule("accuracy", max_drop_vs_champion=0.05), 0
    for seed in range(200):
        label, candidate, champion = models(won=50, lost=50, seed=seed)
        decision = ask([rule], (label, candidate, champion), newest=np.arange(2000) >= 1600)
        stopped += decision.reason is Reason.NEWEST_WORSE
    assert stopped <= 10  # the margin is far, 5 % would be stopped without one


LABEL, GOOD, CHAMPION = models(won=60, lost=20)
ONE = np.ones(2000, dtype=int)
REFUSALS = [
    ("no_rule", [], {}, "No rule was given"),
    ("no_rule", [Rule("accuracy")], {"champion": None}, "first model and no rule limits a metric itself"),
    ("no_rule", [Rule("accuracy", per="g")], {}, "not compared with the champion"),
    ("no_rule", [Rule("accuracy", unsafe_ignore_champion=True)], {}, "champion is ignored and no rule limits"),
    ("missing_metric", [Rule("roc_auc")], {}, "roc_auc needs scores, and the model predicts labels only"),
    ("missing_slice", [Rule("accuracy"), Rule("accuracy", per="h")], {}, "'h' was not scored.*Scored: g"),
    ("not_a_number", [Rule("accuracy")], {"candidate": np.where(ONE, np.nan, 0.0)}, "predicts NaN.* for 2000 of 2000"),
    ("bad_predictions", [Rule("accuracy")], {"candidate": GOOD[:9]}, "9 predictions for 2000 rows"),
    ("one_class", [Rule("accuracy")], {"label": ONE}, "hold the one class 1"),
    ("empty_evaluation_set", [Rule("accuracy")], {"label": ONE[:0]}, "has no rows"),
    (
        "labels_missing",
        [Rule("accuracy")],
        {"label": np.where(GOOD, 1.0, np.nan)},
        r"evaluation rows \(\d+.\d%\) have no label",
    ),
    (
        "champion_unscorable",
        [Rule("accuracy")],
        {"champion": None, "champion_error": "it is gone"},
        "it is gone.*only way round",
    ),
    (
        "champion_unscorable",
        [Rule("accuracy", at_least=0.5)],
        {"champion": None, "champion_error": ""},
        "it is not said why",
    ),
    (
        "missing_slice",
        [Rule("accuracy"), Rule("accuracy", per="g")],
        {"slices": {"g": np.array([[1], [2, 3]] * 1000, dtype=object)}},
        "the column 'g' holds lists or mappings",
    ),
    ("champion_unscorable", [Rule("accuracy")], {"champion": CHAMPION[:5]}, "champion has 5 predictions for 2000 rows"),
    ("champion_unscorable", [Rule("accuracy")], {"champion": np.full(2000, np.inf)}, "champion predicts NaN"),
    ("below_absolute", [Rule("accuracy", at_least=0.99)], {}, r"accuracy is 0\.\d+ \[.*\], at least 0.99 is asked"),
    ("bad_predictions", [Rule("accuracy")], {"slices": {"g": ONE[:5]}}, "g has 5 values for 2000 labels"),
]


@pytest.mark.parametrize(("code", "rules", "change", "text"), REFUSALS)
def test_each_refusal_has_its_own_code_and_says_why(code, rules, change, text):
    given = {"label": LABEL, "candidate": GOOD, "champion": CHAMPION, "slices": {"g": np.arange(2000) % 2}} | change
    decision = decide(rules, Predictions(**given), task="binary", policy=FAST)
    assert decision.verdict is GateVerdict.REFUSED
    assert decision.reason.value == code
    assert re.search(text, decision.sentence), decision.sentence


def test_a_slice_of_one_class_is_refused_for_a_metric_that_needs_two():
    label, candidate, champion = scores()
    part = np.where(label == 1, np.where(np.arange(2000) % 3 == 0, "only", "both"), "both")
    decision = ask([Rule("roc_auc"), Rule("roc_auc", per="part")], (label, candidate, champion), slices={"part": part})
    assert decision.reason is Reason.ONE_CLASS
    assert "part=only is not defined: its labels hold one class only" in decision.sentence


@pytest.mark.parametrize(
    ("rows", "entities", "says"),
    [
        (9, None, "accuracy is 1.0000 on 9 rows; 10 are the least."),
        (40, 4, "accuracy is 1.0000 on 4 entities; 10 are the least."),
        (10, None, "accuracy is 1.0000"),
    ],
)
def test_a_handful_of_rows_passes_nobody_not_even_the_first_model(rows, entities, says):
    label = np.arange(rows) % 2
    entity = None if entities is None else np.arange(rows) % entities
    decision = ask([Rule("accuracy", at_least=0.8)], (label, label, None), entity=entity)
    assert says in decision.sentence or says in decision.rules[0].sentence
    assert decision.passed == (rows == 10)
    assert decision.rows_needed == (None if decision.passed else 10 if entities is None else 100)


def test_what_a_guard_found_refuses_before_any_rule():
    found = Finding(Reason.OVERLAP, "7 rows were trained on.")
    decision = ask([Rule("accuracy")], models(won=60, lost=20), findings=[found])
    assert decision.reason is Reason.OVERLAP
    assert decision.rules == ()
    assert decision.to_dict()["findings"] == [
        {"reason": "overlap", "sentence": "7 rows were trained on.", "numbers": {}}
    ]


def test_a_few_missing_labels_leave_their_rows_out():
    label, candidate, champion = models(won=60, lost=20)
    label = label.astype(object)
    label[:50] = None
    decision = ask([Rule("accuracy")], (label, candidate, champion))
    assert decision.passed
    assert decision.rows == 1950


IMPORTANCE = Importance(
    loss="brier",
    base=0.1,
    rows=500,
    repeats=10,
    columns={"age": Drop(0.06, 0.05, 0.07), "zip": Drop(0.02, 0.01, 0.03), "noise": Drop(-0.01, -0.02, 0.001)},
    not_inputs=("street",),
)

DRIVERS = [
    # column, at_most, what was measured, verdict, reason, words
    (
        "zip",
        0.25,
        IMPORTANCE,
        "passed",
        "holds",
        "'zip' holds 25.0% of the model's importance, at most 25.0% is allowed.",
    ),
    ("zip", 0.05, IMPORTANCE, "refused", "forbidden_driver", "25.0% .* at most 5.0% .* columns that stand in for it"),
    ("noise", 0.0, IMPORTANCE, "passed", "holds", "'noise' holds 0.0%"),
    ("street", 0.05, IMPORTANCE, "passed", "holds", "'street' is no input of the model"),
    ("zpi", 0.05, IMPORTANCE, "refused", "missing_metric", "the data has no column 'zpi'. Did you mean 'zip'"),
    ("zip", 0.05, None, "refused", "missing_metric", "was not measured. Look at the scoring job's log"),
]


@pytest.mark.parametrize(("column", "at_most", "importance", "verdict", "reason", "words"), DRIVERS)
def test_a_forbidden_column_must_not_drive_the_model(column, at_most, importance, verdict, reason, words):
    rules = [Rule("accuracy"), Rule("importance_share", column=column, at_most=at_most)]
    decision = ask(rules, models(won=60, lost=20), importance=importance)
    outcome = decision.rules[1]
    assert (outcome.verdict, outcome.reason) == (verdict, reason)
    assert re.search(words, outcome.sentence)
    assert decision.verdict == verdict


def test_what_drives_a_model_is_no_measure_of_how_good_it_is():
    rule = Rule("importance_share", column="zip", at_most=0.5)
    decision = ask([rule], models(won=60, lost=20), importance=IMPORTANCE)
    assert decision.reason is Reason.NO_RULE
    decision = ask([rule, Rule("accuracy")], models(won=60, lost=20), importance=IMPORTANCE)
    assert "gain" in decision.rules[1].numbers


def test_a_column_weighs_little_in_a_drift_check_only_when_it_is_shown_to():
    assert IMPORTANCE.weights == {"age": 0.07, "zip": 0.03, "noise": 0.001}
    assert IMPORTANCE.shares == pytest.approx({"age": 0.75, "zip": 0.25, "noise": 0.0})


BAD_RULES = [
    ({"metric": "roc_acu"}, "'roc_acu' is no metric. Did you mean 'roc_auc'"),
    ({"metric": "mae"}, "mae is not defined for task: binary"),
    ({"metric": "accuracy", "at_least": 80}, r"at_least is 80, and accuracy lies in 0..1"),
    ({"metric": "demographic_parity_difference"}, "give per: COLUMN and at_most"),
    ({"metric": "latency_p95_ms", "at_least": 3}, "is a budget: give at_most"),
    ({"metric": "importance_share", "at_most": 0.1}, "column: COLUMN go together"),
    ({"metric": "accuracy", "column": "zip"}, "column: COLUMN go together"),
    ({"metric": "importance_share", "column": "zip"}, "is a share of one column: give column: COLUMN and at_most"),
    ({"metric": "importance_share", "column": "zip", "at_most": 5}, "is a share of one column"),
    ({"metric": "importance_share", "column": "zip", "at_most": 0.1, "per": "g"}, "is a share of one column"),
    ({"metric": "math:dist"}, "say higher_is_better"),
    ({"metric": "accuracy", "higher_is_better": True}, "Leave it out"),
    ({"metric": "accuracy", "atleast": 0.8}, "'atleast' is no key of a rule. Did you mean 'at_least'"),
    ({"at_least": 0.8}, "'metric' is missing"),
    ({"metric": "accuracy", "at_least": "80%"}, "at_least is '80%'"),
    ({"metric": "accuracy", "at_least": float("nan")}, "at_least is nan"),
    ({"metric": "accuracy", "max_drop_vs_champion": 0}, "the loss you fear, > 0"),
    ({"metric": "accuracy", "min_gain_vs_champion": -0.1}, "Write a gain >= 0"),
    ({"metric": "accuracy", "min_gain_vs_champion": 0.1, "max_drop_vs_champion": 0.1}, "contradicts"),
    ({"metric": "accuracy", "min_gain_vs_champion": 0.1, "per": "g"}, "cannot be asked of slices"),
    ({"metric": "accuracy", "min_rows": 5}, "Name the column: per"),
    ({"metric": "accuracy", "min_rows": 0, "per": "g"}, "min_rows is 0"),
    ({"metric": "accuracy", "protected": True}, "Name the column: per"),
    ({"metric": "accuracy", "protected": True, "per": "g", "unsafe_ignore_champion": True}, "contradicts"),
]


@pytest.mark.parametrize(("values", "text"), BAD_RULES)
def test_a_rule_that_cannot_be_asked_is_a_configuration_error(values, text):
    with pytest.raises(ConfigError, match=text):
        check_rules([Rule.from_dict(values)], task="binary")


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'multiclass'"):
        check_rules([], task="multi-class")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"alpha": 0.7}, "alpha is 0.7"),
        ({"max_missing_labels": 1.0}, "max_missing_labels is 1.0"),
        ({"smallest_gain": 0.0}, "smallest_gain is 0.0"),
        ({"bootstrap_draws": 10}, "Fewer than 100"),
        ({"block_rows": 0}, "count rows"),
    ],
)
def test_a_policy_out_of_range_is_a_configuration_error(change, text):
    with pytest.raises(ConfigError, match=text):
        GatePolicy(**change)


def test_a_rule_comes_back_from_its_own_mapping():
    values = {"metric": "roc_auc", "at_least": 0.75, "per": "country", "min_rows": 500}
    assert Rule.from_dict(values).to_dict() == values


def test_a_decision_is_json_and_its_digest_covers_all_of_it():
    decision = ask([Rule("accuracy", at_least=0.1), Rule("f1", per="g")], models(won=60, lost=20), slices={"g": ONE})
    again = ask([Rule("accuracy", at_least=0.1), Rule("f1", per="g")], models(won=60, lost=20), slices={"g": ONE})
    other = ask([Rule("accuracy", at_least=0.2), Rule("f1", per="g")], models(won=60, lost=20), slices={"g": ONE})
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["verdict"] == "passed"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", decision.digest)
    assert decision.digest == again.digest != other.digest


@pytest.mark.parametrize("metric", ["log_loss", "brier", "ece", "roc_auc", "average_precision", "f1", "accuracy"])
def test_a_clearly_better_model_passes_whichever_way_the_metric_points(metric):
    label, good, bad = scores(rows=4000, noise=(0.0, 2.5))
    assert ask([Rule(metric)], (label, good, bad)).passed
    assert ask([Rule(metric)], (label, bad, good)).reason is Reason.NOT_BETTER


@pytest.mark.parametrize("metric", ["mae", "rmse", "mape", "r2", "pinball_p75"])
def test_regression_metrics_compare_in_their_own_direction(metric):
    rng = np.random.default_rng(4)
    label = 10 + rng.normal(size=1000)
    good, bad = label + 0.1 * rng.normal(size=1000), label + 0.4 * rng.normal(size=1000)
    assert ask([Rule(metric)], (label, good, bad), task="regression").passed
    assert not ask([Rule(metric)], (label, bad, good), task="forecasting").passed


def test_classes_by_name_and_probabilities_by_column():
    rng = np.random.default_rng(5)
    names = np.array(["x", "y", "z"])
    label = rng.choice(names, 1500)
    raw = rng.random((1500, 3)) + 0.6 * (label[:, None] == names)
    good, bad = raw / raw.sum(1, keepdims=True), np.full((1500, 3), 1 / 3)
    decision = ask([Rule("roc_auc"), Rule("f1", at_least=0.5)], (label, good, bad), task="multiclass")
    assert decision.passed, decision.sentence
    hard = ask([Rule("accuracy")], (label, names[good.argmax(1)], names[bad.argmax(1)]), task="multiclass")
    assert hard.passed


def test_a_metric_of_the_users_own_is_compared_too():
    rng = np.random.default_rng(6)
    label = rng.normal(size=300)
    good, bad = label + 0.1 * rng.normal(size=300), label + rng.normal(size=300)
    decision = ask([Rule("math:dist", higher_is_better=False)], (label, good, bad), task="regression")
    assert decision.passed
    assert not ask([Rule("math:dist", higher_is_better=False)], (label, bad, good), task="regression").passed


@given(seed=st.integers(0, 50), metric=st.sampled_from(["accuracy", "f1", "roc_auc", "log_loss", "ece"]))
@settings(max_examples=25, deadline=None)
def test_swapping_the_models_negates_the_gain(seed, metric):
    label, one, other = scores(rows=300, seed=seed, noise=(0.3, 0.6))
    rule = Rule(metric, max_drop_vs_champion=0.9)
    forth = ask([rule], (label, one, other)).rules[0].numbers
    back = ask([rule], (label, other, one)).rules[0].numbers
    assert forth["gain"] == pytest.approx(-back["gain"], abs=1e-12)
    assert forth["standard_error"] == pytest.approx(back["standard_error"])
    assert forth["gain_low"] <= forth["gain"] <= forth["gain_high"]


@given(seed=st.integers(0, 50), metric=st.sampled_from(["accuracy", "f1_macro", "roc_auc", "log_loss"]))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_says_nothing(seed, metric):
    label, one, other = scores(rows=300, seed=seed, noise=(0.3, 0.6))
    order = np.random.default_rng(seed).permutation(300)
    names = np.arange(300) % 2
    rules = [Rule(metric), Rule(metric, per="g")]
    first = ask(rules, (label, one, other), slices={"g": names})
    second = ask(rules, (label[order], one[order], other[order]), slices={"g": names[order]})
    assert first.verdict is second.verdict
    for key in ("value", "low", "high", "gain", "gain_low", "gain_high"):
        assert first.rules[0].numbers[key] == pytest.approx(second.rules[0].numbers[key], abs=1e-12)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_what_is_not_better_on_these_rows_never_passes_by_default(won, lost, seed):
    decision = ask([Rule("accuracy")], models(rows=500, won=min(won, lost), lost=lost, seed=seed))
    assert not decision.passed
