"""
Runs one DAG in this process with ``dag.test`` and tells of each task.

``python -m airflow_provider_mlops.cli.trial_run FILE DAG_ID OUTCOME [LOG]``
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, JobFailedError, MlopsError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from airflow.sdk import DAG, BaseOperator, Context

__all__ = ["main"]

_TASKS = "airflow.task.operators."  # loggers of operators


def main(file: str, dag_id: str, outcome: str, log: str | None = None) -> int:
    """
    Run *dag_id* of the DAG file *file*, which keeps its DAGs in ``DAGS``; return 0 when the run came to its end.

    :param outcome: file that gets ``{"state", "tasks": {id: state}, "results": {id: what it returned}}``.
    :param log: file that gets all that Airflow and the libraries write, which else goes to the terminal.
    """
    terminal = _redirect(Path(log)) if log else sys.stdout
    import structlog
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    dag = _load(Path(file), dag_id)
    teller = _Teller(terminal)
    teller.listen(dag)
    if log:
        structlog.configure(processors=[teller.overhear, *structlog.get_config()["processors"]])
    run = dag.test()
    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id, key="return_value")
        found: list[Any] = list(session.scalars(query))
        results = {row.task_id: XComModel.deserialize_value(row) for row in found}
        tasks = {task.task_id: str(task.state) for task in run.get_task_instances(session=session)}
    told = {"state": str(run.state), "tasks": tasks, "results": results}
    Path(outcome).write_text(json.dumps(told, indent=2, default=str) + "\n")
    return 0


def _load(file: Path, dag_id: str) -> DAG:
    specification = importlib.util.spec_from_file_location(file.stem, file)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{file} is no Python file.")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found: DAG = next(dag for dag in module.DAGS if dag.dag_id == dag_id)
    return found


def _redirect(log: Path) -> IO[str]:
    """Let all that this process and its children write go to *log*; return the terminal."""
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    return terminal


class _Teller:
    """Tells a person at a terminal which task runs, what it says, and how it ends."""

    def __init__(self, terminal: IO[str]) -> None:
        self._terminal = terminal
        self._since: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print one line, or several."""
        print(text, file=self._terminal, flush=True)

    def listen(self, dag: DAG) -> None:
        """Let every task of *dag* call here."""
        for task in dag.tasks:
            task.retries = 0  # a trial that fails shall say so at once
            task.on_execute_callback = [self._begins]
            task.on_success_callback = [self._ends]
            task.on_skipped_callback = [self._ends]
            task.on_failure_callback = [self._fails]

    def overhear(self, logger: Any, _: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Repeat what the tasks themselves log. A processor of structlog."""
        if str(getattr(logger, "name", "")).startswith(_TASKS) and "exc_info" not in event:
            self.say(f"    {event.get('event')}")
        return event

    def _begins(self, context: Context) -> None:
        task = context["ti"].task_id
        self._since[task] = time.monotonic()
        self.say(task)

    def _ends(self, context: Context) -> None:
        task: BaseOperator = context["ti"].task
        seconds = time.monotonic() - self._since.get(task.task_id, time.monotonic())
        self.say(f"    {seconds:.1f} s")

    def _fails(self, context: Context) -> None:
        error = context.get("exception")
        if isinstance(error, KeyboardInterrupt):
            return
        if isinstance(error, JobFailedError):
            told = error.sentence  # the lines of its log were told as they came
        elif isinstance(error, MlopsError):
            told = str(error)
        elif isinstance(error, BaseException):
            told = "".join(traceback.format_exception(error))
        else:
            told = str(error)
        for line in told.rstrip().splitlines():
            self.say(f"    {line}")
        self._ends(context)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
