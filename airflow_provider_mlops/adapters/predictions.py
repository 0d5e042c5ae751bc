"""Read what the scoring job wrote: one Parquet file, and the JSON beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.errors import DataError, did_you_mean
from airflow_provider_mlops.evaluation.importance import Importance
from airflow_provider_mlops.evaluation.values import Predictions

if TYPE_CHECKING:
    from datetime import timedelta

    import pyarrow as pa

__all__ = ["read_anchor", "read_importance", "read_predictions", "read_summary"]


def read_predictions(
    file: str | Path, *, time: str | None = None, entity: str | None = None, newest: timedelta | None = None
) -> Predictions:
    """
    Return what the scoring job wrote into *file*; all kept columns but *time* and *entity* become slices.

    :param time: kept column with the event time: rows are then resampled in blocks of time.
    :param entity: kept column whose rows belong together: they are then resampled together.
    :param newest: length of the newest window, up to the newest *time*, which is judged alone as well.
    :raises DataError: the file or its JSON is missing or damaged, a column is missing, or there is no candidate.
    """
    summary = read_summary(file)
    table = _table(Path(file))
    models = summary["models"]
    classes = _all_classes(models)
    for role, column in (("time", time), ("entity", entity)):
        if column is not None and column not in table.column_names:
            raise DataError(
                f"{file}: the {role} column {column!r} was not kept.{did_you_mean(column, table.column_names)} "
                "Score anew with --keep."
            )
    candidate = _scores(table, "candidate", models, classes)
    if candidate is None:
        raise DataError(f"{file}: holds no scores of a candidate. Score anew with --model candidate=URI.")
    champion = models.get("champion", {})
    times = None if time is None else _array(table, time)
    return Predictions(
        label=_array(table, summary["label"]),
        candidate=candidate,
        champion=_scores(table, "champion", models, classes),
        slices={name: _array(table, name) for name in summary["keep"] if name not in (time, entity)},
        time=times,
        entity=None if entity is None else _array(table, entity),
        newest=None if times is None or newest is None else _newest(times, newest),
        champion_error=champion.get("error"),
        classes=classes,
    )


def read_anchor(file: str | Path) -> np.ndarray | None:
    """
    Return the anchor's scores in *file*, or ``None`` when no model of that name was to be scored.

    :raises DataError: the anchor was to be scored and could not be: the test against it must not be left out unseen.
    """
    models = read_summary(file)["models"]
    if "error" in models.get("anchor", {}):
        raise DataError(f"{file}: the anchor could not be scored ({models['anchor']['error']}). Mend its scoring.")
    return _scores(_table(Path(file)), "anchor", models, _all_classes(models))


def read_importance(file: str | Path) -> Importance | None:
    """
    Return how much each input matters to the candidate, or ``None`` when that was not, or could not be, measured.

    :raises DataError: what was written cannot be read.
    """
    found = read_summary(file).get("importance")
    return None if not found or "error" in found else Importance.from_dict(found)


def read_summary(file: str | Path) -> dict[str, Any]:
    """
    Return the JSON beside *file*: ``rows``, ``seconds``, ``label``, ``keep`` and per model ``type``, ``classes``,
    ``inputs``, ``size_bytes``, ``seconds``, or ``error``; ``importance`` when it was asked for.

    :raises DataError: it is missing or damaged.
    """
    beside = Path(file).with_suffix(".json")
    try:
        summary = json.loads(beside.read_text())
    except OSError as error:
        raise DataError(
            f"{beside} cannot be read ({error.strerror}). The scoring job writes it beside its scores."
        ) from error
    except ValueError as error:
        raise DataError(f"{beside} is no JSON ({error}). Run the scoring job anew.") from error
    if not isinstance(summary, dict) or not {"label", "keep", "models"} <= set(summary):
        raise DataError(f"{beside} lacks 'label', 'keep' or 'models'. Run the scoring job anew.")
    return summary


def _table(file: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet ({error}). Run the scoring job anew.") from error


def _all_classes(models: dict[str, dict[str, Any]]) -> tuple[Any, ...] | None:
    """Return the classes that any of the models knows, sorted; ``None`` when one with probabilities names none."""
    known = [model.get("classes") or () for model in models.values() if model.get("type") == "probabilities"]
    if not known or not all(known):
        return None
    names = {item for classes in known for item in classes}
    if any(isinstance(item, str) for item in names) and not all(isinstance(item, str) for item in names):
        told = "; ".join(
            f"{name}: {', '.join(map(repr, (model.get('classes') or ())[:5]))}" for name, model in models.items()
        )
        raise DataError(
            f"The models name their classes as text and as numbers ({told}), so they cannot be compared. "
            "Train them on labels of the same type."
        )
    return tuple(sorted(names))


def _scores(
    table: pa.Table, name: str, models: dict[str, dict[str, Any]], classes: tuple[Any, ...] | None
) -> np.ndarray | None:
    model = models.get(name, {"error": ""})
    if "error" in model:
        return None
    if model["type"] == "values":
        return _array(table, name)
    count = sum(column.removeprefix(f"{name}_").isdigit() for column in table.column_names if column.startswith(name))
    scores = np.column_stack([_array(table, f"{name}_{k}") for k in range(count)])
    if classes is None or len(classes) == count:
        return scores
    # This model never saw some class that another one knows: it gives that class no chance.
    full = np.zeros((len(scores), len(classes)))
    full[:, [classes.index(item) for item in model["classes"]]] = scores
    return full


def _newest(times: np.ndarray, window: timedelta) -> np.ndarray | None:
    """Return which rows lie in the last *window*; ``None`` for times that are no timestamps."""
    if times.dtype.kind != "M":
        return None
    known = times[~np.isnat(times)].astype("datetime64[us]")
    if not len(known):
        return None
    return np.asarray(times.astype("datetime64[us]") > known.max() - np.timedelta64(window))


def _array(table: pa.Table, name: str) -> np.ndarray:
    import pyarrow as pa

    if name not in table.column_names:
        raise DataError(f"The scores lack the column {name!r}.{did_you_mean(name, table.column_names)}")
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_integer(column.type) and column.null_count:  # as floats, neighbors above 2**53 would be equal
        return np.array(column.to_pylist(), dtype=object)
    return np.asarray(column.to_numpy())
