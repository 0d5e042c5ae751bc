"""The core, and all that runs outside of a task, works where there is no Airflow."""

from __future__ import annotations

import json
import subprocess
import sys

ROOMS = (
    "adapters", "data", "drift", "errors", "evaluation", "jobs", "journal", "pipeline", "promotion", "retraining",
    "rollout", "serving", "validation",
)  # fmt: skip
CORE = tuple(room for room in ROOMS if room not in {"adapters", "serving"})

SCRIPT = """
import importlib, importlib.abc, json, pkgutil, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"airflow", "mlflow"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
import airflow_provider_mlops as package
rooms, core = json.loads(sys.argv[1]), json.loads(sys.argv[2])
imported = []
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.split(".")[1] in rooms and not module.name.endswith("__main__"):
        imported.append(module.name)
def load(names):
    for name in names:
        importlib.import_module(name)
load(name for name in imported if name.split(".")[1] in core)
after_core = sorted({name.partition(".")[0] for name in sys.modules})
load(imported)
print(json.dumps({"imported": imported, "core": after_core}))
"""
HEAVY = {"pandas", "sklearn", "great_expectations", "dvc", "kubernetes", "docker", "scipy.stats", "sqlalchemy", "httpx"}


def test_every_room_but_the_surface_is_imported_without_airflow_and_mlflow():
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(ROOMS), json.dumps(CORE)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert {name.split(".")[1] for name in found["imported"]} == set(ROOMS)
    assert len(found["imported"]) > 60
    assert not HEAVY & set(found["core"])


NO_PANDAS = """
import importlib.abc, json, sys
from pathlib import Path

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())
import pyarrow as pa, pyarrow.parquet as pq
from airflow_provider_mlops.adapters.predictions import read_predictions

file = Path(sys.argv[1])
pq.write_table(pa.table({"label": [2**53, 2**53 + 1, None], "candidate": [1.0, 2.0, 3.0], "who": ["a", None, "b"]}), file)
summary = {"label": "label", "keep": ["who"], "models": {"candidate": {"type": "values", "inputs": {}}}}
file.with_suffix(".json").write_text(json.dumps(summary))
found = read_predictions(file)
print(found.label.tolist(), found.slices["who"].tolist())
"""


def test_a_task_reads_what_a_job_has_scored_without_pandas(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", NO_PANDAS, str(tmp_path / "scores.parquet")], capture_output=True, text=True
    )
    assert (ended.stdout, ended.stderr) == ("[9007199254740992, 9007199254740993, None] ['a', None, 'b']\n", "")
