"""`mlops init`: both files or neither, and what was found."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_mlops.cli.init import stub
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.cli.script import read_script
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.pipeline import load

SCRIPT = """\
import os
import mlflow

with mlflow.start_run():
    data = os.environ["MLOPS_DATA_URI"]
    label = os.environ["MLOPS_LABEL"]
    mlflow.sklearn.log_model(model, name="model", pyfunc_predict_fn="predict_proba")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    days = pa.array(range(100), pa.timestamp("s"))
    columns = {"a": range(100), "rain": [i % 4 == 0 for i in range(100)], "kind": list("abcd") * 25, "at": days}
    pq.write_table(pa.table({**columns, "mm": [i / 7 for i in range(100)], "one": [1] * 100}), "rain.parquet")
    return tmp_path


def init(*more, name="rain", label="rain", script="train.py", data="rain.parquet"):
    return main(["init", name, "--data", data, "--label", label, "--script", script, *more])


def test_it_writes_a_pipeline_that_lints_and_its_stub(folder, capsys):
    assert init() == 0
    assert (folder / "rain.py").read_text() == (
        '"""DAGs of rain.yaml for Airflow."""\n'
        "from airflow_provider_mlops.factory import load_dags\n"
        "\n"
        "load_dags(__file__)  # rain.yaml -> DAGs rain__train, rain__monitor\n"
    )
    spec = load("rain.yaml").spec
    assert (spec.data.path, spec.data.label, spec.train.script) == ("rain.parquet", "rain", "train.py")
    capsys.readouterr()
    assert main(["lint", "."]) == 0
    assert capsys.readouterr().out == "1 pipeline, 0 errors, 0 warnings\n"


def test_it_says_what_it_found(folder, capsys):
    assert init("--timestamp", "at") == 0
    assert capsys.readouterr().out.splitlines() == [
        "wrote rain.yaml: DAG rain__train, and rain__monitor once it has `monitor:`",
        "wrote rain.py: the stub that Airflow reads",
        "train.py: logs a model (mlflow.sklearn.log_model, line 7)",
        "train.py: mlflow.start_run in line 4 continues the run that is made for it",
        "train.py: reads MLOPS_DATA_URI, MLOPS_LABEL",
        "rain.parquet: 100 rows, 6 columns",
        "rain.parquet: rain: 2 values (False 75.0%, True 25.0%)",
        "rain.parquet: at: 1970-01-01 00:00:00 .. 1970-01-01 00:01:39; the newest 20% judge, the rest trains",
        "next: mlops lint rain.yaml",
    ]


@pytest.mark.parametrize(
    ("label", "rule"),
    [("rain", ("roc_auc", 0.6)), ("kind", ("balanced_accuracy", 0.4)), ("mm", ("r2", 0.1))],
)
def test_the_rule_fits_the_label(folder, label, rule):
    init(label=label)
    first = load("rain.yaml").spec.evaluate[0]
    assert (first.metric, first.at_least) == rule


def test_paths_are_written_from_the_pipelines_folder(folder):
    (folder / "dags").mkdir()
    (folder / "train.py").rename("dags/train.py")
    assert init("--folder", "dags", script="dags/train.py") == 0
    spec = load("dags/rain.yaml").spec
    assert (spec.data.path, spec.train.script) == ("../rain.parquet", "train.py")
    assert main(["lint", "dags"]) == 0


MISTAKES = {
    "unknown label": ({"label": "rian"}, "rain.parquet: there is no column 'rian'. Did you mean 'rain'? Columns: a, rain, kind, at, mm, one."),
    "no row": ({"data": "header.csv"}, "header.csv: it has columns and no row."),
    "label of one value": ({"label": "one"}, "rain.parquet: 'one' has 1 value(s); nothing can be learned from it."),
    "no script": ({"script": "trian.py"}, "trian.py: there is no such file. Did you mean 'train.py'?"),
    "script outside": ({"script": "../train.py"}, "train.script: '../train.py' leaves the folder of the pipeline. Move the script into it."),
    "no folder": ({"more": ("--folder", "no")}, "no: there is no such folder. Make it first, inside Airflow's DAG folder."),
    "bad name": ({"name": "Rain"}, "name: expected 1 to 60 of the characters a-z, 0-9 and _, got 'Rain'. Write rain."),
    "name of the script": ({"name": "train"}, "train.py is the script, and the stub needs that name. Choose another name than 'train'."),
    "no Python": ({"script": "bad.py"}, "bad.py:1: not Python: '(' was never closed."),
    "unknown timestamp": ({"more": ("--timestamp", "att")}, "rain.parquet: there is no column 'att'. Did you mean 'at'? Columns: a, rain, kind, at, mm, one."),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_leaves_nothing_behind(folder, capsys, arguments, message):
    (folder / "bad.py").write_text("print(")
    (folder / "header.csv").write_text("a,rain\n")
    (folder.parent / "train.py").write_text(SCRIPT)
    before = sorted(folder.iterdir())
    assert init(*arguments.pop("more", ()), **arguments) == 2
    assert capsys.readouterr().err == f"mlops: error: {message}\n"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("there", ["rain.yaml", "rain.py"])
def test_a_file_that_exists_is_never_touched(folder, capsys, there):
    (folder / there).write_text("mine")
    assert init() == 2
    assert capsys.readouterr().err == (
        f"mlops: error: {there} exists already and was left as it is. Choose another name, or take it away.\n"
    )
    assert (folder / there).read_text() == "mine"
    assert len(list(folder.iterdir())) == 3


def test_the_stub_is_found_by_airflows_safe_mode():
    assert b"airflow" in stub("x").lower().encode()
    assert b"dag" in stub("x").lower().encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import mlflow\nmlflow.autolog()\n", {"logs_model": 2, "how": "mlflow.autolog"}),
        ("from mlflow.sklearn import log_model\nlog_model(m)\n", {"logs_model": 2, "how": "log_model"}),
        ("# mlflow.sklearn.log_model(m)\n", {"logs_model": 0, "how": ""}),
        ("mlflow.set_experiment('x')\n", {"sets_target": 1}),
        ("with mlflow.start_run() as run: pass\n", {"starts_run": 1}),
        (
            "x = os.getenv('MLOPS_SEED'), os.environ['MLOPS_DATA_URI']\n",
            {"variables": ("MLOPS_DATA_URI", "MLOPS_SEED")},
        ),
        ("m.predict_proba(x)\n", {"predicts_probabilities": True}),
        ("from airflow import DAG\n", {"looks_like_dag": True}),
        ("x = 1\n", {"looks_like_dag": False, "variables": (), "predicts_probabilities": False}),
    ],
)
def test_a_script_is_read_and_never_run(text, expected):
    report = read_script(text + "raise SystemExit\n", name="train.py")
    assert {key: getattr(report, key) for key in expected} == expected


@pytest.mark.parametrize("text", ["print(", "x = \x00", "(" * 5000])
def test_a_script_that_is_no_python_is_a_config_error(text):
    with pytest.raises(ConfigError, match=r"^train\.py:\d+: not Python: "):
        read_script(text, name="train.py")
