"""When did it change? Explains a series of windows; decides nothing. Pure and seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from airflow_provider_mlops.drift.profile import DataProfile

__all__ = ["ChangePoint", "change_points"]

_LEAST = 3  # windows on either side of a change


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """
    Where a column most probably changed.

    :param window: position of the first window after the change.
    :param effect: largest gap between the distributions before and after, 0..1.
    :param p: share of random orders of the windows that show as sharp a split.
    """

    column: str
    window: int
    effect: float
    p: float


def change_points(windows: Sequence[DataProfile], *, permutations: int = 999, seed: int = 0) -> dict[str, ChangePoint]:
    """
    Return, per numeric or categorical column, the sharpest split of *windows* in two.

    The sharpness of a split is the gap between all windows before and all after it, times
    ``sqrt(n1 n2 / (n1 + n2))``, ``n`` in windows. Its p comes from random orders of the windows, so dependence within
    a window does no harm.

    :param windows: consecutive windows, counted on one layout, oldest first. Fewer than six give no answer.
    """
    if len(windows) < 2 * _LEAST:
        return {}
    found = {}
    for name in windows[0].columns:
        counts = _counts(windows, name)
        if counts is None or not counts.sum(axis=1).all():
            continue
        cumulated = windows[0].columns[name].numbers is not None
        sharpness, effects = _splits(counts, cumulated=cumulated)
        best, random = int(sharpness.argmax()), np.random.default_rng(seed)
        as_sharp = sum(
            float(_splits(random.permutation(counts), cumulated=cumulated)[0].max()) >= sharpness[best] * (1 - 1e-12)
            for _ in range(permutations)
        )
        found[name] = ChangePoint(name, best + _LEAST, float(effects[best]), (1 + as_sharp) / (1 + permutations))
    return found


def _counts(windows: Sequence[DataProfile], name: str) -> npt.NDArray[np.int64] | None:
    """Return counts per window and bin or cell, shape ``(windows, bins)``; ``None`` for a column without them."""
    rows = []
    for window in windows:
        column = window.columns[name]
        if column.numbers is not None:
            rows.append(column.numbers.counts)
        elif column.categories is not None:
            inside = [column.categories.counts.get(cell, 0) for cell in column.categories.cells]
            rows.append(np.array([*inside, column.categories.rows - sum(inside)], dtype=np.int64))
        else:
            return None
    return np.stack(rows)


def _splits(
    counts: npt.NDArray[np.int64], *, cumulated: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return sharpness and gap of every split that leaves three windows on either side."""
    size = counts.shape[0]
    sides = np.arange(_LEAST, size - _LEAST + 1)
    sums = counts.cumsum(axis=0, dtype=np.float64)
    before, after = sums[sides - 1], sums[-1] - sums[sides - 1]
    if cumulated:
        before, after = before.cumsum(axis=1), after.cumsum(axis=1)
        gaps = np.abs(before / before[:, -1:] - after / after[:, -1:]).max(axis=1)
    else:
        gaps = np.abs(before / before.sum(axis=1)[:, None] - after / after.sum(axis=1)[:, None]).max(axis=1)
    return gaps * np.sqrt(sides * (size - sides) / size), gaps
