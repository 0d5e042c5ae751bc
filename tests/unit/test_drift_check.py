"""A window's verdict: two keys, natural variation, and never `no_drift` where a change could have been missed."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_mlops.drift.check import DriftPolicy, Variation, Verdict, check, rows_needed
from airflow_provider_mlops.drift.contract import ContractPolicy, check_contract
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import ProfileBuilder
from airflow_provider_mlops.errors import ConfigError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
STRICT = DriftPolicy(false_alarms_per_30_days=0.3)  # alpha .01


def profile(columns, on=None):
    builder = ProfileBuilder(on)
    builder.add(pa.record_batch(columns))
    return builder.profile()


def reference_of(columns, block=None):
    rows = pa.record_batch(columns)
    timed = {"timestamp": "at", "block": block, "origin": ORIGIN} if block else {}
    return without_identifiers(profile(columns, on=choose_layout(rows, **timed)))


def rows(n, seed=0, **change):
    rng = np.random.default_rng(seed)
    columns = {
        "amount": rng.lognormal(size=n),
        "age": rng.integers(18, 80, n),
        "country": pa.array(rng.choice(["de", "fr", "it", "pl"], n, p=[0.5, 0.3, 0.15, 0.05])),
        "active": rng.random(n) < 0.7,
    }
    return {**columns, **change}


@pytest.fixture(scope="module")
def reference():
    return reference_of(rows(20_000))


def judged(reference, columns, policy=STRICT, **options):
    return check(reference, profile(columns, on=reference), policy, **options)


def nulls(values, share, seed=1):
    mask = np.random.default_rng(seed).random(len(values)) < share
    return pa.array(values, mask=mask)


# Verdicts


def test_the_same_world_does_not_drift(reference):
    report = judged(reference, rows(10_000, seed=9))
    assert (report.verdict, report.reason, report.drifted) == (Verdict.NO_DRIFT, "steady", False)
    assert "None of 4 columns drifted; no shift exceeds" in report.sentence
    assert report.top_columns == ()
    assert report.rows == {"reference": 20_000, "current": 10_000, "needed": None}
    assert report.tests == 2 + 2 + 3 + 2


def test_numbers_known_from_elsewhere_are_told_and_decide_nothing(reference):
    moved = rows(10_000, seed=9, country=pa.array(["de", "se"] * 5_000))
    moved["amount"] = moved["amount"] + 1
    columns = judged(reference, moved).columns
    amount, country, age = (columns[name].numbers for name in ("amount", "country", "age"))
    assert amount["wasserstein"] == pytest.approx(1, rel=0.1)
    assert amount["psi"] > 0.25 > 0.01 > age["psi"]
    assert (country["distinct_before"], country["distinct_now"], country["distinct_at_least"]) == (4, 2, False)
    assert country["psi"] > 0.25


@pytest.mark.parametrize("value", [0.0, 5.0, -1e300, 1.7e308])
def test_a_reference_of_one_value_knows_smaller_and_larger_ones(value):
    reference = reference_of({"x": np.full(6_000, value)})
    for other, verdict in ((value, "no_drift"), (value / 2 - 1, "drift"), (value + abs(value) / 20 + 1, "drift")):
        assert judged(reference, {"x": np.full(6_000, other)}).columns["x"].verdict == verdict


N = 8_000
SHIFTS = [
    pytest.param(
        {"amount": np.random.default_rng(5).lognormal(0.5, size=N)}, "amount", "distribution", id="numbers moved"
    ),
    pytest.param({"age": np.random.default_rng(5).integers(30, 80, N)}, "age", "distribution", id="integers moved"),
    pytest.param({"country": pa.array(["de", "fr"] * (N // 2))}, "country", "distribution", id="category shares moved"),
    pytest.param({"active": np.random.default_rng(5).random(N) < 0.5}, "active", "distribution", id="boolean moved"),
    pytest.param(
        {"amount": nulls(np.random.default_rng(5).lognormal(size=N), 0.15)}, "amount", "missing_share", id="nulls rose"
    ),
    pytest.param(
        {
            "country": pa.array(
                np.where(
                    np.random.default_rng(5).random(N) < 0.1,
                    "xx",
                    np.random.default_rng(6).choice(["de", "fr", "it", "pl"], N, p=[0.5, 0.3, 0.15, 0.05]),
                )
            )
        },
        "country",
        "new_values",
        id="a new category",
    ),
]


@pytest.mark.parametrize(("change", "column", "reason"), SHIFTS)
def test_a_large_change_is_drift_and_names_its_column(reference, change, column, reason):
    report = judged(reference, rows(N, seed=2, **change))
    assert report.verdict is Verdict.DRIFT
    assert report.top_columns == (column,)
    assert report.columns[column].reason in {reason, "distribution"}
    assert report.columns[column].verdict is Verdict.DRIFT
    assert report.columns[column].p_adjusted <= STRICT.alpha
    assert report.columns[column].effect >= 0.05
    others = [r.verdict for name, r in report.columns.items() if name != column]
    assert set(others) == {Verdict.NO_DRIFT}


def test_drift_without_known_variation_says_so(reference):
    report = judged(reference, rows(8_000, seed=2, age=np.full(8_000, 30) + np.arange(8_000) % 9))
    assert (report.verdict, report.reason) == (Verdict.DRIFT, "variation_unknown")
    assert (report.variation, report.notes) == (Variation.UNKNOWN, ("variation_unknown", "reference_small"))
    assert "varies by itself is unknown" in report.sentence


def test_a_significant_but_small_change_is_no_drift(reference):
    rng = np.random.default_rng(3)
    reference = reference_of({"x": rng.normal(size=300_000)})
    report = judged(reference, {"x": rng.normal(0.03, size=300_000)})
    assert (report.verdict, report.columns["x"].reason) == (Verdict.NO_DRIFT, "too_small")
    assert report.columns["x"].p_adjusted < 1e-6
    assert report.plain_alarm
    assert report.plain_columns == ("x",)


def test_diffuse_change_over_many_categories_is_seen():
    rng = np.random.default_rng(4)
    names = np.array([f"v{i:03}" for i in range(1000)])
    before = np.full(1000, 1e-3)
    after = before * np.where(np.arange(1000) % 2, 1.5, 0.5)
    reference = reference_of({"c": pa.array(rng.choice(names, 50_000, p=before))})
    report = judged(reference, {"c": pa.array(rng.choice(names, 50_000, p=after))})
    assert report.verdict is Verdict.DRIFT
    assert 0.15 < report.columns["c"].effect < 0.25  # a quarter moved, no single value by more than .001


@pytest.mark.parametrize(
    ("current", "verdict", "reason"),
    [
        (pa.record_batch({"x": pa.array([], pa.float64())}), Verdict.NO_DATA, "empty_window"),
        (pa.record_batch({"x": np.ones(49)}), Verdict.NO_DATA, "few_rows"),
    ],
)
def test_a_window_without_enough_rows_is_no_data(current, verdict, reason):
    reference = reference_of({"x": np.random.default_rng(0).normal(size=1000)})
    report = judged(reference, current.to_pydict() if current.num_rows else {"x": pa.array([], pa.float64())})
    assert (report.verdict, report.reason) == (verdict, reason)
    assert report.columns["x"].verdict is verdict
    assert report.rows["needed"] == 50


def test_an_empty_reference_is_no_data():
    report = judged(reference_of({"x": pa.array([], pa.float64())}), {"x": np.ones(100)})
    assert (report.verdict, report.reason) == (Verdict.NO_DATA, "empty_reference")


def test_too_few_rows_are_insufficient_and_say_how_many_it_takes(reference):
    report = judged(reference, rows(300, seed=7))
    assert (report.verdict, report.reason) == (Verdict.INSUFFICIENT, "too_few_rows")
    needed = report.rows["needed"]
    enough = judged(reference, rows(needed, seed=7))
    assert enough.verdict is Verdict.NO_DRIFT
    assert judged(reference, rows(int(needed * 0.95), seed=7)).verdict is Verdict.INSUFFICIENT


def test_the_rows_needed_are_those_of_the_method():
    """For floor .05, alpha .01 and 115 tests: 5,664 rows on both sides."""
    rng = np.random.default_rng(8)
    columns = {f"n{i}": rng.normal(size=2000) for i in range(35)} | {
        f"c{i}": pa.array(rng.choice(["a", "b"], 2000)) for i in range(15)
    }
    reference = reference_of(columns)
    report = judged(reference, columns)
    assert report.tests == 115
    assert report.columns["n0"].rows_needed == pytest.approx(5664, abs=10)


def test_a_sampled_window_says_how_much_of_it_was_read(reference):
    now = profile(rows(8000, seed=4), on=reference)
    whole, part = (check(reference, each, STRICT) for each in (now, replace(now, sampled_of=2_000_000)))
    assert "sampled" in part.notes
    assert (part.rows["current"], part.rows["current_of"], part.rows["reference_of"]) == (8000, 2_000_000, None)
    assert part.sentence == f"{whole.sentence} 8,000 of 2,000,000 rows were read."
    assert part.columns == whole.columns
    assert "sampled" not in whole.notes
    assert "current_of" not in whole.rows


def test_sampled_profiles_add_up_and_travel(reference):
    part = replace(profile(rows(100, seed=4), on=reference), sampled_of=1000)
    whole = profile(rows(50, seed=5), on=reference)
    assert part.merge(whole).sampled_of == whole.merge(part).sampled_of == 1050
    assert whole.merge(whole).sampled_of is None
    assert type(part).from_json(part.to_json()).sampled_of == 1000


def test_with_the_rows_needed_nothing_stays_open(reference):
    needed = rows_needed(reference, STRICT)
    enough, less = (judged(reference, rows(n, seed=6)) for n in (needed, round(0.9 * needed)))
    assert {column.reason for column in enough.columns.values()} <= {"steady", "too_small"}
    assert "too_few_rows" in {column.reason for column in less.columns.values()}


def test_drift_is_said_even_where_no_drift_could_not_be():
    rng = np.random.default_rng(0)
    reference = reference_of({"x": rng.normal(size=400)})
    assert judged(reference, {"x": rng.normal(2, size=100)}).verdict is Verdict.DRIFT


# Natural variation


def world(days, rows_per_day, seed, scale, shift=0.0):
    rng = np.random.default_rng(seed)
    day = np.repeat(rng.normal(0, scale, days), rows_per_day) + shift
    at = [
        ORIGIN + timedelta(days=int(d), minutes=int(k) * 1440 // rows_per_day)
        for d in range(days)
        for k in range(rows_per_day)
    ]
    shop = np.repeat(rng.normal(0, scale, days), rows_per_day) + rng.normal(size=day.size) > 0
    return {"x": rng.normal(size=day.size) + day, "c": pa.array(np.where(shop, "a", "b")), "at": pa.array(at)}


def test_days_that_differ_by_themselves_do_not_alarm():
    alarms = plain = 0
    for seed in range(60):
        data = pa.table(world(21, 500, seed, scale=0.3))
        before = data.slice(0, 20 * 500).to_pydict()
        now = data.slice(20 * 500).to_pydict()
        report = judged(reference_of(before, block=timedelta(days=1)), now, DriftPolicy())
        assert report.variation is Variation.KNOWN
        alarms += report.drifted
        plain += report.plain_alarm
    assert alarms <= 4  # alpha .033
    assert plain > 40


def test_a_change_beyond_natural_variation_is_drift_and_retraining_may_follow():
    before = world(20, 500, 1, scale=0.1)
    now = world(1, 500, 2, scale=0.1, shift=1.5)
    report = judged(reference_of(before, block=timedelta(days=1)), now)
    assert (report.verdict, report.reason) == (Verdict.DRIFT, "distribution")
    assert report.top_columns == ("x",)
    assert report.variation is Variation.KNOWN


def test_categories_beyond_natural_variation_are_drift():
    before, now = world(20, 500, 1, scale=0.1), world(1, 500, 2, scale=0.1)
    now["c"] = pa.array(["a"] * 450 + ["b"] * 50)
    assert judged(reference_of(before, block=timedelta(days=1)), now).top_columns == ("c",)


def test_a_column_that_varies_wildly_is_insufficient_not_no_drift():
    report = judged(reference_of(world(7, 2000, 3, scale=3.0), block=timedelta(days=1)), world(1, 2000, 4, scale=0.1))
    assert report.columns["x"].verdict is Verdict.INSUFFICIENT
    assert report.columns["x"].reason == "natural_variation"
    assert report.verdict is Verdict.INSUFFICIENT


def weeks(shares, rows_per_week=700, seed=0):
    """Return a flag with one share per week; the values of a second column are noise."""
    rng = np.random.default_rng(seed)
    flags = np.concatenate([np.arange(rows_per_week) < round(share * rows_per_week) for share in shares])
    at = [ORIGIN + timedelta(weeks=w, minutes=10 * i) for w in range(len(shares)) for i in range(rows_per_week)]
    return {"sale": flags, "x": rng.normal(size=flags.size) + 1.5 * flags, "at": pa.array(at)}


@pytest.mark.parametrize(("share", "reason"), [(0.64, "usual"), (0.95, "distribution")])
def test_a_window_that_moved_no_further_than_some_week_of_the_reference_is_usual(share, reason):
    reference = reference_of(weeks([0.36] * 20 + [0.66] + [0.36] * 5), block=timedelta(weeks=1))
    report = judged(reference, weeks([share], seed=1), DriftPolicy(ignore_shift_below=0.1))
    assert {column.reason for column in report.columns.values()} == {reason}
    assert report.drifted is (reason == "distribution")


def test_what_drifts_lies_beyond_the_limit_that_the_report_prints():
    reference = reference_of(weeks([0.36] * 20 + [0.5] + [0.36] * 5), block=timedelta(weeks=1))
    for share in (0.55, 0.6, 0.65):
        column = judged(reference, weeks([share], seed=1), DriftPolicy(ignore_shift_below=0.1)).columns["sale"]
        assert (column.verdict is Verdict.DRIFT) <= (column.effect >= column.limit)


@pytest.mark.parametrize(("share", "code"), [(0.0, None), (0.3, "constant")], ids=["some weeks", "never before"])
def test_a_flag_that_rests_for_whole_weeks_may_do_so_again(share, code):
    reference = reference_of(weeks([0.3, share] * 6), block=timedelta(weeks=1))
    broken = check_contract(reference, profile(weeks([0.0]), on=reference))
    assert [violation.code for violation in broken] == ([code] if code else [])


@pytest.mark.parametrize(("days", "variation"), [(6, Variation.KNOWN), (5, Variation.UNKNOWN)])
def test_six_full_blocks_make_the_variation_known(days, variation):
    report = judged(reference_of(world(days, 200, 0, scale=0.1), block=timedelta(days=1)), world(1, 200, 9, scale=0.1))
    assert report.variation is variation


# Bad data


def broken(**change):
    return rows(2_000, seed=3, **change)


ALL = 2_000
BAD = [
    pytest.param(
        broken(amount=nulls(np.random.default_rng(0).lognormal(size=ALL), 0.6)), "amount", "null_share", id="60 % null"
    ),
    pytest.param(broken(amount=pa.nulls(ALL)), "amount", "all_null", id="all null"),
    pytest.param(broken(amount=pa.nulls(ALL, pa.float64())), "amount", "all_null", id="all null, typed"),
    pytest.param(broken(amount=np.full(ALL, np.nan)), "amount", "all_null", id="all NaN"),
    pytest.param({k: v for k, v in broken().items() if k != "age"}, "age", "missing_column", id="missing"),
    pytest.param(broken(amuont=np.ones(ALL)), "amuont", "extra_column", id="extra"),
    pytest.param(broken(age=pa.array([str(i) for i in range(ALL)])), "age", "retyped", id="number to text"),
    pytest.param(broken(country=np.arange(ALL)), "country", "retyped", id="text to number"),
    pytest.param(broken(active=np.arange(ALL) % 2), "active", "retyped", id="boolean to number"),
    pytest.param(broken(amount=pa.array([ORIGIN] * ALL)), "amount", "retyped", id="number to time"),
    pytest.param(broken(amount=np.full(ALL, 1.0)), "amount", "constant", id="constant number"),
    pytest.param(broken(country=pa.array(["de"] * ALL)), "country", "constant", id="constant text"),
    pytest.param(
        broken(amount=np.random.default_rng(0).lognormal(size=ALL) * 1000), "amount", "out_of_range", id="other unit"
    ),
    pytest.param(broken(amount=np.full(ALL, np.inf)), "amount", "out_of_range", id="all infinite"),
]


@pytest.mark.parametrize(("columns", "column", "code"), BAD)
def test_broken_data_has_its_own_verdict_and_code(reference, columns, column, code):
    report = judged(reference, columns)
    assert (report.verdict, report.reason) == (Verdict.BAD_DATA, code)
    assert report.columns[column].verdict is Verdict.BAD_DATA
    assert report.top_columns == (column,)
    assert column in report.sentence
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "columns",
    [
        broken(age=np.random.default_rng(0).integers(18, 80, ALL).astype(float)),
        broken(age=nulls(np.random.default_rng(0).integers(18, 80, ALL), 0.1)),
        broken(
            country=pa.array(
                np.random.default_rng(3).choice(["de", "fr", "it", "pl"], ALL, p=[0.5, 0.3, 0.15, 0.05])
            ).dictionary_encode()
        ),
    ],
    ids=["int to float", "int with nulls", "text as dictionary"],
)
def test_what_only_looks_like_another_type_is_fine(reference, columns):
    assert check_contract(reference, profile(columns, on=reference)) == ()


def test_a_renamed_column_is_missing_and_the_near_name_is_shown(reference):
    columns = broken()
    columns["amounts"] = columns.pop("amount")
    violations = check_contract(reference, profile(columns, on=reference))
    assert [v.code for v in violations] == ["missing_column", "extra_column"]
    assert "Did you mean 'amounts'?" in violations[0].sentence


def test_extra_columns_may_be_allowed(reference):
    current = profile(broken(more=np.ones(ALL)), on=reference)
    assert check_contract(reference, current, ContractPolicy(allow_extra_columns=True)) == ()
    assert check(reference, current, contract=ContractPolicy(allow_extra_columns=True)).verdict is not Verdict.BAD_DATA


def test_a_domain_names_what_lies_outside(reference):
    policy = ContractPolicy(domains={"country": frozenset({"de", "fr", "it"})})
    (violation,) = check_contract(reference, profile(broken(), on=reference), policy)
    assert violation.code == "domain"
    assert "'pl'" in violation.sentence


def test_a_domain_of_an_unknown_column_is_a_mistake(reference):
    with pytest.raises(ConfigError, match=r"no column 'contry'\. Did you mean 'country'"):
        check_contract(reference, reference, ContractPolicy(domains={"contry": frozenset()}))


def test_csv_values_that_do_not_parse_are_counted_against_a_limit(reference):
    def violations(bad):
        builder = ProfileBuilder(reference)
        ages = ["40"] * (200 - bad) + ["nil"] * bad
        columns = {
            "amount": ["1.5", "2"] * 100,
            "age": ages[::-1],
            "country": ["de", "fr"] * 100,
            "active": ["true", "false"] * 100,
        }
        columns["age"] = [str(20 + i % 50) if a == "40" else a for i, a in enumerate(ages)]
        builder.add(pa.record_batch(columns), typed=False)
        return [v.code for v in check_contract(reference, builder.profile())]

    assert violations(bad=2) == []
    assert violations(bad=3) == ["unparsed_values"]


def test_a_few_far_values_are_no_violation(reference):
    amounts = np.random.default_rng(0).lognormal(size=ALL)
    amounts[:20] *= 1e6
    assert check_contract(reference, profile(broken(amount=amounts), on=reference)) == ()


def test_a_rare_flag_that_stays_off_is_no_violation():
    reference = reference_of({"flag": np.random.default_rng(0).random(20_000) < 0.01})
    assert check_contract(reference, profile({"flag": np.zeros(100, dtype=bool)}, on=reference)) == ()


@pytest.mark.parametrize(
    ("was", "now", "code"),
    [
        (0.0, 0.19, None),
        (0.0, 0.25, "null_share"),
        (0.1, 0.35, None),
        (0.1, 0.45, "null_share"),
        (0.3, 0.45, None),
        (0.3, 0.6, "null_share"),
        (0.45, 0.6, None),
        (0.7, 0.8, None),
        (0.7, 1.0, "all_null"),
        (1.0, 1.0, None),
    ],
)
def test_null_shares_are_bad_only_beyond_the_references(was, now, code):
    def share(value, n=4000):
        return pa.array(np.random.default_rng(1).normal(size=n), mask=np.arange(n) < value * n)

    reference = reference_of({"x": share(was)})
    found = check_contract(reference, profile({"x": share(now)}, on=reference))
    assert [v.code for v in found] == ([code] if code else [])


# Columns without a distribution


@pytest.mark.parametrize(
    ("before", "now", "reason", "sentence"),
    [
        (
            pa.array([f"r{i}" for i in range(900)]),
            pa.array([f"s{i}" for i in range(900)]),
            "identifier",
            "'odd' is not compared: most values occur once, as names of rows do. If it is text, name it in text_columns.",
        ),
        (
            pa.array([ORIGIN + timedelta(hours=i) for i in range(900)]),
            pa.array([ORIGIN + timedelta(days=99, hours=i) for i in range(900)]),
            "time_column",
            "'odd' is not compared: times always move on. Make a number of it, such as an age or an hour.",
        ),
        (
            pa.array([[1]] * 900),
            pa.array([[2, 3]] * 900),
            "other_column",
            (
                "'odd' is not compared: its type is none that is compared (embeddings are, in files). Make numbers or "
                "categories of it."
            ),
        ),
        (
            pa.nulls(900, pa.float64()),
            pa.nulls(900, pa.float64()),
            "no_values",
            (
                "'odd' is not compared: one side, or the sample that its bins were chosen from, has no value. "
                "Ask its source, or exclude it."
            ),
        ),
    ],
)
def test_what_cannot_be_compared_says_so_and_does_not_count(before, now, reason, sentence):
    rng = np.random.default_rng(0)
    reference = reference_of({"odd": before, "x": rng.normal(size=900)})
    report = judged(reference, {"odd": now, "x": rng.normal(size=900)}, DriftPolicy(ignore_shift_below=0.2))
    column = report.columns["odd"]
    assert (column.verdict, column.reason, column.counts) == (Verdict.INSUFFICIENT, reason, False)
    assert report.verdict is Verdict.NO_DRIFT
    assert report.sentence.endswith("Not compared: 'odd'.")
    assert report.to_dict()["not_compared"] == ["odd"]
    alone = judged(reference_of({"odd": before}), {"odd": now})
    assert (alone.verdict, alone.reason, alone.not_compared) == (Verdict.INSUFFICIENT, "nothing_compared", ("odd",))
    assert alone.sentence == f"No column could be compared, so drift of any size could have been missed. {sentence}"


HOURS = [ORIGIN + timedelta(hours=i) for i in range(900)]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (pa.array([f"r{i}" for i in range(900)]), pa.array(["r1"] * 900)),
        (pa.array(HOURS), pa.array([hour - timedelta(days=95 * 365) for hour in HOURS])),
        (pa.array([{"a": 1}] * 900), pa.array([{"a": 2}] * 900)),
        (
            pa.array([[("a", 1)]] * 900, pa.map_(pa.string(), pa.int64())),
            pa.array([[("b", 2)]] * 900, pa.map_(pa.string(), pa.int64())),
        ),
    ],
    ids=["names that became one", "times 95 years earlier", "structs", "maps"],
)
def test_what_is_not_compared_is_never_called_steady(before, now):
    report = judged(reference_of({"odd": before, "empty": pa.nulls(900)}), {"odd": now, "empty": pa.nulls(900)})
    assert (report.verdict, report.reason) == (Verdict.INSUFFICIENT, "nothing_compared")
    assert report.not_compared == ("odd", "empty")


def test_columns_that_matter_little_are_not_enough_to_compare():
    columns = {"odd": pa.array([f"r{i}" for i in range(900)]), "x": np.arange(900.0)}
    policy = DriftPolicy(ignore_shift_below=0.3, importance={"odd": 1.0, "x": 0.001})
    report = judged(reference_of(columns), columns, policy)
    assert (report.verdict, report.reason) == (Verdict.INSUFFICIENT, "nothing_compared")


@pytest.mark.parametrize("infinity", [[np.inf], [-np.inf], [np.inf, -np.inf]], ids=["+", "-", "both"])
@pytest.mark.parametrize("now", [np.random.default_rng(3).normal(size=30_000), np.full(30_000, 5.0)])
def test_infinities_that_became_finite_are_seen(infinity, now):
    before = np.resize(infinity, 30_000)
    report = judged(reference_of({"x": before}), {"x": now})
    constant = len(infinity) == 2 and now.min() == now.max()  # of what varied before
    verdict = (Verdict.BAD_DATA, "constant") if constant else (Verdict.DRIFT, "distribution")
    assert (report.verdict, report.columns["x"].reason) == verdict
    assert judged(reference_of({"x": before}), {"x": before}).verdict is Verdict.NO_DRIFT


def test_a_column_whose_sample_held_no_value_has_no_bins_to_compare_on():
    builder = ProfileBuilder(choose_layout(pa.record_batch({"x": pa.nulls(900, pa.float64())})))
    builder.add(pa.record_batch({"x": np.arange(900.0)}))
    report = judged(builder.profile(), {"x": np.zeros(900)}, contract=ContractPolicy())
    assert report.verdict is not Verdict.NO_DRIFT


def test_a_column_that_was_never_filled_and_now_is_has_moved():
    reference = reference_of({"x": pa.nulls(900)})
    report = judged(reference, {"x": np.ones(900)})
    assert (report.verdict, report.columns["x"].reason) == (Verdict.DRIFT, "missing_share")


# Policy


@pytest.mark.parametrize(
    ("importance", "verdict"),
    [
        (None, "drift"),
        ({"amount": 1, "age": 99}, "no_drift"),
        ({"amount": 10, "age": 90}, "drift"),
        ({"amount": 0, "age": 0}, "drift"),
    ],
)
def test_columns_that_hold_little_importance_do_not_count(importance, verdict):
    rng = np.random.default_rng(0)
    reference = reference_of({"amount": rng.normal(size=20_000), "age": rng.normal(size=20_000)})
    now = {"amount": rng.normal(1, size=20_000), "age": rng.normal(size=20_000)}
    report = judged(reference, now, DriftPolicy(importance=importance))
    assert report.verdict.value == verdict
    assert report.columns["amount"].verdict is Verdict.DRIFT


def test_top_columns_are_ranked_by_effect_and_importance():
    rng = np.random.default_rng(0)
    reference = reference_of({"a": rng.normal(size=9000), "b": rng.normal(size=9000)})
    now = {"a": rng.normal(1, size=9000), "b": rng.normal(0.5, size=9000)}
    assert judged(reference, now).top_columns == ("a", "b")
    assert judged(reference, now, DriftPolicy(importance={"a": 1, "b": 9})).top_columns == ("b", "a")


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({}, 1 / 30),
        ({"false_alarms_per_30_days": 0.3}, 0.01),
        ({"checks_per_30_days": 720}, 1 / 720),
        ({"false_alarms_per_30_days": 30}, 0.2),
    ],
)
def test_alpha_is_the_accepted_alarms_over_the_checks(options, alpha):
    assert DriftPolicy(**options).alpha == pytest.approx(alpha)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_shift_below": 5}, "between 0 and 1, got 5"),
        ({"ignore_shift_below": float("nan")}, "between 0 and 1"),
        ({"false_alarms_per_30_days": 0}, "false_alarms_per_30_days: expected a number > 0"),
        ({"checks_per_30_days": -1}, "checks_per_30_days: expected a number > 0"),
        ({"min_rows": 0}, "min_rows"),
        ({"correction": "none"}, "'holm' or 'bh'"),
        ({"importance": {"x": -1}}, "importance"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DriftPolicy(**options)


@pytest.mark.parametrize("name", ["max_out_of_range", "max_unparsed"])
def test_a_contract_limit_is_a_share(name):
    with pytest.raises(ConfigError, match=f"{name}: expected a share"):
        ContractPolicy(**{name: 1.5})


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"correction": "bh"}, True),
        ({"ignore_shift_below": 0.4}, True),
        ({"min_rows": 10_000}, True),
        ({"false_alarms_per_30_days": 1e-6}, True),
    ],
)
def test_every_setting_of_the_policy_can_change_the_outcome(options, differs):
    rng = np.random.default_rng(11)
    reference = reference_of({name: rng.normal(size=2000) for name in "abcdefghij"})
    now = {name: rng.normal(0.19, size=1000) for name in "abcdefghij"}
    base, changed = judged(reference, now, DriftPolicy()), judged(reference, now, DriftPolicy(**options))
    assert (base.to_dict() != changed.to_dict()) is differs


def test_a_window_on_other_bins_is_a_mistake(reference):
    other = reference_of(rows(100, seed=5))
    with pytest.raises(ConfigError, match="was not counted on the reference's bins"):
        check(reference, other)


def test_the_report_is_json(reference):
    report = judged(reference, rows(2000, seed=4))
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["columns"]["amount"]["verdict"] == "insufficient"
    assert set(again) >= {
        "verdict",
        "reason",
        "sentence",
        "rows",
        "columns",
        "top_columns",
        "plain_alarm",
        "variation",
        "alpha",
        "tests",
    }


# Calibration


@pytest.mark.parametrize(("n", "m"), [(500, 500), (5000, 50), (50, 5000), (5000, 1000)])
def test_windows_without_drift_alarm_no_more_often_than_asked(n, m):
    """Tied, zero-inflated, heavy-tailed, long-tailed and rare columns, independent rows; alpha .033, 300 data sets."""
    zipf = 1 / np.arange(1, 101)
    zipf /= zipf.sum()
    names = np.array([f"v{i}" for i in range(100)])

    def data(rng, size):
        return {
            "normal": rng.normal(size=size),
            "tied": rng.integers(0, 5, size),
            "zeros": np.where(rng.random(size) < 0.8, 0.0, rng.exponential(size=size)),
            "heavy": rng.standard_t(1.5, size),
            "zipf": pa.array(rng.choice(names, size, p=zipf)),
            "rare": rng.random(size) < 0.01,
            "null": pa.array(rng.normal(size=size), mask=rng.random(size) < 0.05),
        }

    verdicts = []
    for seed in range(300):
        rng = np.random.default_rng([seed, n, m])
        reference = reference_of(data(rng, n))
        verdicts.append(judged(reference, data(rng, m), DriftPolicy(ignore_shift_below=0.001)).verdict)
    assert verdicts.count(Verdict.BAD_DATA) == 0
    assert verdicts.count(Verdict.DRIFT) / 300 <= 1 / 30 + 0.02
