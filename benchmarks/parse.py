"""
What does this package cost the dag-processor, which imports it and reads every pipeline file again and again?

    python benchmarks/parse.py

CPU seconds of the process itself: building the DAGs of 200 pipeline files, importing each module that a DAG file may
name, and starting the console script. Beside it DAG files written by hand of as many PythonOperators. Writes
``benchmarks/results/parse.json``.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import cpu_seconds, goal, quantile, table, write

FILES = 200
REPEATS = 5
HEAVY = (
    *("mlflow", "pandas", "numpy", "scipy", "pyarrow", "sklearn", "great_expectations", "dvc", "kubernetes", "docker"),
    *("polars", "matplotlib", "torch", "fsspec", "sqlalchemy.orm"),
)
TEMPLATE = Path(__file__).parents[1] / "dags" / "rain_forecast.yaml"
SMALL = """\
mlops: 1
name: {name}
data: {{path: data/rain/, label: rain}}
train: {{script: train.py}}
evaluate: [{{metric: roc_auc, at_least: 0.6}}]
"""
STUB = """\
from airflow_provider_mlops.factory import load_dags

DAGS = load_dags(__file__)
"""
BY_HAND = """\
from datetime import datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup


def step(**context):
    return 1


DAGS = []
for dag_id, count in (("{name}__train", {train}), ("{name}__monitor", {monitor})):
    with DAG(
        dag_id,
        schedule=None,
        start_date=datetime(2024, 1, 1),
        catchup=False,
        params={{"as_of": Param(None, type=["null", "string"]), "learning_rate": Param(0.1, type="number")}},
        default_args={{"retries": 2, "retry_delay": timedelta(seconds=10)}},
    ) as dag:
        before = None
        with TaskGroup("steps"):
            for number in range(count):
                task = PythonOperator(task_id=f"step_{{number}}", python_callable=step)
                if before is not None:
                    before >> task
                before = task
    DAGS.append(dag)
"""
IMPORT = """\
import json, resource, sys

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

import airflow.sdk, airflow.triggers.base
known, before = set(sys.modules), cpu()
import {module}
after = cpu()
new = set(sys.modules) - known
heavy = sorted(name for name in {heavy} if name in new)
print(json.dumps({{"base": before, "cpu": after - before, "modules": len(new), "heavy": heavy}}))
"""


def run_file(file):
    """Execute a DAG file as Airflow does and return its DAGs and the CPU seconds."""
    before = cpu_seconds()
    specification = importlib.util.spec_from_file_location(f"unusual_prefix_{file.stem}", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.DAGS, cpu_seconds() - before


def run_files(files):
    """Return CPU milliseconds per file after one warm-up, and how many DAGs and tasks a file has."""
    dags, warm_up = run_file(files[0])
    costs = [run_file(file)[1] * 1000 for file in files]
    return {
        "files": len(files),
        "dags_per_file": len(dags),
        "tasks_per_file": sum(len(dag.tasks) for dag in dags),
        "first_file_ms": round(warm_up * 1000, 2),
        "median_ms": round(statistics.median(costs), 2),
        "p95_ms": round(quantile(costs, 0.95), 2),
    }


def in_a_fork(function, *arguments):
    """Return what *function* returns in a process forked from this one, as the dag-processor forks one per file."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def cost_of(file):
    return run_file(file)[1] * 1000


def tasks_of(file):
    return [len(dag.tasks) for dag in run_file(file)[0]]


def parsing(folder):
    """Return the rows about parsing; runs in a process of its own, which has the DAGs folder in its configuration."""
    import_module("airflow.dag_processing.manager")  # what the dag-processor has loaded before it forks

    full, small = ([folder / kind / f"{kind}_{number:03}.py" for number in range(FILES)] for kind in ("full", "small"))
    made = [("our template, 2 DAGs", full), ("our smallest file", small)]
    made.append(("by hand, PythonOperator", write_by_hand(folder, full[0])))
    forks = [(what, statistics.median(in_a_fork(cost_of, file) for file in files[:9])) for what, files in made]
    return [
        {"what": what, **run_files(files), "alone_in_a_fork_ms": round(fork, 1)}
        for (what, files), (_, fork) in zip(made, forks, strict=True)
    ]


