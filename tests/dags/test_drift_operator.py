"""CheckDataDriftOperator on real files, a real journal, and for the champion a real MLflow server."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator
from airflow.sdk.definitions.asset import AssetUniqueKey
from airflow.sdk.exceptions import DownstreamTasksSkipped
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.drift.profile import DataProfile
from airflow_provider_mlops.errors import ConfigError, DataError, NotFoundError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.journal import model_stream, verify
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator, drift_asset
from fakes.model_server import served

START = datetime(2026, 1, 1)
KEYS = {
    "verdict", "reason", "sentence", "top_columns", "report_uri", "data_digest", "window_end", "variation", "run_id",
    "experiment_id",
}  # fmt: skip


def write(file, days, *, first=0, moved=False, drop=(), seed=0):
    random = np.random.default_rng(seed)
    count = days * 100
    table = pa.table(
        {
            "at": [START + timedelta(days=first, minutes=14 * i) for i in range(count)],
            "amount": random.normal(0.6 if moved else 0, 1, count),
            "steady": random.normal(0, 1, count),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.drop_columns(list(drop)), file)
    return str(file)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A stored reference profile of 100 days in blocks of 10, and later data."""
    folder = tmp_path_factory.mktemp("world")
    reference = write(folder / "reference.parquet", 100)
    profile = EmbeddedEngine().reference(DataRef(reference, timestamp="at"), block=timedelta(days=10))
    (folder / "profile.json").write_text(profile.to_json())
    return {
        "profile": str(folder / "profile.json"),
        "json": profile.to_json(),
        "quiet": write(folder / "quiet.parquet", 70, first=100, seed=1),
        "moved": write(folder / "moved.parquet", 70, first=100, moved=True, seed=2),
        "broken": write(folder / "broken.parquet", 70, first=100, drop=["steady"], seed=3),
        "few": write(folder / "few.parquet", 2, first=100, seed=4),
    }


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    return tmp_path / "storage"


class TaskInstance(SimpleNamespace):
    """What operators use of a running task instance."""

    def __init__(self):
        super().__init__(dag_id="watch", run_id="run1", task_id="check", map_index=-1, pushed={})

    def xcom_push(self, key, value):
        self.pushed[key] = value


def context():
    return {"ti": TaskInstance(), "outlet_events": OutletEventAccessors()}


def operator(world, on="moved", **options):
    arguments = {
        "task_id": "check",
        "model": "churn",
        "reference_profile": world["profile"],
        "data": {"path": world[on], "timestamp": "at"},
        "false_alarms_per_30_days": 0.3,
    }
    return CheckDataDriftOperator(**{**arguments, **options})


def entries(model="churn"):
    return JournalHook().journal.read(model_stream(model))


def of(uri):
    return Path(unquote(urlsplit(uri).path))


@pytest.mark.parametrize(
    ("data", "verdict", "kinds"),
    [
        ("moved", "drift", ["drift.checked"]),
        ("quiet", "no_drift", ["drift.checked"]),
        ("broken", "bad_data", ["drift.checked", "data.quarantined"]),
        ("few", "insufficient", ["drift.checked"]),
    ],
)
def test_every_verdict_is_returned_journaled_and_reported(world, data, verdict, kinds):
    found = operator(world, data).execute(context())
    assert set(found) == KEYS
    assert found["verdict"] == verdict
    assert len(json.dumps(found)) < 1024
    written = entries()
    assert [entry.record.kind for entry in written] == kinds
    assert verify(written) == []
    payload = written[0].record.payload
    assert payload["verdict"] == verdict
    assert payload["window"] == payload["numbers"]["data_digest"] == found["data_digest"]
    assert payload["report_uri"] == found["report_uri"]
    assert written[0].record.actor == "airflow: watch run1 check"
    report = of(found["report_uri"])
    assert report.read_text().startswith("<!doctype html>")
    assert json.loads(report.with_name("report.json").read_text())["verdict"] == verdict


def test_drift_names_the_column_and_the_span(world):
    found = operator(world).execute(context())
    assert found["top_columns"] == ["amount"]
    assert found["variation"] == "known"
    assert found["data_digest"].startswith("sha256:")
    assert "'amount' moved by 0." in found["sentence"]
    payload = entries()[0].record.payload
    assert payload["columns"] == ["amount"]
    assert payload["numbers"]["window_start"].startswith("2026-04-11")
    assert payload["numbers"]["window_end"] == found["window_end"]


