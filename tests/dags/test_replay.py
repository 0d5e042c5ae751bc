"""`mlops replay`: a version is trained again from its record, for real, and every missing piece is named."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import training_scripts

from airflow_provider_mlops.adapters.mlflow import MlflowRegistry, MlflowTracking
from airflow_provider_mlops.adapters.snapshots import SnapshotStore
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.jobs.record import ENVIRONMENT_PATH, REPLAY_TAG
from airflow_provider_mlops.operators.model import RegisterModelOperator
from airflow_provider_mlops.operators.training import TrainOperator

pytestmark = pytest.mark.service("mlflow")

# Not the same from one run to the next, but for what is taken by the seed.
SCRIPT = training_scripts.GOOD.replace(
    "with mlflow.start_run():\n",
    "import random\nrandom.seed(int(os.environ['MLOPS_SEED']))\n"
    "from luck.draw import draw\n"
    "with mlflow.start_run():\n"
    "    mlflow.log_metric('draw', draw())\n"
    "    mlflow.log_metric('luck', random.SystemRandom().random())\n",
    # A skops file holds the time and addresses in memory, so its bytes are never the same; a pickle's are.
).replace("skops_trusted_types=[]", 'serialization_format="cloudpickle"')


@pytest.fixture(scope="module")
def trained(mlflow_server, tmp_path_factory):
    """A registered version, trained by the operator. Returns the storage folder and the MLflow run."""
    folder = tmp_path_factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__MLOPS__STORAGE", str(folder / "storage"))
        patch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
        training_scripts.rows(folder / "rows" / "rows.parquet")
        snapshot = SnapshotStore(folder / "storage").freeze(DataRef(str(folder / "rows"), label="y"))
        (folder / "train.py").write_text(SCRIPT)
        (folder / "luck").mkdir()
        (folder / "luck" / "draw.py").write_text("import random\n\ndef draw():\n    return random.random()\n")
        result = TrainOperator(
            task_id="train",
            experiment="replayed",
            script=str(folder / "train.py"),
            data_uri=snapshot.train.uri,
            data_digest=snapshot.train.digest,
            label_column="y",
            hyperparameters={"C": 0.5},
            seed=7,
        ).execute(context("train"))
        RegisterModelOperator(task_id="register", model="replayed", run_id=result["run_id"]).execute(
            context("register")
        )
    (folder / "train.py").unlink()  # from here on only the frozen copies are there
    shutil.rmtree(folder / "luck")
    return folder / "storage", MlflowTracking(mlflow_server).run(result["run_id"])


def context(task_id):
    ti = SimpleNamespace(dag_id="replayed__train", run_id="r1", task_id=task_id, map_index=-1, max_tries=0)
    return {"ti": ti}


@pytest.fixture
def replay(trained, mlflow_server, tmp_path, monkeypatch, capsys):
    """A function that replays on a copy of the storage, which it returns a way to spoil."""
    storage = tmp_path / "storage"
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))

    def run(*words, spoil=None):
        # The data lies where its address says; the rest is a copy.
        shutil.copytree(trained[0] / "code", storage / "code", dirs_exist_ok=True)
        monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(storage))
        logging.getLogger("airflow_provider_mlops").setLevel(logging.WARNING)
        if spoil is not None:
            spoil(storage)
        code = main(["replay", "replayed", "1", *words])
        return code, *capsys.readouterr()

    return run


def test_the_record_of_a_training_is_complete(trained, mlflow_server):
    tags = trained[1].tags
    assert tags["mlops.python_version"].count(".") == 2
    assert tags["mlops.environment_digest"].startswith("sha256:")
    assert (tags["mlops.script"], tags["mlops.label"], tags["mlops.seed"]) == ("train.py", "y", "7")
    listed = MlflowTracking(mlflow_server).read_text(trained[1].run_id, ENVIRONMENT_PATH)
    assert any(line.startswith("scikit-learn==") for line in listed.splitlines())


def test_metrics_and_bytes_are_the_same_and_nothing_is_registered(trained, replay, mlflow_server):
    code, out, err = replay("--ignore", "luck")
    assert code == 0, out + err
    assert "Environment: the same packages." in out
    assert "Every metric is equal within 1e-06. " in out
    assert "files are the same bytes." in out
    tracking = MlflowTracking(mlflow_server)
    (again,) = tracking.find_runs(trained[1].experiment_id, tags={REPLAY_TAG: trained[1].run_id})
    assert again.status == "FINISHED"
    assert again.metrics["accuracy"] == trained[1].metrics["accuracy"]
    registry = MlflowRegistry(mlflow_server)
    assert [version.version for version in registry.versions("replayed")] == ["1"]
    assert registry.version_of("replayed", alias="champion") is None


def test_a_metric_that_differs_is_a_finding(replay):
    code, out, _ = replay()
    assert code == 1
    assert [line.split()[0] for line in out.splitlines() if line.endswith("NO")] == ["luck"]
    assert "Not every metric is equal" in out


def spoiled(trained, path, replacement):
    """Return the frozen data's file after it was replaced, and a function that puts it back."""
    file = Path(trained[1].tags["mlops.data_uri"]) / path
    kept = file.read_bytes()
    file.chmod(0o600)
    file.unlink() if replacement is None else file.write_bytes(replacement)
    return lambda: file.write_bytes(kept)


@pytest.mark.parametrize(
    ("replacement", "says"), [(None, "cannot be read: No such file"), (b"other rows", "was changed: its digest is")]
)
def test_data_that_is_gone_or_changed_is_refused(trained, replay, replacement, says):
    restore = spoiled(trained, "part-0.parquet", replacement)
    try:
        code, _, err = replay()
    finally:
        restore()
    assert code == 2
    assert "mlops: error: The frozen data" in err
    assert says in err


def script(storage):
    (file,) = (storage / "code").glob("*/train.py")
    return file


def test_a_script_that_is_gone_or_changed_is_refused(replay):
    code, _, err = replay(spoil=lambda storage: script(storage).unlink())
    assert code == 2
    assert "mlops: error: The script that trained replayed version 1 is not at" in err
    code, _, err = replay(spoil=lambda storage: script(storage).write_text("print('mine')"))
    assert code == 2
    assert "train.py, or a module beside it, was changed: the digest is" in err


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_text("def draw():\n    return 0.5\n")])
def test_a_module_beside_the_script_that_is_gone_or_changed_is_refused(replay, spoil):
    code, _, err = replay(spoil=lambda storage: spoil(script(storage).parent / "luck" / "draw.py"))
    assert code == 2
    assert "train.py, or a module beside it, was changed: the digest is" in err


def test_an_interpreter_that_is_gone_is_named(replay):
    code, _, err = replay("--python", "/no/such/python")
    assert code == 2
    assert "mlops: error: The interpreter '/no/such/python' that trained replayed version 1" in err


def test_a_version_without_a_record_is_named(replay, mlflow_server):
    tracking = MlflowTracking(mlflow_server)
    run = tracking.create_run(tracking.experiment("by hand"), name="r", tags={"mlops.seed": "1"})
    MlflowRegistry(mlflow_server).create_version("handmade", run_id=run.run_id, source="s3://models/x", tags={})
    assert main(["replay", "handmade", "1"]) == 2


def test_an_unknown_version_is_named_with_its_neighbors(replay, capsys):
    assert main(["replay", "replayed", "9"]) == 2
    assert "Version '9' was not found. Model 'replayed'" in capsys.readouterr().err
