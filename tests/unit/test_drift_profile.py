"""A profile is counts: it adds up, travels as JSON, and knows what it cannot count."""

import contextlib
import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.drift.counts import cap_counts
from airflow_provider_mlops.drift.layout import Sample, choose_edges, choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import SCHEMA_VERSION, DataProfile, Family, ProfileBuilder
from airflow_provider_mlops.errors import ConfigError, DataError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        ("x", pa.float64()),
        ("i", pa.int64()),
        ("c", pa.string()),
        ("b", pa.bool_()),
        ("at", pa.timestamp("us", tz="UTC")),
    ]
)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, math.inf, -math.inf, math.nan])),
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.sampled_from(["a", "b", "", "ü", "new"])),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.integers(0, 100).map(lambda hours: ORIGIN + timedelta(hours=hours))),
    ),
    max_size=30,
)


def batch(rows):
    columns = list(zip(*rows, strict=True)) or [[]] * 5
    return pa.record_batch(
        [pa.array(list(values), field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def layout():
    sample = pa.record_batch(
        {
            "x": [-1.0, 0.0, 0.5, 2.0],
            "i": [0, 1, 2, 2],
            "c": ["a", "a", "b", "c"],
            "b": [True, False, True, True],
            "at": [ORIGIN] * 4,
        }
    )
    return choose_layout(sample, timestamp="at", block=timedelta(days=1), origin=ORIGIN)


def profile_of(*batches, on=None, typed=True):
    builder = ProfileBuilder(on or layout())
    for each in batches:
        builder.add(each, typed=typed)
    return builder.profile()


def assert_same(left, right):
    """Equal to the digit, but for the rounding of the moments."""

    def split(profile):
        moments = [(c.numbers.mean, c.numbers.m2) for c in profile.columns.values() if c.numbers]
        bare = {
            n: replace(c, numbers=replace(c.numbers, mean=0.0, m2=0.0)) if c.numbers else c
            for n, c in profile.columns.items()
        }
        return replace(profile, columns=bare), moments

    (bare_left, moments_left), (bare_right, moments_right) = split(left), split(right)
    assert bare_left == bare_right
    for ours, theirs in zip(moments_left, moments_right, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6, nan_ok=True)


@given(ROWS, ROWS)
def test_the_profile_of_a_concatenation_is_the_merge_of_the_profiles(left, right):
    assert_same(profile_of(batch(left + right)), profile_of(batch(left)).merge(profile_of(batch(right))))


@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_commutative(a, b, c):
    a, b, c = (profile_of(batch(rows)) for rows in (a, b, c))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b), b.merge(a))


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert_same(profile_of(batch(rows)), profile_of(batch(shuffled)))


@given(ROWS)
def test_json_brings_back_the_same_profile(rows):
    profile = profile_of(batch(rows))
    again = DataProfile.from_json(profile.to_json())
    assert again == profile
    assert again.to_json() == profile.to_json()


@given(ROWS)
def test_every_row_is_in_a_bin_or_missing(rows):
    profile = profile_of(batch(rows))
    for column in profile.columns.values():
        counted = column.numbers.rows if column.numbers else column.categories.rows
        assert counted + column.missing == column.rows == profile.rows == len(rows)
        assert column.values == counted


@given(ROWS)
def test_the_blocks_add_up_to_the_rows_with_a_time(rows):
    profile = profile_of(batch(rows))
    timed = [row for row in rows if row[4] is not None]
    assert sum(profile.block_rows) == len(timed)
    if timed:
        assert profile.columns["i"].numbers.blocks.sum() == sum(row[1] is not None for row in timed)
        assert profile.columns["c"].block_missing.sum() == sum(row[2] is None for row in timed)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=600))
def test_edges_ascend_and_counting_by_search_agrees_with_counting_one_by_one(values):
    edges = choose_edges(np.array(values))
    assert (np.diff(edges) > 0).all()
    on = choose_layout(pa.record_batch({"x": pa.array(values)}))
    counts = profile_of(pa.record_batch({"x": pa.array(values)}), on=on).columns["x"].numbers.counts
    expected = np.zeros(edges.size + 1, dtype=int)
    for value in values:
        expected[sum(value > edge for edge in edges)] += 1
    assert counts.tolist() == expected.tolist()


@settings(max_examples=30)
@given(st.integers(257, 3000), st.integers(0, 2**32 - 1))
def test_many_values_share_at_most_256_quantile_bins_beside_the_tails_and_guards(size, seed):
    edges = choose_edges(np.random.default_rng(seed).normal(size=size))
    assert 200 < edges.size <= 256 + 4 + 2 + 1


