"""SnapshotDataOperator and ValidateDataOperator on real files, a real journal and a real MLflow."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization
from pyarrow import parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.errors import ConfigError, DataError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.operators.data import SnapshotDataOperator
from airflow_provider_mlops.operators.validation import ValidateDataOperator

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    return tmp_path / "storage"


@pytest.fixture
def rows(tmp_path):
    """A file of 100 days of hourly rows."""
    count = 2_400
    random = np.random.default_rng(5)
    table = pa.table(
        {
            "at": [START + dt.timedelta(hours=hour) for hour in range(count)],
            "amount": random.normal(0, 1, count),
            "country": ["NO", "SE", "DK"] * 800,
            "label": random.integers(0, 2, count),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


def context(**more):
    ti = SimpleNamespace(dag_id="rain__train", run_id="run1", task_id="validate", map_index=-1)
    return {"ti": ti, **more}


def snapshot(path, **options):
    data = {"path": path, "label": "label", "timestamp": "at"}
    return SnapshotDataOperator(task_id="snapshot", **{"data": data, **options}).execute(context())


def validate(path, **options):
    moment = options.pop("context", {})
    return ValidateDataOperator(task_id="validate", data_uri=path, **options).execute(context(**moment))


# -- snapshot --


def test_a_snapshot_returns_what_the_next_tasks_read(rows, storage):
    result = snapshot(rows, hold_out="20d", train_on="50d", as_of="2026-04-01T00:00:00Z", label_delay="2d")
    assert set(result) == {
        "train_uri", "train_digest", "train_rows", "evaluation_uri", "evaluation_digest", "evaluation_rows",
        "data_uri", "data_digest", "start", "end", "unlabeled",
    }  # fmt: skip
    assert result["train_rows"] == 50 * 24
    assert result["evaluation_rows"] == 20 * 24 + 1
    assert result["end"] == "2026-03-30T00:00:00+00:00"
    assert result["start"] == "2026-01-19T00:00:00+00:00"
    assert result["train_uri"] == f"{result['data_uri']}/train"
    assert result["data_uri"] == str(storage / "data" / result["data_digest"].removeprefix("sha256:"))
    assert len(json.dumps({**result, "train_uri": "", "evaluation_uri": "", "data_uri": ""})) < 600


def test_both_sides_are_read_through_the_snapshots_own_folder(rows):
    result = snapshot(rows)
    read = parquet.read_table(result["train_uri"]).num_rows + parquet.read_table(result["evaluation_uri"]).num_rows
    assert read == 2_400
    assert validate(result["data_uri"], contract={"min_rows": 2_400})["verdict"] == "valid"


@pytest.mark.parametrize("hold_out", ["20%", "0.2", 0.2])
def test_a_share_may_be_written_in_three_ways(rows, hold_out):
    assert snapshot(rows, hold_out=hold_out)["evaluation_rows"] == 480


def test_templates_that_render_to_nothing_ask_for_nothing(rows):
    assert snapshot(rows, as_of="", train_on="", label_delay="") == snapshot(rows)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"hold_out": "a fifth"}, r"'a fifth' is neither a share nor a duration\. Write \"20%\", 0\.2 or \"14d\""),
        ({"hold_out": "120%"}, r"must be between 0 and 1, got 1\.2"),
        ({"as_of": "yesterday"}, "as_of: 'yesterday' is no time. Write ISO 8601"),
        ({"train_on": "1 week"}, "'1 week' is no duration"),
        ({"data": {"path": "x", "lable": "y"}}, "'lable' is no key of a data reference. Did you mean 'table' or 'label'"),
        ({"data": {"path": "x", "dvc": {"repo": ".", "path": "x"}}}, "'path' and 'dvc' both say where the data is"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(rows, options, match):
    with pytest.raises(ConfigError, match=match):
        snapshot(rows, **options)


def test_the_log_tells_both_sides(rows, capsys):
    result = snapshot(rows)
    log = capsys.readouterr().out
    assert "train: 1,920 rows, at from 2026-01-01T00:00:00+00:00 to 2026-03-21T23:00:00+00:00" in log
    assert result["evaluation_digest"] in log


# -- contract --


def test_data_that_keeps_its_contract_is_valid(rows, capsys):
    contract = {
        "min_rows": 10,
        "unique": ["at"],
        "domains": {"country": ["NO", "SE", "DK"]},
        "null_share": {"amount": 0},
    }
    assert validate(rows, contract=contract) == {"verdict": "valid", "reason": "nothing_broken", "violations": 0}
    assert "keeps the contract." in capsys.readouterr().out


def test_every_broken_promise_is_listed_and_journaled_once(rows, mlflow_file, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps({"conn_type": "mlflow", "host": mlflow_file}))
    contract = {"min_rows": 9_999, "ranges": {"amount": [0, 1]}, "domains": {"country": ["NO"]}, "unique": ["country"]}
    options = {"contract": contract, "model": "rain", "data_digest": "sha256:ab", "mlflow_conn_id": "files"}
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            validate(rows, **options)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{rows} breaks 4 promises:"
    assert lines[1] == "  min_rows: 2,400 rows; at least 9,999 are needed."
    assert [line.split(":")[0].strip() for line in lines[1:5]] == ["min_rows", "duplicates", "domain", "out_of_range"]
    assert lines[-1].startswith("Mend the data, or change the contract")
    (entry,) = JournalHook().journal.read("model/rain")
    assert entry.record.kind == "data.quarantined"
    assert entry.record.payload["data_digest"] == "sha256:ab"
    assert entry.record.payload["reason"] == "min_rows"
    assert entry.record.payload["columns"] == ["country", "amount"]


def test_a_list_of_violations_is_cut(tmp_path):
    table = pa.table({f"c{index}": [None, 1] for index in range(30)})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"breaks 30 promises(?s:.*)and 10 more\.\nMend") as caught:
        validate(str(tmp_path / "x.parquet"), contract={"null_share": dict.fromkeys(table.column_names, 0)})
    assert len(str(caught.value).splitlines()) == 23


def test_skip_and_warn_do_not_fail(rows):
    broken = {"contract": {"min_rows": 9_999}}
    with pytest.raises(AirflowSkipException, match="is not used: 2,400 rows; at least 9,999 are needed"):
        validate(rows, if_invalid="skip", **broken)
    result = validate(rows, if_invalid="warn", **broken)
    assert result == {"verdict": "bad_data", "reason": "min_rows", "violations": 1}
    with pytest.raises(ConfigError, match=r"if_invalid: 'warm' is none of fail, skip, warn\. Did you mean 'warn'"):
        validate(rows, if_invalid="warm")


def test_freshness_counts_back_from_what_is_given(rows):
    fresh = {"contract": {"fresh_within": "2d"}, "timestamp_column": "at"}
    end = START + dt.timedelta(days=101)
    assert validate(rows, as_of="2026-04-11T23:00:00Z", **fresh)["verdict"] == "valid"
    assert validate(rows, context={"data_interval_end": end}, **fresh)["verdict"] == "valid"
    with pytest.raises(DataError, match=r"stale: The newest row is from 2026-04-10T23:00:00\+00:00"):
        validate(rows, as_of="2027-01-01", **fresh)
    with pytest.raises(ConfigError, match=r"fresh_within needs the column with the event time\. Set timestamp_column"):
        validate(rows, contract={"fresh_within": "2d"})


# -- the champion's profile --


@pytest.fixture
def champion(mlflow_file, monkeypatch, rows, request):
    """A model of its own name with a champion; returns the name."""
    monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps({"conn_type": "mlflow", "host": mlflow_file}))
    name = f"data_{request.node.name[:40]}".replace("[", "_").replace("]", "")
    hook = MlflowHook("files")
    experiment = hook.tracking.experiment(name)
    run = hook.tracking.create_run(experiment, name="r", tags={})
    profile = EmbeddedEngine().reference(DataRef(rows, label="label", timestamp="at"))

    def make(with_profile=True):
        if with_profile:
            hook.tracking.log_text(run.run_id, profile.to_json(), "mlops/profile.json")
        version = hook.registry.create_version(name, run_id=run.run_id, source=f"runs:/{run.run_id}/model", tags={})
        hook.registry.set_alias(name, alias="champion", version=version.version)
        return name

    return make


def test_the_champions_profile_is_held_against_the_data(champion, rows, tmp_path, capsys):
    options = {"model": champion(), "mlflow_conn_id": "files", "label_column": "label", "timestamp_column": "at"}
    assert validate(rows, contract={"min_rows": 1_000}, **options)["verdict"] == "valid"
    assert "keeps the champion's profile and the contract." in capsys.readouterr().out
    table = parquet.read_table(rows)
    parquet.write_table(table.append_column("new", table["amount"]), tmp_path / "more.parquet")
    assert validate(str(tmp_path / "more.parquet"), **options)["verdict"] == "valid"  # a new column may come
    parquet.write_table(table.drop_columns(["amount"]), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="missing_column: 'amount' is missing from the data"):
        validate(str(tmp_path / "less.parquet"), **options)
    (entry,) = JournalHook().journal.read(f"model/{options['model']}")
    assert entry.record.payload["data_digest"] == str(tmp_path / "less.parquet")  # without a digest, its place


def test_without_a_champion_or_its_profile_the_data_is_valid(champion, rows, capsys):
    assert validate(rows, model="unheard_of", mlflow_conn_id="files")["verdict"] == "valid"
    assert "was held against nothing." in capsys.readouterr().out
    name = champion(with_profile=False)
    assert validate(rows, model=name, mlflow_conn_id="files")["verdict"] == "valid"


# -- what needs an extra --


def test_data_in_dvc_is_resolved_before_the_rest(monkeypatch):
    monkeypatch.setitem(sys.modules, "dvc", None)
    data = {"dvc": {"repo": ".", "path": "rows.csv"}, "label": "y"}
    with pytest.raises(ConfigError, match="dvc is not installed"):
        SnapshotDataOperator(task_id="snapshot", data=data).execute(context())


def test_a_suite_is_looked_for_beside_the_dag(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    (tmp_path / "suite.json").write_text('{"expectations": [{"type": "expect_table_row_count_to_equal"}]}')
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    with pytest.raises(ConfigError, match="great_expectations is not installed"):
        validate(rows, suite="suite.json")
    with pytest.raises(ConfigError, match=r"'\.\./\.\./etc/passwd' is not below"):
        validate(rows, suite="../../etc/passwd")


# -- as Airflow sees them --


def test_they_render_their_templates_and_are_serialized():
    with DAG("rain__train", schedule=None) as dag:
        frozen = SnapshotDataOperator(
            task_id="snapshot", data={"path": "{{ params.path }}", "label": "y"}, hold_out="{{ params.hold_out }}"
        )
        ValidateDataOperator(task_id="validate", data_uri=frozen.output["data_uri"], contract={"min_rows": 1})
    frozen.render_template_fields({"params": {"path": "x.csv", "hold_out": "3d"}})
    assert (frozen.data["path"], frozen.hold_out) == ("x.csv", "3d")
    json.dumps(DagSerialization.to_dict(dag))


def test_importing_them_loads_nothing_heavy():
    heavy = "{'mlflow', 'pandas', 'pyarrow', 'numpy', 'great_expectations', 'dvc', 'sklearn'}"
    code = (
        "import sys, airflow.sdk; before = set(sys.modules); "
        "import airflow_provider_mlops.operators.data, airflow_provider_mlops.operators.validation; "
        f"print({heavy} & (set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
