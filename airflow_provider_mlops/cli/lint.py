"""``mlops lint``: everything that can be known about a pipeline before Airflow sees it. No database, no network."""

from __future__ import annotations

import glob as globs
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConfigError, MlopsError, did_you_mean

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from airflow_provider_mlops.pipeline import Loaded

__all__ = ["Finding", "check_file", "pipelines", "run"]

_FOUND = 1
_PIPELINE = re.compile(rb"^[\"']?mlops[\"']?[ \t]*:", re.MULTILINE)
_DEFAULTS = "_mlops.yaml"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """
    One thing that lint says.

    :param text: ``file:line: key: what is wrong``.
    :param error: a warning otherwise, which does not change the exit code.
    """

    text: str
    error: bool = True


def run(arguments: Namespace) -> int:
    """Check every pipeline file that the paths name or hold; print a line per finding."""
    files = list(dict.fromkeys(file for path in arguments.paths for file in pipelines(Path(path))))
    findings: list[Finding] = []
    names: dict[str, Path] = {}
    for file in files:
        found, name = check_file(file, target=arguments.target, root=arguments.root)
        if name in names:
            found.append(
                Finding(f"{file}:1: name: {name!r} is the name of {names[name]} already; DAG ids must differ.")
            )
        elif name:
            names[name] = file
        findings += found
    for finding in findings:
        print(finding.text)
    if not files:
        print(f"{', '.join(arguments.paths)}: no pipeline file is in here: no .yaml with the key mlops.")
    errors = sum(finding.error for finding in findings)
    print(f"{_count(len(files), 'pipeline')}, {_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")
    return _FOUND if errors else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def pipelines(path: Path) -> Iterator[Path]:
    """
    Yield the pipeline files that *path* means: itself, or in a folder every YAML file with the key ``mlops``.

    Hidden folders are left out, links to folders are not followed. For a ``_mlops.yaml``: those that it is for.

    :raises ConfigError: there is nothing at *path*.
    """
    if path.name == _DEFAULTS:
        path = path.parent
    if path.is_file():
        if path.suffix == ".py" and path.with_suffix(".yaml").is_file():
            path = path.with_suffix(".yaml")  # the stub of a pipeline
        elif path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{path}: is no YAML file. Name a pipeline file, or a folder that holds some.")
        yield path
        return
    if not path.is_dir():
        near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: there is no such file or folder.{did_you_mean(path.name, near)}")
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in ("node_modules", "venv"))
        for name in sorted(names):
            file = Path(folder, name)
            if file.suffix == ".yaml" and name != _DEFAULTS and _is_pipeline(file):
                yield file


def _is_pipeline(file: Path) -> bool:
    if file.with_suffix(".py").is_file() and b"load_dags" in file.with_suffix(".py").read_bytes():
        return True
    return bool(_PIPELINE.search(file.read_bytes()))


def check_file(file: Path, *, target: str | None = None, root: str | None = None) -> tuple[list[Finding], str | None]:
    """
    Return what is to be said about *file* and each of its targets, and the name of its pipeline if it has one.

    :param target: the target that is chosen where the file will run.
    """
    from airflow_provider_mlops.pipeline import load, target_names

    try:
        loaded = load(file, root=root)
    except MlopsError as error:
        return [Finding(line) for line in str(error).splitlines()], None
    found = dict.fromkeys([*_stub(file), *_schedule(loaded), *_scripts(loaded, root), *_data(loaded), *_rules(loaded)])
    targets = target_names(file, root=root)
    if target is not None and not targets:
        found[Finding(f"{file}:1: targets: warning: has none, so {target!r} changes nothing here.", error=False)] = None
    elif target is not None and target not in targets:
        targets.append(target)
    for each in targets:
        try:
            variant = load(file, target=each, root=root)
        except MlopsError as error:
            found |= dict.fromkeys(Finding(f"{line} (target {each})") for line in str(error).splitlines())
        else:
            found |= dict.fromkeys([*_schedule(variant), *_scripts(variant, root), *_rules(variant)])
    return list(found), loaded.spec.name


def _at(loaded: Loaded, key: str) -> str:
    origin = loaded.origins.get(key)
    return f"{origin.file}:{origin.line}: {key}" if origin and origin.line else key


def _stub(file: Path) -> Iterator[Finding]:
    from airflow_provider_mlops.cli.init import stub

    python = file.with_suffix(".py")
    if not python.is_file():
        missing = f"{file}:1: there is no {python.name} beside it, so Airflow shows no DAG. It reads:"
        yield Finding(f"{missing}\n{stub(file.stem)}".rstrip())
        return
    text = python.read_bytes().lower()
    if b"load_dags" not in text:
        yield Finding(f"{python}:1: does not call load_dags(__file__), so {file.name} gives no DAG.")
    elif b"airflow" not in text or b"dag" not in text:
        yield Finding(
            f'{python}:1: lacks the words "airflow" and "dag"; Airflow skips such a file in silence. Put them into '
            "its first line."
        )