@pytest.mark.parametrize(
    ("array", "family"),
    [
        (pa.array([1], pa.int8()), Family.NUMBER),
        (pa.array([1.5], pa.float32()), Family.NUMBER),
        (pa.array([1]).cast(pa.decimal128(30, 2)), Family.NUMBER),
        (pa.array([1, 2]).dictionary_encode(), Family.NUMBER),
        (pa.array(["a"]), Family.TEXT),
        (pa.array(["a"], pa.large_string()), Family.TEXT),
        (pa.array(["a"]).dictionary_encode(), Family.TEXT),
        (pa.array([True]), Family.BOOLEAN),
        (pa.array([ORIGIN]), Family.TIME),
        (pa.array([[1]]), Family.OTHER),
    ],
    ids=str,
)
def test_the_family_follows_from_the_type_and_survives_counting(array, family):
    on = choose_layout(pa.record_batch({"x": array}))
    column = profile_of(pa.record_batch({"x": array}), on=on).columns["x"]
    assert column.family is family
    assert column.rows == len(array)
    assert not column.retyped


@pytest.mark.parametrize(
    "same",
    [
        pa.array([1, 2, None], pa.int32()),
        pa.array([1.0, 2.0, None], pa.float32()),
        pa.array(["1", "2", None]).cast(pa.int64()).dictionary_encode(),
    ],
    ids=str,
)
def test_another_type_of_the_same_family_is_counted_alike(same):
    on = choose_layout(pa.record_batch({"x": [1.0, 2.0, 3.0]}))
    column = profile_of(pa.record_batch({"x": same}), on=on).columns["x"]
    assert (column.numbers.rows, column.null, dict(column.retyped)) == (2, 1, {})


