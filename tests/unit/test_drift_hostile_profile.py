"""A profile from a file may hold anything: it is refused with the field's name, or it is judged."""

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.drift.check import DriftPolicy, Verdict, check
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, ProfileBuilder
from airflow_provider_mlops.drift.report import html
from airflow_provider_mlops.errors import ConfigError, DataError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 384
POLICY = DriftPolicy(ignore_shift_below=0.3)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    word = rng.choice(["rain", "sun and wind", "Schnee ü"], ROWS)
    return pa.record_batch(
        {
            "x": pa.array(np.append(rng.normal(size=ROWS - 3), [np.inf, -np.inf, np.nan]), mask=rng.random(ROWS) < 0.1),
            "k": rng.integers(0, 5, ROWS),
            "c": pa.array(rng.choice(["a", "b", "ü"], ROWS)),
            "b": rng.random(ROWS) < 0.3,
            "id": pa.array([f"row-{seed}-{i}" for i in range(ROWS)]),
            "note": pa.array([f"{text} number {seed} {i}" for i, text in enumerate(word)]),
            "e": pa.array(list(rng.normal(size=(ROWS, 3)).astype(np.float32)), pa.list_(pa.float32())),
            "odd": pa.array([{"a": 1}] * ROWS),
            "at": pa.array([ORIGIN + timedelta(minutes=30 * i) for i in range(ROWS)], pa.timestamp("us", tz="UTC")),
        }
    )


@cache
def reference():
    layout = choose_layout(
        batch(), timestamp="at", exclude=["label"], block=timedelta(days=1), origin=ORIGIN, segment="c", bins=6
    )
    return without_identifiers(window(layout))


def window(layout, seed=0):
    builder = ProfileBuilder(layout)
    builder.add(batch(seed))
    return builder.profile()


def nodes(value, path=()):
    """Return the path of every node, long lists of numbers by their ends only."""
    found = [path] if path else []
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value))[: 2 if len(value) > 8 else None] if isinstance(value, list) else []
    for key, part in items:
        found += nodes(part, (*path, key))
    return found


@cache
def written():
    values = json.loads(reference().to_json())
    return values, nodes(values)


def changed(path, value, *, drop=False):
    values = deepcopy(written()[0])
    *way, last = path
    place = values
    for key in way:
        place = place[key]
    if drop:
        del place[last]
    else:
        place[last] = value
    return json.dumps(values)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-5, -1, 0, 1, 2, 999, 2**31, 2**62, 2**63, -(2**70), 10**400, 0.5, -1e308, 1e30, 5e-324]),
    st.sampled_from([float("nan"), float("inf")]),
    st.sampled_from(["", "x", "text", "number", "9999-12-31T23:59:59-12:00", "0001-01-01", "\ud800", "a" * 500]),
    st.sampled_from([[], [1], [[]], [None], [[1, 2]], ["x"], {}, {"x": 1}, {"": {}}, [[[[]]]]]),
    st.integers(),
    st.floats(),
)


def judge(profile):
    """Check with *profile* on each side; what cannot be compared is refused by our error."""
    now = window(profile.without_counts(blocks=False), 1)
    report = check(profile, now, POLICY)
    assert report.verdict in set(Verdict)
    json.dumps(report.to_dict(), allow_nan=False)
    html(report, profile, now, title="x")
    for sides in ((reference(), profile, None), (profile, profile, profile), (reference(), reference(), profile)):
        try:
            report = check(*sides[:2], POLICY, trailing=sides[2])
        except ConfigError:  # other bins
            continue
        json.dumps(report.to_dict(), allow_nan=False)


