"""Runs one DAG in this process with ``dag.test`` and writes what its tasks returned into a file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from airflow_provider_mlops.errors import ConfigError

__all__ = ["main"]


def main(file: str, dag_id: str, output: str) -> int:
    """
    Run *dag_id* of the DAG file *file*, which keeps its DAGs in ``DAGS``; return 0 when the run came to its end.

    *output* gets ``{"state", "tasks": {id: state}, "results": {id: what it returned}}``.
    """
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    specification = importlib.util.spec_from_file_location(Path(file).stem, file)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{file} is no Python file.")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    dag = next(dag for dag in module.DAGS if dag.dag_id == dag_id)
    run = dag.test()
    with create_session() as session:
        query = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id, key="return_value")
        found: list[Any] = list(session.scalars(query))
        results = {row.task_id: XComModel.deserialize_value(row) for row in found}
        tasks = {task.task_id: str(task.state) for task in run.get_task_instances(session=session)}
    outcome = {"state": str(run.state), "tasks": tasks, "results": results}
    Path(output).write_text(json.dumps(outcome, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