@given(
    st.sampled_from(["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from([3, 100, 10**6]),
)
def test_numbers_of_every_width_are_counted_as_their_float64(kind, seed, size, spread):
    rng, dtype = np.random.default_rng(seed), np.dtype(kind)
    if dtype.kind == "f":
        values = rng.normal(0, min(spread, 1000), size).astype(dtype)
        values[rng.random(size) < 0.1] = rng.choice([math.nan, math.inf, -math.inf])
    else:
        limits = np.iinfo(dtype)
        low = [limits.min, max(limits.min, -1), max(limits.max - spread, 0)][rng.integers(3)]
        values = rng.integers(low, min(limits.max, low + spread), size, dtype=dtype, endpoint=True)
    missing = rng.random(size) < rng.choice([0, 0.2])
    exact = values.astype(np.float64)
    on = choose_layout(pa.record_batch({"x": np.array([-1.0, 0.0, 1.5, 100.0, *exact[np.isfinite(exact)][:20]])}))
    part = pa.record_batch({"x": pa.array(values, mask=missing)})
    column = profile_of(part.slice(0, size // 2), part.slice(size // 2), on=on).columns["x"]
    numbers, kept = column.numbers, exact[~missing]
    numeric, finite = kept[~np.isnan(kept)], kept[np.isfinite(kept)]
    below = [0, *((numeric <= edge).sum() for edge in numbers.edges), numeric.size]
    assert numbers.counts.tolist() == np.diff(below).tolist()
    assert (column.null, numbers.nan) == (missing.sum(), kept.size - numeric.size)
    assert (numbers.negative_infinity, numbers.positive_infinity) == (
        (kept == -math.inf).sum(),
        (kept == math.inf).sum(),
    )
    if finite.size:
        assert (numbers.minimum, numbers.maximum) == (finite.min(), finite.max())
        assert numbers.mean == pytest.approx(finite.mean(), rel=1e-12, abs=1e-9)
        assert numbers.m2 == pytest.approx(
            ((finite - finite.mean()) ** 2).sum(), rel=1e-6, abs=1e-6 * finite.max() ** 2
        )


def test_nulls_inside_a_dictionary_are_nulls():
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, None], pa.int32()), pa.array(["a", None]))
    on = choose_layout(pa.record_batch({"c": ["a", "b"]}))
    column = profile_of(pa.record_batch({"c": array}), on=on).columns["c"]
    assert (column.null, column.categories.counts) == (3, {"a": 1})


def test_changing_dictionaries_are_counted_by_value():
    on = choose_layout(pa.record_batch({"c": ["a", "b"]}))
    parts = [
        pa.record_batch({"c": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["b", "a", "b"], ["z"])
    ]
    assert profile_of(*parts, on=on).columns["c"].categories.counts == {"a": 2, "b": 3, "z": 1}


def test_another_family_is_counted_as_retyped_and_not_as_values():
    column = profile_of(pa.record_batch({"x": ["1", "2", None]})).columns["x"]
    assert dict(column.retyped) == {"text": 2}
    assert (column.null, column.values) == (1, 0)


def test_untyped_text_is_read_in_the_type_of_the_layout():
    text = pa.record_batch(
        {"x": [" 1.5", "2e3", "nil", None], "b": ["true", "FALSE", "1", "maybe"], "i": ["1", "-2", "+3", "1.5"]}
    )
    columns = profile_of(text, typed=False).columns
    assert (columns["x"].numbers.rows, columns["x"].unparsed, columns["x"].null) == (2, 1, 1)
    assert (columns["b"].categories.counts, columns["b"].unparsed) == ({"true": 2, "false": 1}, 1)
    assert columns["i"].numbers.rows == 4


def test_a_column_that_the_batch_lacks_is_not_there_and_an_unknown_one_is_extra():
    profile = profile_of(pa.record_batch({"x": [1.0], "y": ["a"]}))
    assert profile.columns["c"].rows == 0
    assert profile.extra == {"y": "text"}


def test_two_columns_of_one_name_are_refused():
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataError, match="Column 'x' occurs twice"):
        profile_of(twice)


def test_a_timestamp_column_without_times_is_refused():
    with pytest.raises(DataError, match="'at' holds string, which is no time"):
        profile_of(pa.record_batch({"at": ["yesterday"]}))


@pytest.mark.parametrize(
    "type_",
    [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms", tz="Asia/Tokyo")],
    ids=str,
)
def test_any_arrow_time_dates_the_rows(type_):
    times = pa.array([ORIGIN, ORIGIN + timedelta(days=2)], pa.timestamp("us")).cast(type_)
    profile = profile_of(pa.record_batch({"x": [1.0, 2.0], "at": times}))
    assert (profile.blocks, profile.block_rows) == ((0, 2), (1, 1))
    assert profile.start == "2026-01-01T00:00:00+00:00"


def test_beyond_the_cap_only_the_most_frequent_values_are_named():
    assert cap_counts({"a": 1, "b": 3, "c": 1}, cap=2) == ({"b": 3, "a": 1}, 1)
    on = choose_layout(pa.record_batch({"c": ["a"]}))
    values = pa.array([f"v{i}" for i in range(60_000)] + ["often"] * 10)
    categories = (
        profile_of(*(pa.record_batch({"c": values.slice(k, 7000)}) for k in range(0, len(values), 7000)), on=on)
        .columns["c"]
        .categories
    )
    assert (len(categories.counts), categories.tail_rows, categories.counts["often"]) == (50_000, 10_001, 10)
    assert categories.rows == len(values)


def test_text_whose_values_name_the_rows_is_an_identifier():
    rows = pa.record_batch({"id": [f"r{i}" for i in range(100)], "c": ["a", "b"] * 50})
    profile = without_identifiers(profile_of(rows, on=choose_layout(rows)))
    assert profile.columns["id"].identifier
    assert profile.columns["id"].categories is None
    assert not profile.columns["c"].identifier


# Time blocks


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 72, [0, 1, 2]),
        (0, 70, [0, 1]),
        (2, 72, [1, 2]),
        (1, 72, [0, 1, 2]),
        (12, 60, [1]),
    ],
    ids=["whole", "two hours lack at the end", "two hours lack in front", "5 % may lack", "both ends partial"],
)
def test_only_blocks_that_the_data_covers_count(first, last, expected):
    minutes = np.arange(first * 60, last * 60, 7)
    times = pa.array([ORIGIN + timedelta(minutes=int(m)) for m in minutes])
    profile = profile_of(pa.record_batch({"x": np.ones(minutes.size), "at": times}))
    kept = [profile.blocks[position] for position in profile.full_blocks()]
    assert kept == expected


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=1)], ids=["days", "hours"])
def test_many_rows_stamped_with_the_beginning_of_their_day_fill_the_last_block(step):
    times = pa.array([ORIGIN + step * i for i in range(4 * 7 * 24) for _ in range(5)][: 5 * 4 * 14])
    builder = ProfileBuilder(replace(layout(), block=step * 14))
    builder.add(pa.record_batch({"x": np.ones(len(times)), "at": times}))
    assert builder.profile().full_blocks().tolist() == [0, 1, 2, 3]