def test_the_profile_itself_is_judged():
    profile = DataProfile.from_json(reference().to_json())
    assert profile == reference()
    assert len(profile.full_blocks()) == 8
    judge(profile)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_profile_it_is_refused_or_judged(data):
    path = data.draw(st.sampled_from(written()[1]))
    text = changed(path, data.draw(JUNK), drop=data.draw(st.integers(0, 9)) == 0)
    try:
        profile = DataProfile.from_json(text, source="some.json")
    except DataError as error:
        assert "'some.json'" in str(error)  # noqa: PT017 - or a profile
        assert len(str(error)) < 600  # noqa: PT017
        return
    assert DataProfile.from_json(profile.to_json()) == profile
    try:
        judge(profile)
    except DataError as error:
        assert "column" in str(error)  # noqa: PT017 - such as a timestamp column that holds no time


COUNTS = ("columns", "x", "numbers", "counts")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("rows",), None, "'rows' is null instead of a whole number from 0 to 1,000,000,000,000"),
        (("rows",), -5, "'rows' is -5 instead of a whole number"),
        (("rows",), 1e30, r"'rows' is 1e\+30 instead of a whole number"),
        (("rows",), 12, "hold more than the 12 rows|to 12"),
        (("schema",), -1, "'schema' is -1 instead of a whole number from 1"),
        (("schema",), True, "no 'schema' number"),
        (("timestamp",), ["at"], "'timestamp' is a list of 1 instead of text"),
        (("start",), "yesterday", "'start' is 'yesterday' instead of a time of ISO 8601"),
        (("end",), None, "'start' and 'end' do not fit"),
        (("origin",), None, "'block_seconds' and 'origin' do not fit"),
        (("block_seconds",), 0, "'block_seconds' is no length"),
        (("blocks", 0), 7, "'blocks' do not ascend"),
        (("block_rows", 0), 0, "'block_rows' holds something else than whole numbers from 1"),
        (("columns", "x", "rows"), "many", "column 'x': 'rows' is 'many' instead of a whole number from 0 to 384"),
        (("columns", "x", "null"), 384, "column 'x': 'rows' (leaves|is)"),
        (("columns", "x", "family"), "colour", "column 'x': 'family' is none of number, boolean"),
        (("columns", "x", "family"), "text", "column 'x': 'family' is text, and numbers is counted of it"),
        (("columns", "x", "numbers"), None, "column 'x': 'family' is number, and nothing is counted of it"),
        ((*COUNTS, 0), -5, "column 'x': 'numbers': 'counts' holds something else than whole numbers"),
        ((*COUNTS, 1), True, "column 'x': 'numbers': 'counts' holds something else"),
        (COUNTS, [1, 2], "column 'x': 'numbers': 'counts' is a list of 2 instead of a list of"),
        (("columns", "x", "numbers", "edges", 0), 1e9, "'edges' do not ascend"),
        (("columns", "x", "numbers", "minimum"), None, "'minimum' and 'maximum' do not fit"),
        (("columns", "x", "numbers", "blocks", 0, 0), 99, "'blocks' hold more values than 'block_rows'"),
        (("columns", "x", "numbers", "positive_infinity"), 99, "fewer rows in the outer bins"),
        (("columns", "c", "categories", "counts", "a"), 0.5, "column 'c': 'categories': 'counts' holds something else"),
        (("columns", "e", "vectors", "products", 0, 0), 0, "column 'e': 'vectors': 'products' do not fit"),
        (("columns", "note", "texts", "rhyme"), {}, "column 'note': 'texts' holds other measures than length"),
        (("segments", "profiles", 0, "value"), 3, r"'segments': 'profiles'\[0\]: 'value' is 3 instead of text"),
        (("segments", "profiles", 0, "profile", "rows"), -1, "segment '.': 'rows' is -1"),
        (("segments", "profiles", 0, "profile", "columns", "x", "null"), -1, "segment '.': column 'x': 'null' is -1"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(DataError, match=f"^The profile 'some.json' is .*{message}.*Make it anew from its data"):
        DataProfile.from_json(changed(path, value), source="some.json")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"schema":2,"rows":NaN}', '{"schema":"\\ud800"}', b"\xff"]
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(DataError, match=r"^The profile is no JSON"):
        DataProfile.from_json(text)
