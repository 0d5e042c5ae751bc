"""
How much each input matters to a model: permutation importance, as the scoring job measured it. Pure.

A column's *drop* is how much the loss grows when the column's values are shuffled between rows: 0 for a column that
the model ignores. It says nothing of columns that others can stand in for: shuffling one of two equal columns costs
little. Source: Breiman (2001), Machine Learning 45(1); Fisher, Rudin & Dominici (2019), JMLR 20(177).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IMPORTANCE_SHARE", "Drop", "Importance", "SliceDrops"]

IMPORTANCE_SHARE = "importance_share"
"""What a rule calls the share of one column."""


@dataclass(frozen=True, slots=True)
class Drop:
    """
    What shuffling one column costs.

    :param drop: growth of the mean loss, in the loss's unit; below 0 by chance only.
    :param low: lower bound of its 95 % interval.
    :param high: upper bound.
    """

    drop: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SliceDrops:
    """The drop of every column on the rows of one slice."""

    rows: int
    drops: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Each column's share of the positive drops in this slice, 0..1."""
        return _shares(self.drops)


@dataclass(frozen=True, slots=True)
class Importance:
    """
    How much each input of a model matters to it.

    :param loss: what was measured: ``brier``, ``squared_error``, ``wrong_labels`` or ``rank_error``.
    :param base: mean loss before anything was shuffled.
    :param rows: rows that were looked at.
    :param repeats: shuffles per column.
    :param columns: the drop of every input.
    :param slices: per kept column and value, the drops on those rows.
    :param not_inputs: columns of the data that the model does not take.
    :param shap: mean absolute SHAP value of every input, in the unit of the prediction; empty where it was not asked
        for, or could not be measured.
    """

    loss: str
    base: float
    rows: int
    repeats: int
    columns: Mapping[str, Drop]
    slices: Mapping[str, Mapping[str, SliceDrops]] = field(default_factory=dict)
    not_inputs: tuple[str, ...] = ()
    shap: Mapping[str, float] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """Each input's share of the sum of all positive drops, 0..1; all 0 for a model that ignores its inputs."""
        return _shares({name: drop.drop for name, drop in self.columns.items()})

    @property
    def weights(self) -> dict[str, float]:
        """
        How much each input may matter: the upper bound of its drop, at least 0.

        The weight of a column in a drift check: a column counts little only when it is shown to matter little.
        """
        return {name: max(drop.high, 0.0) for name, drop in self.columns.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Importance:
        """Return what the scoring job wrote. :raises DataError: keys are missing or values are no finite numbers."""
        try:
            found = cls(
                loss=str(values["loss"]),
                base=float(values["base"]),
                rows=int(values["rows"]),
                repeats=int(values["repeats"]),
                columns={
                    str(name): Drop(float(item["drop"]), float(item["drop_low"]), float(item["drop_high"]))
                    for name, item in values["columns"].items()
                },
                slices={
                    str(by): {
                        str(value): SliceDrops(int(part["rows"]), {str(k): float(v) for k, v in part["drops"].items()})
                        for value, part in parts.items()
                    }
                    for by, parts in values["slices"].items()
                },
                not_inputs=tuple(map(str, values["not_inputs"])),
                shap={str(k): float(v) for k, v in values.get("shap", {}).get("columns", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"The importance of the inputs cannot be read ({type(error).__name__}: {error}). Evaluate anew."
            ) from error
        numbers = [value for drop in found.columns.values() for value in (drop.drop, drop.low, drop.high)]
        if not all(map(math.isfinite, [*numbers, *found.shap.values()])):
            raise DataError("The importance of an input is no finite number. Evaluate anew.")
        return found


def _shares(drops: Mapping[str, float]) -> dict[str, float]:
    positive = {name: max(drop, 0.0) for name, drop in drops.items()}
    total = sum(positive.values())
    return {name: value / total if total > 0 else 0.0 for name, value in positive.items()}
