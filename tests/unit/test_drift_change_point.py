"""The split of a series of windows, and how often chance shows one as sharp."""

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_mlops.drift.change_point import change_points
from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.drift.profile import ProfileBuilder


def series(*, windows, change_at, seed=0, size=300, day=0.0):
    rng = np.random.default_rng(seed)
    batches = []
    for position in range(windows):
        moved = position >= change_at
        batches.append(
            pa.record_batch(
                {
                    "x": rng.normal(0.8 * moved + day * rng.normal(), size=size),
                    "c": pa.array(rng.choice(["a", "b", "c"], size, p=[0.2, 0.5, 0.3] if moved else [0.5, 0.2, 0.3])),
                    "steady": rng.normal(day * rng.normal(), size=size),
                    "at": pa.array(np.full(size, "2026-01-01", "datetime64[us]")),
                }
            )
        )
    layout = choose_layout(batches[0])
    profiles = []
    for batch in batches:
        builder = ProfileBuilder(layout)
        builder.add(batch)
        profiles.append(builder.profile())
    return profiles


@pytest.mark.parametrize("change_at", [3, 7, 11])
def test_the_change_is_found_where_it_was_made(change_at):
    found = change_points(series(windows=14, change_at=change_at), permutations=199)
    assert set(found) == {"x", "c", "steady"}
    for name in ("x", "c"):
        assert found[name].window == change_at
        assert found[name].effect == pytest.approx(0.3, abs=0.05)
        assert found[name].p <= 0.02
    assert found["steady"].effect < 0.1


def test_windows_that_vary_by_themselves_show_no_change_more_often_than_chance():
    p = [
        change_points(series(windows=10, change_at=99, seed=s, day=0.5), permutations=99)["steady"].p for s in range(60)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.12


def test_under_six_windows_there_is_no_answer():
    assert change_points(series(windows=5, change_at=3)) == {}


def test_the_answer_is_the_same_every_time():
    windows = series(windows=8, change_at=4)
    assert change_points(windows, permutations=99) == change_points(windows, permutations=99)