def _schedule(loaded: Loaded) -> Iterator[Finding]:
    """Tell of a schedule that asks for more trainings than ``retrain`` lets it have."""
    from airflow_provider_mlops.pipeline.schedules import times_per_30_days
    from airflow_provider_mlops.pipeline.spec import format_duration

    spec, retrain = loaded.spec, loaded.spec.retrain
    if spec.schedule is None or "schedule" not in retrain.when:
        return
    times = times_per_30_days(spec.schedule)
    if times == 0:
        yield Finding(f"{_at(loaded, 'schedule')}: {spec.schedule!r} never comes round: no month has that day.")
        return
    if times > retrain.max_runs_per_30_days or timedelta(days=30) / times < retrain.cooldown:
        yield Finding(
            f"{_at(loaded, 'schedule')}: warning: comes round {times:.0f} times in 30 days, and retrain allows "
            f"{retrain.max_runs_per_30_days} trainings, {format_duration(retrain.cooldown)} apart: the other runs stop "
            "at decide. Train less often, or change retrain.max_runs_per_30_days and retrain.cooldown.",
            error=False,
        )


def _scripts(loaded: Loaded, root: str | None) -> Iterator[Finding]:
    from airflow_provider_mlops.cli.script import read_script

    dags = Path(root or loaded.files[0].parent).resolve()
    jobs = {"prepare": loaded.spec.prepare, "train": loaded.spec.train}
    for section, job in jobs.items():
        if job is None:
            continue
        where, path = _at(loaded, f"{section}.script"), Path(loaded.locate(job.script))
        if not path.is_file():
            scripts = {item.name for item in path.parent.glob("*.py")} - {loaded.file.with_suffix(".py").name}
            yield Finding(f"{where}: there is no file {job.script!r}.{did_you_mean(path.name, sorted(scripts))}")
            continue
        if not (real := path.resolve()).is_relative_to(dags):
            yield Finding(
                f"{where}: warning: {job.script!r} is a link to {real}, outside of the DAG folder: whoever may write "
                "there decides what runs. Move the script into the DAG folder.",
                error=False,
            )
        try:
            report = read_script(path.read_text(encoding="utf-8"), name=job.script)
        except (ConfigError, UnicodeDecodeError) as error:
            yield Finding(f"{where}: {error}")
            continue
        if section == "train" and not report.logs_model:
            yield Finding(
                f"{where}: warning: no call of log_model or autolog; a training without a model fails.",
                error=False,
            )
        if section == "train" and "MLOPS_DATA_URI" not in report.variables:
            yield Finding(
                f"{where}: warning: does not read MLOPS_DATA_URI, so it may train on the rows that are to judge it.",
                error=False,
            )
        if section == "train" and report.sets_target:
            yield Finding(
                f"{where}: warning: line {report.sets_target} chooses a tracking server or experiment; its run would "
                "not be found.",
                error=False,
            )
        if report.looks_like_dag:
            yield Finding(
                f'{where}: warning: holds the words "airflow" and "dag", so Airflow would run it as a DAG file. '
                "Name it in .airflowignore.",
                error=False,
            )


def _data(loaded: Loaded) -> Iterator[Finding]:
    """Look at local data. Where an absolute path leads on another machine is not known here, so that only warns."""
    path = loaded.data_path
    if "://" in path or loaded.spec.prepare is not None:
        return
    where = _at(loaded, "data.path")
    if not (Path(path).exists() or globs.glob(path, recursive=True)):  # noqa: PTH207 - an absolute pattern
        if Path(loaded.spec.data.path).is_absolute():
            yield Finding(f"{where}: warning: there is no {path!r} on this machine.", error=False)
        else:
            yield Finding(f"{where}: there is no data at {path!r}. A relative path starts at the pipeline's folder.")
        return
    from airflow_provider_mlops.adapters.files import column_names

    try:
        columns = column_names(path)
    except MlopsError as error:
        yield Finding(f"{where}: {error}")
        return
    yield from _columns(loaded, columns)


