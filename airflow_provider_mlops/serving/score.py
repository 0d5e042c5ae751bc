"""
Score models on the same rows. A script of its own: it runs in the model's environment and imports nothing of ours.

    python score.py --data FOLDER_OR_FILE --label COLUMN --output FILE.parquet
        --model candidate=URI [--model champion=URI] [--model anchor=URI] [--keep COLUMN ...]

Writes ``FILE.parquet``: the label, the kept columns and, per model, ``NAME`` (one value per row) or ``NAME_0``,
``NAME_1``, ... (one probability per class); and ``FILE.json`` beside it, which says per model ``type`` (``values`` or
``probabilities``), ``classes``, ``inputs`` (type of each required input column), ``size_bytes`` and ``seconds``, or the
``error`` that kept it from being scored. Only the candidate's errors end the script; nothing is written then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

__all__ = ["main", "score"]

CHUNK_ROWS = 50_000
PROBE_ROWS = 10
_ERROR_CHARACTERS = 500


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
    given = parser.parse_args(arguments)
    models = dict(text.partition("=")[::2] for text in given.model)
    if "candidate" not in models or not all(models.values()) or len(models) != len(given.model):
        parser.error("give --model candidate=URI, and every other model as NAME=URI, each name once")
    try:
        score(given.data, label=given.label, output=given.output, models=models, keep=given.keep)
    except ScoringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def score(data: str, *, label: str, output: Path, models: dict[str, str], keep: Sequence[str] = ()) -> dict[str, Any]:
    """
    Score *models* (name -> MLflow URI) on the rows of *data*; write *output* and the JSON beside it; return the JSON.

    :raises ScoringError: data that cannot be read, a column that is missing, a candidate that cannot be scored.
    """
    begin = time.monotonic()
    rows = _open(data)
    copied = list(dict.fromkeys([label, *keep]))
    _check_columns(copied, rows.schema.names, list(models))
    table = rows.to_table(columns=copied)
    print(f"{table.num_rows} rows of {data}", flush=True)
    summary: dict[str, Any] = {"rows": table.num_rows, "label": label, "keep": copied[1:], "models": {}}
    for name, uri in models.items():
        try:
            table, summary["models"][name] = _score_one(name, uri, rows, label, table)
        except Exception as error:  # a model is foreign code: it may raise anything
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ScoringError) else str(error)
            reason = reason[:_ERROR_CHARACTERS]
            if name == "candidate":
                raise ScoringError(f"The candidate {uri} could not be scored. {reason}") from error
            print(f"{name}: could not be scored. {reason}", flush=True)
            summary["models"][name] = {"uri": uri, "error": reason}
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


def _score_one(name: str, uri: str, rows: ds.Dataset, label: str, table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """Return *table* with the scores of one model, and what is worth knowing about it."""
    import mlflow

    begin = time.monotonic()
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    model = mlflow.pyfunc.load_model(str(folder))
    inputs, columns, as_tensor = _inputs(model, rows.schema.names, label)
    parts: list[np.ndarray] = []
    predict, classes = None, None
    done = 0
    for frame in _frames(rows, columns):
        data = frame.to_numpy() if as_tensor else frame
        if predict is None:
            predict, classes = _predictor(model, data[:PROBE_ROWS])
        part = _plain(predict(data))
        if len(part) != len(frame):
            raise ScoringError(f"It returned {len(part)} predictions for {len(frame)} rows.")
        parts.append(part)
        done += len(part)
        print(f"{name}: {done} of {table.num_rows} rows", flush=True)
    scores: np.ndarray[Any, Any] = np.concatenate(parts) if parts else np.empty(0)
    if scores.ndim == 1:
        table = table.append_column(name, pa.array(scores))
    else:
        for k in range(scores.shape[1]):
            table = table.append_column(f"{name}_{k}", pa.array(scores[:, k]))
    return table, {
        "uri": uri,
        "type": "values" if scores.ndim == 1 else "probabilities",
        "classes": classes if scores.ndim == 2 else None,
        "inputs": inputs,
        "size_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "seconds": round(time.monotonic() - begin, 3),
    }


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
