"""What has to be known about a training to do it again: kept as tags of its run. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DATA_TAG",
    "ENVIRONMENT_PATH",
    "REPLAY_TAG",
    "MetricPair",
    "TrainingRecord",
    "compare_metrics",
    "differing_packages",
]

ENVIRONMENT_PATH = "mlops/environment.txt"
"""Where a run keeps the list of the packages that its interpreter had, ``name==version`` on each line."""
DATA_TAG = "mlops.data_uri"
"""Tag of a run: where the frozen data lies that it was trained on."""
REPLAY_TAG = "mlops.replay_of"
"""Tag of a run: the run that it repeats. Such a run is never registered."""

_TAGS = {
    "data_uri": DATA_TAG,
    "data_digest": "mlops.data_digest",
    "code_digest": "mlops.code_digest",
    "script": "mlops.script",
    "hyperparameters": "mlops.hyperparameters",
    "seed": "mlops.seed",
    "python": "mlops.python",
    "python_version": "mlops.python_version",
    "environment_digest": "mlops.environment_digest",
}
_OPTIONAL = {
    "label": "mlops.label",
    "timestamp": "mlops.timestamp",
    "commit": "mlflow.source.git.commit",
    "variables": "mlops.variables",
}


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """
    All that a training was made from.

    :param data_uri: the frozen data.
    :param data_digest: its digest.
    :param code_digest: digest of the script and the modules beside it that it imports.
    :param script: the script's file name.
    :param hyperparameters: a JSON object, as text.
    :param seed: a whole number.
    :param python: path of the interpreter.
    :param python_version: its version, ``3.11.7``.
    :param environment_digest: digest of the list of its packages.
    :param label: column to predict.
    :param timestamp: column with the event time.
    :param commit: git commit of the script; with ``+`` when the script differed from it.
    :param variables: names of the worker's variables that the job was given, with spaces between.
    """

    data_uri: str
    data_digest: str
    code_digest: str
    script: str
    hyperparameters: str
    seed: str
    python: str
    python_version: str
    environment_digest: str
    label: str | None = None
    timestamp: str | None = None
    commit: str | None = None
    variables: str | None = None

    def tags(self) -> dict[str, str]:
        """Return the tags that hold this record."""
        found = {tag: getattr(self, name) for name, tag in {**_TAGS, **_OPTIONAL}.items()}
        return {tag: value for tag, value in found.items() if value is not None}

    @classmethod
    def of(cls, tags: Mapping[str, str], what: str) -> TrainingRecord:
        """
        Return the record that *tags* hold.

        :param what: whose record it is, for the error.
        :raises DataError: something is missing; it is named.
        """
        missing = [tag for tag in _TAGS.values() if not tags.get(tag)]
        if missing:
            raise DataError(
                f"{what} does not say what it was made from: {', '.join(missing)} missing. Only what TrainOperator "
                "trained on frozen data can be replayed; train it again to get such a record."
            )
        values: dict[str, Any] = {name: tags.get(tag) for name, tag in {**_TAGS, **_OPTIONAL}.items()}
        return cls(**values)

    def hyperparameters_of(self) -> dict[str, Any]:
        """Return the hyperparameters. :raises DataError: the text is no JSON object."""
        try:
            return dict(json.loads(self.hyperparameters))
        except (ValueError, TypeError) as error:
            raise DataError(f"The recorded hyperparameters {self.hyperparameters!r} are no JSON object.") from error


@dataclass(frozen=True, slots=True)
class MetricPair:
    """One metric of two runs; ``None`` where a run does not have it."""

    name: str
    before: float | None
    after: float | None
    equal: bool


def compare_metrics(
    before: Mapping[str, float], after: Mapping[str, float], tolerance: float, ignore: Iterable[str] = ()
) -> list[MetricPair]:
    """
    Return every metric of the two runs, by name. Two NaN are equal.

    :param tolerance: largest difference, relative to 1 or to the larger of both values.
    :param ignore: metrics that are left out, as those that measure time are to be.
    """
    pairs = []
    for name in sorted({*before, *after} - set(ignore)):
        one, two = before.get(name), after.get(name)
        equal = one is not None and two is not None
        if one is not None and two is not None:
            equal = (math.isnan(one) and math.isnan(two)) or math.isclose(
                one, two, rel_tol=tolerance, abs_tol=tolerance
            )
        pairs.append(MetricPair(name, one, two, equal))
    return pairs


def differing_packages(before: str, after: str) -> list[str]:
    r"""
    Return what differs between two lists of packages, a phrase for each.

    >>> differing_packages("numpy==2.1\npip==24.0", "numpy==2.2\nscipy==1.14")
    ['numpy 2.1 -> 2.2', 'pip 24.0 -> none', 'scipy none -> 1.14']
    """
    old, new = (
        {name: version for name, _, version in (line.partition("==") for line in text.splitlines() if line)}
        for text in (before, after)
    )
    return [
        f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