def write_by_hand(folder, ours):
    """Write as many DAG files by hand, with as many DAGs and tasks as *ours*, and return them."""
    train, monitor = in_a_fork(tasks_of, ours)
    files = [folder / "by_hand" / f"by_hand_{number:03}.py" for number in range(FILES)]
    files[0].parent.mkdir()
    for file in files:
        file.write_text(BY_HAND.format(name=file.stem, train=train, monitor=monitor))
    return files


def write_pipelines(folder):
    for kind in ("full", "small"):
        (folder / kind).mkdir()
        (folder / kind / "train.py").write_text("import mlflow\n")
        for number in range(FILES):
            name = f"{kind}_{number:03}"
            text = (
                TEMPLATE.read_text()
                .replace("name: rain_forecast", f"name: {name}")
                .replace("rain_forecast_train.py", "train.py")
                if kind == "full"
                else SMALL.format(name=name)
            )
            (folder / kind / f"{name}.yaml").write_text(text)
            (folder / kind / f"{name}.py").write_text(STUB)


def surface():
    """Return the modules that a DAG file, or Airflow itself, imports."""
    import airflow_provider_mlops as package

    rooms = ("operators", "sensors", "decorators", "triggers", "hooks", "factory", "links", "get_provider_info")
    found = []
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if info.name.rpartition(".")[2] in rooms:
            found.append(info.name)
            if info.ispkg:
                path = [str(Path(package.__path__[0]) / info.name.rpartition(".")[2])]
                found += [below.name for below in pkgutil.iter_modules(path, f"{info.name}.")]
    return found


def imported(module, environment):
    """Return what importing *module* costs over Airflow's own, each time in a fresh process."""
    code = IMPORT.format(module=module, heavy=HEAVY)
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
        )
        for _ in range(REPEATS)
    ]
    return {
        "import": module,
        "cpu_seconds": round(statistics.median(run["cpu"] for run in runs), 4),
        "over_airflow_sdk_of": round(statistics.median(run["base"] for run in runs), 3),
        "modules": runs[0]["modules"],
        "heavy": runs[0]["heavy"],
    }


def console_script(environment):
    """Return the CPU seconds of ``mlops --version``."""
    command = [str(Path(sys.executable).parent / "mlops"), "--version"]
    costs = []
    for _ in range(REPEATS):
        before = os.times()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        after = os.times()
        costs.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return {"command": "mlops --version", "cpu_seconds": round(statistics.median(costs), 3)}


def main():
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "dags").mkdir()
        write_pipelines(folder / "dags")
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import json, pathlib, parse; "
        code += f"rows = parse.parsing(pathlib.Path({str(folder / 'dags')!r})); print(json.dumps(rows))"
        answer = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE)
        files = json.loads(answer.stdout.splitlines()[-1])
        imports = [imported(module, environment) for module in surface()]
        by_hand = imported("airflow.providers.standard.operators.python", environment)
        script = console_script(environment)
    table(files, ["what", "tasks_per_file", "median_ms", "p95_ms", "first_file_ms", "alone_in_a_fork_ms"])
    table([*imports, by_hand], ["import", "cpu_seconds", "modules", "heavy"])
    table([script], ["command", "cpu_seconds"])
    worst = max(imports, key=lambda row: row["cpu_seconds"])
    heavy = sorted({name for row in imports for name in row["heavy"]})
    full = files[0]
    goals = [
        goal("DAGs of one pipeline file, CPU ms, median", "<= 20", full["median_ms"], full["median_ms"] <= 20),
        goal("DAGs of one pipeline file, CPU ms, p95", "<= 20", full["p95_ms"], full["p95_ms"] <= 20),
        goal(
            f"import of the dearest module ({worst['import'].partition('.')[2]}) over airflow.sdk, CPU s",
            "<= 0.15",
            worst["cpu_seconds"],
            worst["cpu_seconds"] <= 0.15,
        ),
        goal("heavy modules that an import loads", "none", ", ".join(heavy) or "none", not heavy),
        goal("mlops --version, CPU s", "< 0.5", script["cpu_seconds"], script["cpu_seconds"] < 0.5),
    ]
    return write("parse", goals, [*files, *imports, by_hand, script])


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)
