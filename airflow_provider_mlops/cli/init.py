"""``mlops init``: a pipeline file and its stub, made from what a script and a data set show."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from airflow_provider_mlops.cli.data import DataReport
    from airflow_provider_mlops.cli.script import ScriptReport

__all__ = ["run", "stub"]

_MOST_SHOWN = 5


def run(arguments: Namespace) -> int:
    """Look at script and data, write both files or neither, and say what was found."""
    from airflow_provider_mlops.cli.data import read_data
    from airflow_provider_mlops.cli.script import read_script
    from airflow_provider_mlops.pipeline import from_dict, load

    folder, script = Path(arguments.folder), Path(arguments.script)
    yaml, python = folder / f"{arguments.name}.yaml", folder / f"{arguments.name}.py"
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder. Make it first, inside Airflow's DAG folder.")
    if not script.is_file():
        names = [item.name for item in script.parent.iterdir()] if script.parent.is_dir() else []
        raise ConfigError(f"{script}: there is no such file.{did_you_mean(script.name, names)}")
    if script.resolve() == python.resolve():
        raise ConfigError(
            f"{python} is the script, and the stub needs that name. Choose another name than {arguments.name!r}."
        )
    for file in (yaml, python):
        if file.exists():
            raise ConfigError(f"{file} exists already and was left as it is. Choose another name, or take it away.")
    shown = read_script(_text(script), name=str(script))
    data = read_data(arguments.data, label=arguments.label, timestamp=arguments.timestamp)
    if not data.rows:
        raise DataError(f"{arguments.data}: it has columns and no row.")
    if data.labels is not None and len(data.labels) < 2:
        raise DataError(
            f"{arguments.data}: {arguments.label!r} has {len(data.labels)} value(s); nothing can be learned from it."
        )
    document: dict[str, Any] = {
        "mlops": 1,
        "name": arguments.name,
        "data": {"path": _data_path(arguments.data, folder), "label": arguments.label},
        "train": {"script": _relative(script, folder)},
        "evaluate": [_rule(data, shown)],
    }
    if arguments.timestamp:
        document["data"]["timestamp"] = arguments.timestamp
    from_dict(document)  # a wrong name or path is found before anything is written
    _write_new({yaml: _yaml(document), python: stub(arguments.name)})
    load(yaml)
    print("\n".join(_report(arguments, yaml, python, shown, data)))
    return 0


def stub(name: str) -> str:
    """Return the Python file that Airflow reads for the pipeline file ``NAME.yaml``."""
    return (
        f'"""DAGs of {name}.yaml for Airflow."""\n'
        "from airflow_provider_mlops.factory import load_dags\n"
        "\n"
        f"load_dags(__file__)  # {name}.yaml -> DAGs {name}__train, {name}__monitor\n"
    )


def _text(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{script} is not UTF-8, so not Python.") from error


def _data_path(path: str, folder: Path) -> str:
    if "://" in path or Path(path).is_absolute():
        return path
    return _relative(Path(path), folder)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _rule(data: DataReport, script: ScriptReport) -> dict[str, object]:
    """Return an absolute rule that a useful model passes and a guess does not."""
    if data.labels is None:
        return {"metric": "r2", "at_least": 0.1}
    if len(data.labels) == 2 and script.predicts_probabilities:
        return {"metric": "roc_auc", "at_least": 0.6}
    chance = 1 / max(len(data.labels), 1)
    return {"metric": "balanced_accuracy", "at_least": round(chance + (1 - chance) * 0.2, 2)}


def _yaml(document: Mapping[str, object]) -> str:
    from airflow_provider_mlops.pipeline.rendering import dump

    head = "# Check with `mlops lint`; `mlops schema --format markdown` explains every key.\n"
    return head + dump(document).replace(
        "evaluate:\n", "evaluate:  # every rule must hold; raise the limit to what is good enough for a first model\n"
    )


def _write_new(contents: Mapping[Path, str]) -> None:
    """Create all files or none; a file that exists is never touched."""
    made: list[Path] = []
    try:
        for path, text in contents.items():
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
                temporary = Path(file.name)
                file.write(text)
            try:
                temporary.chmod(0o644)
                os.link(temporary, path)  # whole or not at all, and only when nobody else made it meanwhile
            finally:
                temporary.unlink()
            made.append(path)
    except BaseException as error:
        for path in made:
            with suppress(OSError):
                path.unlink()
        if isinstance(error, FileExistsError):
            raise ConfigError(f"{error.filename2} exists already and was left as it is.") from None
        raise


def _report(arguments: Namespace, yaml: Path, python: Path, script: ScriptReport, data: DataReport) -> list[str]:
    name = arguments.name
    return [
        f"wrote {yaml}: DAG {name}__train, and {name}__monitor once it has `monitor:`",
        f"wrote {python}: the stub that Airflow reads",
        *(f"{arguments.script}: {line}" for line in _script_lines(script)),
        *(f"{arguments.data}: {line}" for line in _data_lines(arguments, data)),
        f"next: mlops lint {yaml}",
    ]


def _script_lines(script: ScriptReport) -> list[str]:
    lines = [
        f"logs a model ({script.how}, line {script.logs_model})"
        if script.logs_model
        else "logs no model that could be seen; a training that logs none fails",
    ]
    if script.starts_run:
        lines.append(f"mlflow.start_run in line {script.starts_run} continues the run that is made for it")
    if script.sets_target:
        lines.append(
            f"line {script.sets_target} chooses a tracking server or experiment; take it out, or its run is not found"
        )
    if script.variables:
        lines.append(f"reads {', '.join(script.variables)}")
    if "MLOPS_DATA_URI" not in script.variables:
        lines.append("does not read MLOPS_DATA_URI, so it may train on other data than what was frozen and validated")
    if script.looks_like_dag:
        lines.append(
            'holds the words "airflow" and "dag": Airflow would run it as a DAG file; name it in .airflowignore'
        )
    return lines


def _data_lines(arguments: Namespace, data: DataReport) -> list[str]:
    lines = [f"{data.rows:,} rows, {len(data.columns)} columns"]
    label = arguments.label
    if data.labels is None:
        lines.append(f"{label}: a number, so a regression")
    else:
        known = max(sum(data.labels.values()), 1)
        shares = [f"{value} {count / known:.1%}" for value, count in list(data.labels.items())[:_MOST_SHOWN]]
        more = f", {len(data.labels) - _MOST_SHOWN} more" if len(data.labels) > _MOST_SHOWN else ""
        lines.append(f"{label}: {len(data.labels)} values ({', '.join(shares)}{more})")
    if data.missing:
        lines.append(f"{label}: missing in {data.missing:,} rows, which are neither trained on nor judged")
    if data.start is not None:
        lines.append(f"{arguments.timestamp}: {data.start} .. {data.end}; the newest 20% judge, the rest trains")
    return lines
