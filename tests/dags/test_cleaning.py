"""`mlops clean`: old parts of the storage folder go, and nothing that somebody still needs."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import training_scripts

from airflow_provider_mlops.adapters.code import freeze_script
from airflow_provider_mlops.adapters.folders import remove
from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.adapters.mlflow import MlflowAddress, MlflowRegistry, MlflowTracking
from airflow_provider_mlops.adapters.snapshots import SnapshotStore
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.hooks.cleaning import clean
from airflow_provider_mlops.hooks.evaluation import EVALUATION_PATH
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.jobs import JobPhase, JobSpec
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads
from airflow_provider_mlops.serving import local
from airflow_provider_mlops.serving.processes import Served


class Place:
    """A storage folder with models that were trained in it, and the MLflow that knows them."""

    def __init__(self, folder, storage, address, name):
        self.folder, self.storage, self.name = folder, storage, name
        self.tracking, self.registry = MlflowTracking(address), MlflowRegistry(address)
        self.journal = JournalHook().journal
        self.experiment = self.tracking.experiment(name)

    def train(self, seed, *, alias=None, ends=True):
        """What a training leaves: a snapshot, code, a run, a version with its files. Returns version and paths."""
        training_scripts.rows(self.folder / f"rows-{seed}" / "rows.parquet", seed=seed)
        snapshot = SnapshotStore(self.storage).freeze(DataRef(str(self.folder / f"rows-{seed}"), label="y"))
        (self.folder / "train.py").write_text(f"# number {seed}\n")
        code = freeze_script(self.folder / "train.py", self.storage)
        tags = {"mlops.data_uri": snapshot.train.uri, "mlops.code_digest": code.digest}
        run = self.tracking.create_run(self.experiment, name=f"r{seed}", tags=tags)
        self.tell(kinds.TRAINING_STARTED, payloads.training_started(key=f"k{seed}", run_id=run.run_id))
        paths = {"data": Path(snapshot.train.uri).parent, "code": code.folder}
        if not ends:
            return None, paths
        self.tell(kinds.TRAINING_FINISHED, payloads.training_finished(key=f"k{seed}", run_id=run.run_id))
        judged = {"data_uri": snapshot.evaluation.uri, "train_uri": snapshot.train.uri}
        self.tracking.log_text(run.run_id, json.dumps(judged), EVALUATION_PATH)
        version = self.registry.create_version(self.name, run_id=run.run_id, source=run.artifact_uri, tags={}).version
        if alias:
            self.registry.set_alias(self.name, alias=alias, version=version)
        paths["models"] = self.storage / "models" / self.name / version
        paths["models"].mkdir(parents=True)
        (paths["models"] / "model.bin").write_bytes(bytes(1000))
        return version, paths

    def tell(self, kind, payload):
        append_next(self.journal, model_stream(self.name), Record(kind, datetime.now(UTC), "test", payload))

    def age(self, days=40):
        """Let everything look as if it had lain there for *days*."""
        then = time.time() - days * 86400
        for path in [*self.storage.rglob("*")]:
            os.utime(path, (then, then))


@pytest.fixture
def place(tmp_path, storage, mlflow_file, monkeypatch, request):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_file}))
    return Place(tmp_path, storage, MlflowAddress(mlflow_file), request.node.originalname[-40:])


def test_what_versions_in_use_need_stays_and_the_rest_goes(place, capsys):
    _, first = place.train(1)
    _, champion = place.train(2, alias="champion")
    _, challenger = place.train(3, alias="challenger")
    version, serving = place.train(4)
    local.want(place.storage / "serving", place.name, {version: (Served(version, "x", "python", None), 100)})
    _, unfinished = place.train(5, ends=False)
    for name in ("predictions/m/p.parquet", "reports/m/r/report.html", "prepared/j/rows.parquet", "functions/f/f.py"):
        (place.storage / name).parent.mkdir(parents=True)
        (place.storage / name).write_bytes(bytes(2048))
    place.age()
    _, fresh = place.train(6)
    before = {path for path in place.storage.rglob("*") if path.name != "lock"}

    assert main(["clean"]) == 0
    told = capsys.readouterr().out
    assert {path for path in place.storage.rglob("*") if path.name != "lock"} == before
    assert "old         2.0 KiB  1 in predictions\n" in told
    assert "can be freed. Nothing was removed: add --yes." in told
    assert f"{place.name} version 2 (champion)" in told
    assert f"{place.name} version 3 (challenger)" in told
    assert f"{place.name} version 4 (served)" in told
    assert f"a training of {place.name} that has not ended" in told

    assert main(["clean", "--older-than", "30d", "--yes"]) == 0
    assert "were freed in" in capsys.readouterr().out
    assert [path for path in first.values() if path.exists()] == []
    needed = [*champion.values(), *challenger.values(), *serving.values(), *unfinished.values(), *fresh.values()]
    assert [path for path in needed if not path.exists()] == []
    assert [*place.storage.glob("predictions/*/*"), *place.storage.glob("reports/*/*")] == []
    assert [*place.storage.glob("prepared/*"), *place.storage.glob("functions/*")] == []
    assert (place.storage / "journal.db").exists()
    assert (place.storage / "serving").exists()

    assert main(["clean", "--yes"]) == 0
    assert "older than 30d and needed by nobody" in capsys.readouterr().out


def test_what_is_frozen_again_is_no_longer_old(place):
    _, paths = place.train(1)
    place.age()
    assert {item.path for item in clean()} >= {paths["data"], paths["code"]}
    place.train(1)
    assert {item.path for item in clean()} & {paths["data"], paths["code"]} == set()


def test_a_job_that_runs_stays(place):
    backend = ProcessBackend(place.storage / "jobs", grace=timedelta(seconds=0))

    def wait_for(name):
        while not backend.status(name).phase.is_final:
            time.sleep(0.05)

    for name, code in (("ended", "pass"), ("runs", "import time; time.sleep(600)")):
        backend.submit(JobSpec(name, (sys.executable, "-c", code)))
    wait_for("ended")
    place.age()
    clean(delete=True)
    assert backend.status("ended").phase is JobPhase.UNKNOWN
    assert backend.status("runs").phase is JobPhase.RUNNING
    backend.cancel("runs")
    wait_for("runs")


def test_an_mlflow_that_does_not_know_the_champion_ends_it(place, capsys):
    _, paths = place.train(1)
    done = payloads.promotion_done(alias="champion", version="7", previous=None, token=1, rollback=False)
    place.tell(kinds.PROMOTION_DONE, done)
    place.age()
    assert main(["clean", "--yes"]) == 2
    assert "The journal says that version 7" in capsys.readouterr().err
    assert paths["data"].exists()


def test_an_mlflow_that_does_not_answer_ends_it(place, monkeypatch, capsys):
    _, paths = place.train(1)
    place.age()
    nobody = {"conn_type": "mlflow", "host": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(nobody))
    assert main(["clean", "--yes"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert paths["data"].exists()


def test_less_than_a_day_is_refused(place, capsys):
    assert main(["clean", "--older-than", "2h"]) == 2
    assert "Write 1d or more" in capsys.readouterr().err


def test_an_empty_storage_folder_has_nothing_to_clean(place, capsys):
    assert main(["clean", "--yes"]) == 0
    assert "needed by nobody" in capsys.readouterr().out


def test_what_a_killed_removal_left_goes_with_the_next(tmp_path):
    (tmp_path / ".removed-1" / "deep").mkdir(parents=True)
    (tmp_path / "old").mkdir()
    remove(tmp_path / "old")
    assert [*tmp_path.iterdir()] == []
    remove(tmp_path / "old")  # is gone already