def test_a_gap_in_the_data_is_no_block():
    hours = [*range(24), 30, *range(48, 72)]
    times = pa.array([ORIGIN + timedelta(hours=h) for h in hours])
    profile = profile_of(pa.record_batch({"x": np.ones(len(hours)), "at": times}))
    assert profile.blocks == (0, 1, 2)
    assert profile.full_blocks().tolist() == [0, 2]


def test_the_form_is_documented_key_by_key():
    """Every key that is written stands in the page, and every key of the page is written."""
    random = np.random.default_rng(0)
    batch = pa.record_batch(
        {
            "x": random.normal(size=99),
            "c": pa.array(["a", "b", "c"] * 33),
            "note": pa.array([f"number {i}" for i in range(99)]),
            "e": pa.array(random.normal(size=(99, 3)).tolist()),
        }
    )
    values = without_identifiers(profile_of(batch, on=choose_layout(batch, segment="c"))).to_dict()
    columns = values["columns"]
    nested = (columns["x"]["numbers"], columns["c"]["categories"], columns["e"]["vectors"], values["segments"])
    written = {key for part in (values, *columns.values(), *nested) for key in part}
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    named = {key for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert named == written
    assert f"now **{SCHEMA_VERSION}**" in page
    assert all(f"`{measure}`" in page for measure in columns["note"]["texts"])


# Bad profiles


def test_a_newer_profile_is_refused_with_the_way_out():
    text = json.dumps({**profile_of().to_dict(), "schema": SCHEMA_VERSION + 1})
    with pytest.raises(DataError, match=r"schema \d+; this version .* reads up to \d+\. Upgrade the package"):
        DataProfile.from_json(text)


def test_a_profile_of_the_first_form_is_read():
    values = profile_of().to_dict()
    del values["segments"]
    for column in values["columns"].values():
        del column["texts"], column["vectors"]
    assert DataProfile.from_json(json.dumps({**values, "schema": 1})) == profile_of()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has no 'schema' number"),
        ('{"rows": 1}', "has no 'schema' number"),
        ('{"schema": 1}', "damaged"),
    ],
)
def test_what_is_no_profile_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        DataProfile.from_json(text)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_profile_never_breaks_with_anything_but_our_error(data):
    values = profile_of(batch([(1.0, 1, "a", True, ORIGIN)])).to_dict()
    junk = st.one_of(
        st.none(), st.text(max_size=3), st.integers(-2, 2), st.lists(st.integers(-1, 1), max_size=2), st.just({})
    )
    where = data.draw(
        st.sampled_from(
            [
                values,
                values["columns"],
                values["columns"]["x"],
                values["columns"]["x"]["numbers"],
                values["columns"]["c"]["categories"],
            ]
        )
    )
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(junk)
    with contextlib.suppress(DataError):
        DataProfile.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [1.0]}, "different columns cannot be merged; they differ in 'y'"),
        ({"x": [1.0, 9.0]}, "Column 'x' has different bins"),
    ],
)
def test_profiles_on_other_bins_do_not_merge(change, message):
    one = pa.record_batch({"x": [1.0, 2.0]})
    other = pa.record_batch({"x": [1.0, 2.0], **change} if "y" not in change else {"x": [1.0], **change})
    with pytest.raises(ConfigError, match=message):
        profile_of(one, on=choose_layout(one)).merge(profile_of(other, on=choose_layout(other)))


def test_profiles_on_other_time_blocks_do_not_merge():
    with pytest.raises(ConfigError, match="different time blocks"):
        profile_of().merge(profile_of(on=layout().without_counts(blocks=False)))


# The sample


def test_a_sample_is_fair_seeded_and_of_the_size_asked_for():
    def sample(seed):
        chosen = Sample(rows=500, seed=seed)
        for start in range(0, 20_000, 1000):
            chosen.add(pa.record_batch({"x": np.arange(start, start + 1000)}))
        return chosen.batch()

    first, again, other = sample(0), sample(0), sample(1)
    assert first.equals(again)
    assert not first.equals(other)
    assert first.num_rows == 500
    assert 9_000 < np.mean(first.column("x").to_numpy()) < 11_000


def test_a_sample_of_nothing_is_nothing():
    assert Sample().batch() is None


def test_a_sample_of_little_is_everything_dictionaries_included():
    chosen = Sample()
    for values in (["a", "b"], ["c"]):
        chosen.add(pa.record_batch({"c": pa.array(values).dictionary_encode()}))
    assert chosen.batch().column("c").to_pylist() == ["a", "b", "c"]