def test_quarantined_data_is_named_in_the_journal(world):
    found = operator(world, "broken").execute(context())
    payload = entries()[1].record.payload
    assert payload["data_digest"] == found["data_digest"]
    assert payload["reason"] == "missing_column"
    assert payload["columns"] == ["steady"]


@pytest.mark.parametrize("data", ["moved", "broken"])
def test_a_retry_writes_nothing_twice(world, data, storage):
    first = operator(world, data).execute(context())
    before = (entries(), sorted(storage.rglob("*")), of(first["report_uri"]).read_text())
    assert operator(world, data).execute(context()) == first
    assert (entries(), sorted(storage.rglob("*")), of(first["report_uri"]).read_text()) == before


def test_other_data_is_another_record_and_another_report(world):
    first = operator(world, "moved").execute(context())
    second = operator(world, "quiet").execute(context())
    assert first["report_uri"] != second["report_uri"]
    assert len(entries()) == 2
    assert "Earlier checks" in of(second["report_uri"]).read_text()


def test_another_policy_is_another_record(world):
    operator(world).execute(context())
    found = operator(world, ignore_shift_below=0.9).execute(context())
    assert found["verdict"] == "no_drift"
    assert len(entries()) == 2


def test_the_reports_lie_below_the_storage_and_leave_no_half_written_file(world, storage):
    found = operator(world, model="a/b").execute(context())
    report = of(found["report_uri"])
    assert report.parent.parent == storage / "reports" / "a%2Fb"
    assert sorted(file.name for file in report.parent.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("model", ["..", "../../outside", "/outside"])
def test_a_models_name_cannot_lead_out_of_the_folder(world, storage, model):
    found = operator(world, model=model).execute(context())
    assert (storage / "reports").resolve() in of(found["report_uri"]).resolve().parents


def test_reports_go_where_the_folder_says(world, tmp_path):
    found = operator(world, report_folder=str(tmp_path / "elsewhere")).execute(context())
    assert (tmp_path / "elsewhere" / "churn") in of(found["report_uri"]).parents


def test_reports_may_go_to_an_object_store(world):
    import fsspec

    found = operator(world, report_folder="memory://reports").execute(context())
    assert found["report_uri"].startswith("memory://reports/churn/")
    with fsspec.open(found["report_uri"], "rt") as stream:
        assert stream.read().startswith("<!doctype html>")


def test_the_window_ends_with_the_newest_row(world):
    found = operator(world, window="10d").execute(context())
    numbers = entries()[0].record.payload["numbers"]
    assert numbers["rows"]["current"] == 1029  # a row every 14 minutes, both ends of ten days
    newest = START + timedelta(days=100, minutes=14 * 6999)
    assert datetime.fromisoformat(found["window_end"]).replace(tzinfo=None) == newest + timedelta(microseconds=1)


def test_the_window_ends_where_as_of_says(world):
    found = operator(world, window="20d", as_of="2026-05-01T00:00:00+00:00").execute(context())
    assert found["window_end"] == "2026-05-01T00:00:00+00:00"
    numbers = entries()[0].record.payload["numbers"]
    assert numbers["window_start"] == "2026-04-11T00:00:00+00:00"


def test_a_window_without_rows_is_no_data(world):
    found = operator(world, window="20d", as_of="2030-01-01").execute(context())
    assert (found["verdict"], found["reason"]) == ("no_data", "empty_window")


def test_excluded_columns_and_chosen_columns_are_not_judged(world):
    assert operator(world, exclude=["amount"]).execute(context())["verdict"] == "no_drift"
    data = {"path": world["moved"], "timestamp": "at", "columns": ["steady"]}
    assert operator(world, data=data).execute(context())["verdict"] == "no_drift"


def test_label_and_entity_are_never_judged(world):
    data = {"path": world["moved"], "timestamp": "at", "label": "amount", "entity": "customer"}
    found = operator(world, data=data).execute(context())
    assert (found["verdict"], found["top_columns"]) == ("no_drift", [])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"as_of": "2026-01-01"}, ConfigError, "as_of: says where the window ends, and there is none"),
        ({"window": "20d", "as_of": "yesterday"}, ConfigError, "as_of: 'yesterday' is no time"),
        ({"window": "20"}, ConfigError, "'20' is no duration"),
        ({"data": {}}, ConfigError, "'path' is missing"),
        ({"data": None}, ConfigError, "data: say where the data to judge is, or name .* served_by"),
        ({"served_by": "http://localhost:1"}, ConfigError, "data: goes without served_by"),
        ({"served_by": "http://localhost:1", "data": None, "trailing": "7d"}, ConfigError, "trailing: goes without"),
        ({"trailing": "7d"}, ConfigError, "trailing: is the time before the window, and there is none"),
        ({"max_rows": 10, "data": {"table": "t", "conn_id": "db"}}, ConfigError, "max_rows: a database counts all"),
        ({"data": {"path": "x", "timestmp": "at"}}, ConfigError, "Did you mean 'timestamp'"),
        ({"data": {"path": "/nothing/here.parquet"}}, DataError, "/nothing/here.parquet"),
        ({"reference_profile": "/nothing/here.json"}, ConfigError, "/nothing/here.json cannot be read"),
        ({"ignore_shift_below": 5.0}, ConfigError, "ignore_shift_below"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(world, storage, options, error, message):
    with pytest.raises(error, match=message):
        operator(world, **options).execute(context())
    assert not storage.exists()


def test_a_sudden_change_is_told_from_a_gradual_one(world):
    found = operator(world, window="10d", trailing="20d").execute(context())
    report = json.loads(of(found["report_uri"]).with_name("report.json").read_text())
    assert report["columns"]["amount"]["numbers"]["change"] == "gradual"
    alone = operator(world, window="10d").execute(context())
    assert alone["report_uri"] != found["report_uri"]
    assert json.loads(of(alone["report_uri"]).with_name("report.json").read_text())["tests"] == report["tests"] / 2


def test_of_large_files_a_part_is_read(world, tmp_path):
    pq.write_table(pq.read_table(world["moved"]), tmp_path / "large.parquet", row_group_size=500)
    data = {"path": str(tmp_path / "large.parquet"), "timestamp": "at"}
    found = operator(world, data=data, max_rows=1).execute(context())
    rows = json.loads(of(found["report_uri"]).with_name("report.json").read_text())["rows"]
    assert found["verdict"] == "drift"
    assert rows["current"] < rows["current_of"] == 7000
    assert f"{rows['current']:,} of 7,000 rows were read." in found["sentence"]


def test_the_traffic_of_all_replicas_is_judged(world):
    layout = DataProfile.from_json(world["json"])
    counted = EmbeddedEngine().window(DataRef(world["moved"], timestamp="at"), layout=layout)
    with served(counted.to_json()) as first, served(counted.to_json()) as second:
        found = operator(world, data=None, served_by=[first, second]).execute(context())
        alone = operator(world, data=None, served_by=first).execute(context())
    assert (found["verdict"], found["top_columns"]) == (alone["verdict"], alone["top_columns"]) == ("drift", ["amount"])
    rows = [entry.record.payload["numbers"]["rows"]["current"] for entry in entries()]
    assert rows == [14_000, 7000]


# Events and skipping


def events_of(context):
    return context["outlet_events"][AssetAlias("mlops-drift")].asset_alias_events


def test_drift_updates_the_asset_with_what_a_retraining_needs(world):
    ran = context()
    found = operator(world, asset=True).execute(ran)
    (event,) = events_of(ran)
    assert event.dest_asset_key == AssetUniqueKey.from_asset(Asset("mlops-drift://churn"))
    assert event.extra == {"report_uri": found["report_uri"], "top_columns": ["amount"]}
    assert drift_asset("churn") == Asset("mlops-drift://churn")


@pytest.mark.parametrize(("data", "asset"), [("quiet", True), ("broken", True), ("few", True), ("moved", False)])
def test_nothing_but_drift_updates_it_and_only_when_asked(world, data, asset):
    ran = context()
    operator(world, data, asset=asset).execute(ran)
    assert events_of(ran) == []


def test_the_outlet_is_an_alias_so_that_success_alone_is_no_event(world):
    assert operator(world, asset=True).outlets == [AssetAlias("mlops-drift")]
    assert operator(world).outlets == []


def with_followers(world, data, **options):
    with DAG("watch", schedule=None):
        check = operator(world, data, **options)
        tell = BaseOperator(task_id="tell")
        check >> [BaseOperator(task_id="train"), tell]
        tell >> BaseOperator(task_id="later")
    return check


def test_a_short_circuit_skips_what_follows_unless_there_is_drift(world):
    ran = context()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        with_followers(world, "quiet", short_circuit=True).execute(ran)
    assert sorted(skipped.value.tasks) == ["tell", "train"]
    assert ran["ti"].pushed["return_value"]["verdict"] == "no_drift"


def test_a_short_circuit_lets_drift_through(world):
    ran = context()
    assert with_followers(world, "moved", short_circuit=True).execute(ran)["verdict"] == "drift"
    assert ran["ti"].pushed == {}


def test_without_a_short_circuit_everything_follows(world):
    assert with_followers(world, "quiet").execute(context())["verdict"] == "no_drift"


def test_a_short_circuit_without_followers_has_nothing_to_skip(world):
    with DAG("watch", schedule=None):
        alone = operator(world, "quiet", short_circuit=True)
    assert alone.execute(context())["verdict"] == "no_drift"


# The champion


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DRIFT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    from airflow_provider_mlops.hooks.mlflow import MlflowHook

    return MlflowHook("mlflow_drift")


def champion(hook, model, profile):
    run = hook.tracking.create_run(hook.tracking.experiment(model), name="training", tags={})
    if profile is not None:
        hook.tracking.log_text(run.run_id, profile, "mlops/profile.json")
    version = hook.registry.create_version(model, run_id=run.run_id, source=f"{run.artifact_uri}/model", tags={})
    hook.registry.set_alias(model, alias="champion", version=version.version)
    return version


def test_the_champions_profile_is_the_reference_and_its_run_gets_the_report(world, mlflow):
    version = champion(mlflow, "drift_champion", world["json"])
    check = operator(world, model="drift_champion", reference_profile=None, mlflow_conn_id="mlflow_drift")
    found = check.execute(context())
    assert found["verdict"] == "drift"
    (entry,) = entries("drift_champion")
    assert entry.record.payload["numbers"]["model_version"] == version.version
    page = mlflow.tracking.read_text(version.run_id, "mlops/drift_report.html")
    assert page == of(found["report_uri"]).read_text()
    assert f"drift_champion, version {version.version}" in page
    assert (found["run_id"], found["experiment_id"]) == (
        version.run_id,
        mlflow.tracking.run(version.run_id).experiment_id,
    )


def test_a_model_without_champion_has_nothing_to_compare_with(world, mlflow, storage):
    check = operator(world, model="drift_nobody", reference_profile=None, mlflow_conn_id="mlflow_drift", asset=True)
    ran = context()
    found = check.execute(ran)
    assert set(found) == KEYS
    assert (found["verdict"], found["reason"]) == ("no_data", "no_champion")
    assert (found["report_uri"], found["top_columns"]) == (None, [])
    assert entries("drift_nobody") == []
    assert events_of(ran) == []


def test_a_champion_without_profile_is_told_with_the_next_step(world, mlflow):
    champion(mlflow, "drift_bare", None)
    check = operator(world, model="drift_bare", reference_profile=None, mlflow_conn_id="mlflow_drift")
    with pytest.raises(NotFoundError, match=r"drift_bare 1.*no file mlops/profile\.json\. Train it with TrainOperator"):
        check.execute(context())


# As a citizen of Airflow


def test_the_log_tells_the_verdict_the_columns_and_what_a_plain_test_would_have_cried(world, capsys):
    operator(world).execute(context())
    text = capsys.readouterr().out
    assert "1 of 2 columns drifted. 'amount' moved by" in text
    assert re.search(r"amount +drift +0\.", text)
    assert "A test per column at 0.05 that takes rows as independent would have alarmed over 1 of 2 columns" in text


def test_templates_are_rendered_in_all_that_says_where_and_when(world):
    check = operator(
        world,
        model="{{ name }}",
        data={"path": "{{ path }}", "timestamp": "at"},
        window="{{ days }}d",
        as_of="{{ end }}",
        exclude=["{{ name }}"],
        report_folder="/reports/{{ name }}",
        reference_profile="{{ path }}.json",
    )
    check.render_template_fields({"name": "churn", "path": "/data", "days": 7, "end": "2026-05-01"})
    assert (check.model, check.window, check.as_of) == ("churn", "7d", "2026-05-01")
    assert check.data == {"path": "/data", "timestamp": "at"}
    assert (check.exclude, check.report_folder) == (["churn"], "/reports/churn")
    assert check.reference_profile == "/data.json"


def test_the_dag_is_serialized_alike_every_time(world):
    def serialized():
        return json.dumps(DagSerialization.to_dict(with_followers(world, "quiet", asset=True).dag), sort_keys=True)

    assert serialized() == serialized()
    assert "mlops-drift" in serialized()


def test_it_can_be_mapped_over_models(world):
    with DAG("watch", schedule=None) as dag:
        CheckDataDriftOperator.partial(task_id="check", data={"path": "x"}).expand(model=["a", "b"])
    json.dumps(DagSerialization.to_dict(dag))