def _columns(loaded: Loaded, columns: list[str]) -> Iterator[Finding]:
    from airflow_provider_mlops.pipeline.problems import dotted

    spec = loaded.spec
    wanted = {f"data.{key}": getattr(spec.data, key) for key in ("label", "timestamp", "entity")}
    wanted |= {f"data.columns[{i}]": name for i, name in enumerate(spec.data.columns or ())}
    wanted |= {f"validate.unique[{i}]": name for i, name in enumerate(spec.validation.unique)}
    for key in ("null_share", "ranges", "domains"):
        wanted |= {dotted(("validate", key, name)): name for name in getattr(spec.validation, key)}
    wanted |= {
        f"evaluate[{i}].{key}": getattr(rule, key) for i, rule in enumerate(spec.evaluate) for key in ("per", "column")
    }
    if spec.monitor is not None:
        drift = spec.monitor.drift
        wanted |= {f"monitor.drift.columns[{i}]": name for i, name in enumerate(drift.columns or ())}
        wanted |= {f"monitor.drift.exclude[{i}]": name for i, name in enumerate(drift.exclude)}
        wanted |= {"monitor.drift.segment": drift.segment}
        wanted |= {f"monitor.drift.text_columns[{i}]": name for i, name in enumerate(drift.text_columns or ())}
    for key, name in wanted.items():
        if name is not None and name not in columns:
            yield Finding(
                f"{_at(loaded, key)}: the data has no column {name!r}.{did_you_mean(name, columns)} "
                f"Columns: {', '.join(columns[:20])}{', ...' if len(columns) > 20 else ''}."
            )


def _rules(loaded: Loaded) -> Iterator[Finding]:
    """Check the rules' metrics. A function of the user's own is not imported."""
    from airflow_provider_mlops.evaluation import Rule
    from airflow_provider_mlops.evaluation.gate import check_rules
    from airflow_provider_mlops.evaluation.metrics import METRICS

    possible: dict[str, list[int]] = {}
    for i, rule in enumerate(loaded.spec.evaluate):
        if ":" in rule.metric:
            continue
        tasks = METRICS[rule.metric].tasks if rule.metric in METRICS else ("binary",)
        for task in tasks:
            possible.setdefault(task, []).append(i)
        try:
            check_rules([Rule(**rule.model_dump())], task=tasks[0])
        except ConfigError as error:
            message = str(error).removeprefix("evaluate: ")
            yield Finding(f"{_at(loaded, f'evaluate[{i}].metric')}: {message}")
        yield from _direction(loaded, i)
        if tasks == ("ranking",) and loaded.spec.data.entity is None:
            yield Finding(
                f"{_at(loaded, f'evaluate[{i}].metric')}: {rule.metric} ranks the rows of a query against each other. "
                "Name its column: data.entity: COLUMN."
            )
    named = [i for i, rule in enumerate(loaded.spec.evaluate) if rule.metric in METRICS]
    if named and not any(set(named) <= set(found) for found in possible.values()):
        metrics = ", ".join(loaded.spec.evaluate[i].metric for i in named)
        yield Finding(f"{_at(loaded, 'evaluate')}: no kind of label has all of these metrics: {metrics}.")
    yield from _nothing_asked(loaded)


def _nothing_asked(loaded: Loaded) -> Iterator[Finding]:
    """Tell of rules that will refuse every first model, or every one after it, as ``no_rule``."""
    from airflow_provider_mlops.evaluation.fairness import GAPS
    from airflow_provider_mlops.evaluation.gate import BUDGETS
    from airflow_provider_mlops.evaluation.importance import IMPORTANCE_SHARE

    other = {*GAPS, *BUDGETS, IMPORTANCE_SHARE}
    quality = [rule for rule in loaded.spec.evaluate if rule.metric not in other]
    where = f"{_at(loaded, 'evaluate')}: warning:"
    if all(rule.at_least is None and rule.at_most is None for rule in quality):
        yield Finding(
            f"{where} no rule limits a metric itself, so the first model will be refused (no_rule). Give a rule "
            "at_least or at_most.",
            error=False,
        )
    if all(rule.per is not None for rule in quality):
        yield Finding(
            f"{where} no rule looks at a metric of the whole evaluation set, so once there is a champion every "
            "candidate will be refused (no_rule). Write one without per.",
            error=False,
        )


def _direction(loaded: Loaded, i: int) -> Iterator[Finding]:
    """Tell of a rule whose only limit asks for a bad model."""
    from airflow_provider_mlops.evaluation.metrics import METRICS

    rule = loaded.spec.evaluate[i]
    metric = METRICS.get(rule.metric)
    if metric is None:
        return
    wrong, right = ("at_most", "at_least") if metric.higher_is_better else ("at_least", "at_most")
    if getattr(rule, wrong) is not None and getattr(rule, right) is None:
        better = "more" if metric.higher_is_better else "less"
        yield Finding(
            f"{_at(loaded, f'evaluate[{i}].{wrong}')}: warning: of {rule.metric} {better} is better, so {wrong} lets "
            f"bad models pass. Write {right}.",
            error=False,
        )
