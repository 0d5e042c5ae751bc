"""
Score models on the same rows. A script of its own: it runs in the model's environment and imports nothing of ours.

    python score.py --data FOLDER_OR_FILE --label COLUMN --output FILE.parquet
        --model candidate=URI [--model champion=URI] [--model anchor=URI] [--keep COLUMN ...]
        [--importance] [--shap] [--per COLUMN ...] [--group COLUMN]

Writes ``FILE.parquet``: the label, the kept columns and, per model, ``NAME`` (one value per row) or ``NAME_0``,
``NAME_1``, ... (one probability per class); and ``FILE.json`` beside it, which says per model ``type`` (``values`` or
``probabilities``), ``classes``, ``inputs`` (type of each required input column), ``size_bytes`` and ``seconds``, or the
``error`` that kept it from being scored. Only the candidate's errors end the script; nothing is written then. Of the
candidate it also says ``latency_ms`` (``p50``, ``p95``, ``p99`` of predictions of one row in this process) and, on
Linux, ``memory_mib``: the most that this process held until it had scored all rows.

``--importance`` also shuffles each input of the candidate between at most 5,000 rows (seeded) and writes how much the
loss grows into ``importance``: ``loss``, ``base`` (the loss before), ``rows``, ``repeats``, ``columns`` (each with
``drop``, ``drop_low``, ``drop_high``: a 95 % interval), ``slices`` (the drops per value of each ``--per`` column) and
``not_inputs``; or the ``error`` that kept it from being measured, which never ends the script. ``--shap`` adds
``shap`` to it: the mean absolute SHAP value per input (``columns``) over so many ``rows``, or an ``error``; it needs
the library shap.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

__all__ = ["main", "score"]

CHUNK_ROWS = 50_000
PROBE_ROWS = 10
_ERROR_CHARACTERS = 500

IMPORTANCE_ROWS = 5_000  # predictions per column: fewer rows are shuffled more often
IMPORTANCE_PREDICTIONS = 1_000_000  # predictions in all
IMPORTANCE_SECONDS = 300  # what a slow model may take
SHAP_ROWS = 200  # rows whose predictions are taken apart
SHAP_BACKGROUND = 50  # rows whose values stand in for a column's own
LATENCY_ROWS = 200  # predictions of one row
LATENCY_SECONDS = 20
_LEAST_ROWS = 30  # of a slice, and of all, below which nothing is said
_MOST_REPEATS = 10
_MOST_SLICES = 20  # per column, the largest
_SECONDS_BETWEEN_LINES = 5


class ScoringError(Exception):
    """The rows cannot be scored. The message says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return 0, or 1 after saying on standard error why nothing was written."""
    parser = argparse.ArgumentParser(description="Score models on the same rows.")
    parser.add_argument("--data", required=True, help="file or folder of Parquet, CSV or Arrow files")
    parser.add_argument("--label", required=True, help="column with the truth; never passed to a model")
    parser.add_argument("--output", required=True, type=Path, help="Parquet file to write")
    parser.add_argument("--model", required=True, action="append", metavar="NAME=URI", help="candidate=URI and others")
    parser.add_argument("--keep", default=[], nargs="+", action="extend", metavar="COLUMN", help="column to copy")
    parser.add_argument(
        "--importance", action="store_true", help="measure how much each input of the candidate matters"
    )
    parser.add_argument(
        "--per", default=[], nargs="+", action="extend", metavar="COLUMN", help="keep; measure per value"
    )
    parser.add_argument("--shap", action="store_true", help="measure SHAP values as well")
    parser.add_argument("--group", metavar="COLUMN", help="keep; rows with the same value are ranked together")
    given = parser.parse_args(arguments)
    models = dict(text.partition("=")[::2] for text in given.model)
    if "candidate" not in models or not all(models.values()) or len(models) != len(given.model):
        parser.error("give --model candidate=URI, and every other model as NAME=URI, each name once")
    try:
        # MLflow copies models into temporary folders and leaves them there.
        with tempfile.TemporaryDirectory(prefix="score-") as scratch:
            tempfile.tempdir = scratch
            score(
                given.data,
                label=given.label,
                output=given.output,
                models=models,
                keep=given.keep,
                importance=given.importance or given.shap,
                with_shap=given.shap,
                per=given.per,
                group=given.group,
            )
    except ScoringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        tempfile.tempdir = None
    return 0


def score(
    data: str,
    *,
    label: str,
    output: Path,
    models: dict[str, str],
    keep: Sequence[str] = (),
    importance: bool = False,
    with_shap: bool = False,
    per: Sequence[str] = (),
    group: str | None = None,
) -> dict[str, Any]:
    """
    Score *models* (name -> MLflow URI) on the rows of *data*; write *output* and the JSON beside it; return the JSON.

    :param importance: measure the importance of the candidate's inputs too.
    :param with_shap: and their SHAP values.
    :param per: columns to keep, and to measure the importance by.
    :param group: column to keep: the query of a row, when the models rank.
    :raises ScoringError: data that cannot be read, a column that is missing, a candidate that cannot be scored.
    """
    begin = time.monotonic()
    rows = _open(data)
    copied = list(dict.fromkeys([label, *keep, *per, *([group] if group else [])]))
    _check_columns(copied, rows.schema.names, list(models))
    table = rows.to_table(columns=copied)
    print(f"{table.num_rows} rows of {data}", flush=True)
    summary: dict[str, Any] = {"rows": table.num_rows, "label": label, "keep": copied[1:], "models": {}}
    for name, uri in models.items():
        try:
            model = _load(uri, rows, label)
            table, summary["models"][name] = _score_one(name, model, rows, table)
        except Exception as error:  # a model is foreign code: it may raise anything
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ScoringError) else str(error)
            reason = reason[:_ERROR_CHARACTERS]
            if name == "candidate":
                raise ScoringError(f"The candidate {uri} could not be scored. {reason}") from error
            print(f"{name}: could not be scored. {reason}", flush=True)
            summary["models"][name] = {"uri": uri, "error": reason}
        else:
            if name == "candidate":
                summary["models"][name] |= _cost(model, rows)
            if importance and name == "candidate":
                ask = _Question(label, group, per, summary["models"][name]["seconds"] / max(table.num_rows, 1))
                summary["importance"] = _importance(model, rows, table, ask)
                if with_shap and "error" not in summary["importance"]:
                    summary["importance"]["shap"] = _shap(model, rows, ask.seconds_per_row)
    summary["seconds"] = round(time.monotonic() - begin, 3)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _written_whole(output.with_suffix(".json")) as file:
        file.write_text(json.dumps(summary, indent=2) + "\n")
    with _written_whole(output) as file:
        pq.write_table(table, file)
    print(f"wrote {output}", flush=True)
    return summary


def _open(data: str) -> ds.Dataset:
    kinds = {".parquet": "parquet", ".csv": "csv", ".arrow": "feather", ".feather": "feather"}
    path = Path(data.removeprefix("file://"))
    source: Any = data if "://" in data.removeprefix("file://") else str(path)
    ending = path.suffix
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in kinds and not _hidden(file.relative_to(path)))
        endings = {file.suffix for file in files}
        if len(endings) != 1:
            found = " and ".join(sorted(endings)) or "no data files"
            raise ScoringError(f"{data} holds {found}; one kind of {', '.join(kinds)} is needed.")
        source, ending = [str(file) for file in files], endings.pop()
    kind = kinds.get(ending, "parquet")
    try:
        return ds.dataset(source, format=kind)
    except (OSError, pa.ArrowException) as error:
        raise ScoringError(f"{data} cannot be read as {kind}: {error}") from error


def _hidden(file: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.parts)


def _check_columns(copied: list[str], known: list[str], models: list[str]) -> None:
    for column in copied:
        if column not in known:
            raise ScoringError(f"The data has no column {column!r}. It has {', '.join(known[:20])}.")
        for model in models:
            ending = column.removeprefix(f"{model}_")
            if column == model or (ending != column and ending.isdigit()):
                raise ScoringError(f"The column {column!r} has the name of the scores of {model!r}. Rename the column.")


@dataclass
class _Model:
    """A model, and how it is asked."""

    uri: str
    folder: Path
    loaded: Any
    inputs: dict[str, str]  # required columns with their types
    columns: list[str]  # columns to pass
    as_tensor: bool
    ask: Callable[[Any], Any] | None = None
    classes: list[Any] | None = None

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        data = frame.to_numpy() if self.as_tensor else frame
        if self.ask is None:
            self.ask, self.classes = _predictor(self.loaded, data[:PROBE_ROWS])
        part = _plain(self.ask(data))
        if len(part) != len(frame):
            raise ScoringError(f"It returned {len(part)} predictions for {len(frame)} rows.")
        return part


def _load(uri: str, rows: ds.Dataset, label: str) -> _Model:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    loaded = mlflow.pyfunc.load_model(str(folder))
    return _Model(uri, folder, loaded, *_inputs(loaded, rows.schema.names, label))


def _score_one(name: str, model: _Model, rows: ds.Dataset, table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """Return *table* with the scores of one model, and what is worth knowing about it."""
    if len(first := rows.head(PROBE_ROWS, columns=model.columns)):
        model.predict(first.to_pandas())  # the first call imports and compiles: it says nothing of the others' speed
    begin = time.monotonic()
    parts: list[np.ndarray] = []
    done = 0
    for frame in _frames(rows, model.columns):
        parts.append(model.predict(frame))
        done += len(frame)
        print(f"{name}: {done} of {table.num_rows} rows", flush=True)
    scores: np.ndarray[Any, Any] = np.concatenate(parts) if parts else np.empty(0)
    if scores.ndim == 1:
        table = table.append_column(name, pa.array(scores))
    else:
        for k in range(scores.shape[1]):
            table = table.append_column(f"{name}_{k}", pa.array(scores[:, k]))
    return table, {
        "uri": model.uri,
        "type": "values" if scores.ndim == 1 else "probabilities",
        "classes": model.classes if scores.ndim == 2 else None,
        "inputs": model.inputs,
        "size_bytes": sum(file.stat().st_size for file in model.folder.rglob("*") if file.is_file()),
        "seconds": round(time.monotonic() - begin, 3),
    }


def _cost(model: _Model, rows: ds.Dataset) -> dict[str, Any]:
    """Return the latency of one row, unless there is none, and the memory, where the system tells it."""
    frame = rows.head(LATENCY_ROWS, columns=model.columns).to_pandas()
    taken: list[float] = []
    for n in range(len(frame)):
        begin = time.perf_counter()
        model.predict(frame.iloc[n : n + 1])
        taken.append(1000 * (time.perf_counter() - begin))
        if sum(taken) > 1000 * LATENCY_SECONDS:
            break
    found: dict[str, Any] = {}
    if taken:
        warm = taken[1:] or taken
        found["latency_ms"] = {f"p{p}": round(float(np.percentile(warm, p)), 3) for p in (50, 95, 99)}
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        found["memory_mib"] = round(int(peak.split()[1]) / 1024, 1)
    return found


def _inputs(model: Any, known: list[str], label: str) -> tuple[dict[str, str], list[str], bool]:
    """Return the required inputs with their types, the columns to pass, and whether they go as one array."""
    schema = model.metadata.get_input_schema()
    rest = [column for column in known if column != label]
    if schema is None:
        return {}, rest, False
    if not schema.has_input_names():
        return {}, rest, schema.is_tensor_spec()
    if label in schema.input_names():
        raise ScoringError(f"It wants the label {label!r} as an input, so it cannot be judged. Train it without.")
    wanted = set(schema.required_input_names())
    absent = sorted(wanted - set(known))
    if absent:
        raise ScoringError(f"It needs the columns {', '.join(map(repr, absent))}, which the data does not have.")
    types = {spec.name: str(getattr(spec.type, "name", spec.type)) for spec in schema.inputs if spec.name in wanted}
    return types, [column for column in schema.input_names() if column in known], False


def _frames(rows: ds.Dataset, columns: list[str]) -> Iterator[pd.DataFrame]:
    for batch in rows.to_batches(columns=columns, batch_size=CHUNK_ROWS):
        if batch.num_rows:
            yield batch.to_pandas()


def _predictor(model: Any, head: Any) -> tuple[Any, list[Any] | None]:
    """
    Return the function that predicts, and the classes of its columns where they are known.

    A classifier that answers labels is asked for its probabilities instead, where its library can give them.
    """
    native: Any = None
    with contextlib.suppress(Exception):  # not every flavor has a native model to hand out
        native = model.get_raw_model()
    classes = getattr(native, "classes_", None)
    known = [item.item() if hasattr(item, "item") else item for item in classes] if classes is not None else None
    if _plain(model.predict(head)).ndim == 2 or not hasattr(native, "predict_proba"):
        return model.predict, known
    return native.predict_proba, known


def _plain(predicted: Any) -> np.ndarray:
    values = predicted.to_numpy() if hasattr(predicted, "to_numpy") else np.asarray(predicted)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2):
        raise ScoringError(f"It returned an array of shape {values.shape}; one value or one row per row is needed.")
    return values.astype(float) if values.dtype == np.float16 else values


# -- importance -------------------------------------------------------------------------------------------------------


@dataclass
class _Question:
    label: str
    group: str | None
    per: Sequence[str]
    seconds_per_row: float


def _importance(model: _Model, rows: ds.Dataset, table: pa.Table, ask: _Question) -> dict[str, Any]:
    """Return what `score` writes as ``importance``: how the loss grows when one column after the other is shuffled."""
    try:
        return _measured(model, rows, table, ask)
    except Exception as error:  # noqa: BLE001 - the model is foreign code, and its scores are worth having without this
        reason = str(error) if isinstance(error, ScoringError) else f"{type(error).__name__}: {error}"
        print(f"importance: not measured. {reason[:_ERROR_CHARACTERS]}", flush=True)
        return {"error": reason[:_ERROR_CHARACTERS]}


def _measured(model: _Model, rows: ds.Dataset, table: pa.Table, ask: _Question) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    chosen = _chosen_rows(table, ask, len(model.columns), rng)
    part = table.take(chosen)
    frame = rows.take(chosen, columns=model.columns).to_pandas().reset_index(drop=True)
    group = _codes(part[ask.group]) if ask.group else None
    label = part[ask.label].to_pandas().to_numpy()
    before = model.predict(frame)
    loss, of_rows = _loss(label, before, model.classes, group)
    base = of_rows(before)
    n = len(frame)
    repeats = max(1, min(_MOST_REPEATS, IMPORTANCE_ROWS // n))
    slices = {by: _slices(part[by]) for by in ask.per}
    found: dict[str, Any] = {}
    drops: dict[str, dict[str, dict[str, Any]]] = {
        by: {value: {"rows": int(mask.sum()), "drops": {}} for value, mask in masks.items()}
        for by, masks in slices.items()
    }
    many = frame.loc[np.tile(np.arange(n), repeats)].reset_index(drop=True)
    said = time.monotonic()
    for i, column in enumerate(model.columns, start=1):
        order = np.concatenate([rng.permutation(n) for _ in range(repeats)])
        shuffled = many.assign(**{column: frame[column].take(order).set_axis(many.index)})
        growth = (of_rows(model.predict(shuffled), repeats).reshape(repeats, n) - base).mean(axis=0)
        found[column] = _interval(growth, group)
        for by, masks in slices.items():
            for value, mask in masks.items():
                drops[by][value]["drops"][column] = float(growth[mask].mean())
        if i == len(model.columns) or time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"importance: {i} of {len(model.columns)} columns on {n} rows", flush=True)
    return {
        "loss": loss,
        "base": float(base.mean()),
        "rows": n,
        "repeats": repeats,
        "columns": found,
        "slices": drops,
        "not_inputs": [name for name in rows.schema.names if name not in found and name != ask.label],
    }


def _shap(model: _Model, rows: ds.Dataset, seconds_per_row: float) -> dict[str, Any]:
    """
    Return the mean absolute SHAP value of each input, by random permutations of the inputs; never raises.

    Source: Lundberg & Lee (2017), NIPS 30; Strumbelj & Kononenko (2014), Knowledge and Information Systems 41(3).
    """
    try:
        return _shap_values(model, rows, seconds_per_row)
    except Exception as error:  # noqa: BLE001 - as in `_importance`
        reason = str(error) if isinstance(error, ScoringError) else f"{type(error).__name__}: {error}"
        print(f"shap: not measured. {reason[:_ERROR_CHARACTERS]}", flush=True)
        return {"error": reason[:_ERROR_CHARACTERS]}


def _shap_values(model: _Model, rows: ds.Dataset, seconds_per_row: float) -> dict[str, Any]:
    try:
        import shap
    except ImportError as error:
        raise ScoringError(f"{error}. Install shap where models are scored, or leave it out.") from error
    import pandas as pd

    rng = np.random.default_rng(0)
    evaluations = 2 * len(model.columns) + 1  # of a row: inputs are switched one after the other, there and back
    most = min(IMPORTANCE_PREDICTIONS, IMPORTANCE_SECONDS / max(seconds_per_row, 1e-9))
    count = min(SHAP_ROWS, int(most / (evaluations * SHAP_BACKGROUND)), rows.count_rows())
    if count < 1:
        raise ScoringError(f"{len(model.columns)} columns would take too long with a model this slow.")
    chosen = rng.permutation(rows.count_rows())[: count + SHAP_BACKGROUND]
    frame = rows.take(chosen, columns=model.columns).to_pandas()
    # shap computes on numbers: each value goes there as its place among the values of its column.
    found = [pd.factorize(frame[name], use_na_sentinel=False) for name in model.columns]
    places = np.column_stack([codes for codes, _ in found]).astype(float)

    def predict(codes: np.ndarray) -> np.ndarray:
        columns = {
            name: pd.Series(values.take(codes[:, k].astype(np.int64))).astype(frame[name].dtype)
            for k, (name, (_, values)) in enumerate(zip(model.columns, found, strict=True))
        }
        predicted = model.predict(pd.DataFrame(columns))
        if predicted.dtype.kind not in "biuf":
            raise ScoringError("The model predicts labels; SHAP values need numbers.")
        return predicted.astype(float)

    background = shap.maskers.Independent(places[-SHAP_BACKGROUND:], max_samples=SHAP_BACKGROUND)
    explainer = shap.explainers.Permutation(predict, background, seed=0)
    values = np.abs(explainer(places[:count], max_evals=evaluations, silent=True).values)
    means = values.mean(axis=0) if values.ndim == 2 else values.mean(axis=(0, 2))
    print(f"shap: {len(model.columns)} columns on {count} rows", flush=True)
    return {"rows": count, "columns": dict(zip(model.columns, map(float, means), strict=True))}


def _chosen_rows(table: pa.Table, ask: _Question, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of labeled rows to look at, ascending; whole queries when rows are ranked together."""
    if columns == 0:
        raise ScoringError("The model takes no columns.")
    slow = IMPORTANCE_SECONDS / max(ask.seconds_per_row, 1e-9)
    most = int(min(IMPORTANCE_ROWS, IMPORTANCE_PREDICTIONS // columns, slow // columns))
    usable = np.flatnonzero(~table[ask.label].is_null(nan_is_null=True).to_numpy())
    if most < _LEAST_ROWS:
        raise ScoringError(f"{columns} columns would take too long with a model this slow.")
    if len(usable) < _LEAST_ROWS:
        raise ScoringError(f"{len(usable)} labeled rows are too few, {_LEAST_ROWS} are needed.")
    if ask.group is None:
        return np.sort(rng.permutation(usable)[:most])
    codes = _codes(table[ask.group].take(usable))
    shuffled = rng.permutation(codes.max() + 1)[codes]
    fitting = np.cumsum(np.bincount(shuffled)) <= most
    fitting[0] = True
    return np.asarray(usable[fitting[shuffled]])


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number per distinct value."""
    return np.unique(column.to_pandas().astype(str), return_inverse=True)[1]


def _slices(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """Return the mask of each value that has enough rows, the largest values first."""
    names, codes, counts = np.unique(column.to_pandas().astype(str), return_inverse=True, return_counts=True)
    largest = [k for k in np.argsort(-counts, kind="stable")[:_MOST_SLICES] if counts[k] >= _LEAST_ROWS]
    return {str(names[k]): codes == k for k in largest}


def _loss(
    label: np.ndarray, predicted: np.ndarray, classes: list[Any] | None, group: np.ndarray | None
) -> tuple[str, Callable[..., np.ndarray]]:
    """
    Return the name of the loss that fits these predictions, and the function that gives it per row.

    Probabilities: Brier. Values: squared error. Labels: wrong or not. Scores of a ranking, or of two classes on a
    scale of their own: squared difference between the ranks of score and label, each scaled to 0..1.
    """
    names = np.unique(label)
    if predicted.ndim == 2:
        known = np.array(classes) if classes is not None else names
        if predicted.shape[1] != len(known):
            raise ScoringError(f"{predicted.shape[1]} columns of probabilities do not fit {len(known)} classes.")
        truth = (label[:, None] == known).astype(float)
        return "brier", lambda p, repeats=1: ((p - np.tile(truth, (repeats, 1))) ** 2).sum(axis=1)
    if predicted.dtype.kind not in "biuf":
        return "wrong_labels", lambda p, repeats=1: (p != np.tile(label, repeats)).astype(float)
    two = len(names) == 2
    number = (label == names[-1]).astype(float) if two and group is None else label.astype(float)
    if group is None and (not two or ((predicted >= 0) & (predicted <= 1)).all()):
        name = "brier" if two else "squared_error"
        return name, lambda p, repeats=1: (p - np.tile(number, repeats)) ** 2
    codes = np.zeros(len(label), dtype=np.int64) if group is None else group
    truth = _ranks(number, codes)

    def of_rows(p: np.ndarray, repeats: int = 1) -> np.ndarray:
        each = [(_ranks(scores, codes) - truth) ** 2 for scores in p.reshape(repeats, len(codes))]
        return np.concatenate(each)

    return "rank_error", of_rows


def _ranks(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the mean rank of each value within its group, scaled to 0..1."""
    order = np.lexsort((values, codes))
    ordered, group = values[order], codes[order]
    fresh = np.concatenate([[True], (ordered[1:] != ordered[:-1]) | (group[1:] != group[:-1])])
    tie = np.cumsum(fresh) - 1
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    sizes = np.diff(np.append(first, len(values)))
    place = np.arange(len(values)) - np.repeat(first, sizes)
    mean = np.bincount(tie, place) / np.bincount(tie)
    result = np.empty(len(values))
    result[order] = mean[tie] / np.repeat(np.maximum(sizes - 1, 1), sizes)
    return result


def _interval(growth: np.ndarray, group: np.ndarray | None) -> dict[str, float]:
    """Return the mean and its 95 % interval over rows, or over queries."""
    mean = float(growth.mean())
    apart = growth - mean if group is None else np.bincount(group, growth - mean)
    half = 1.96 * float(np.sqrt((apart**2).sum())) / len(growth)
    return {"drop": mean, "drop_low": mean - half, "drop_high": mean + half}


@contextlib.contextmanager
def _written_whole(file: Path) -> Iterator[Path]:
    """Yield a file beside *file* that takes its name when all went well, so that nobody reads half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        yield Path(name)
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
