"""The scoring script, run as the job runs it: a process of its own, on models that MLflow saved."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import airflow_provider_mlops
from airflow_provider_mlops.adapters.predictions import read_anchor, read_importance, read_predictions, read_summary
from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.evaluation import Importance

SCRIPT = Path(airflow_provider_mlops.__file__).parent / "serving" / "score.py"
ROWS = 400

MODEL_CODE = """
import mlflow
from mlflow.pyfunc import PythonModel
from mlflow.models import set_model

class Short(PythonModel):
    def predict(self, context, model_input, params=None):
        return [0.5] * (len(model_input) - 1)

set_model(Short())
"""

SAYING_CODE = """
from mlflow.pyfunc import PythonModel
from mlflow.models import set_model

class Saying(PythonModel):
    def predict(self, context, model_input, params=None):
        return [ANSWER for a in model_input["a"]]

set_model(Saying())
"""

ANSWERS = {"said": "'yes' if a > 0 else 'no'", "chance": "0.9 if a > 0 else 0.1", "margin": "3.0 * a"}


def frame():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(ROWS, 2))
    label = (x[:, 0] + 0.5 * rng.normal(size=ROWS) > 0).astype(int)
    return pd.DataFrame(
        {
            "a": x[:, 0],
            "b": x[:, 1],
            "country": np.where(x[:, 1] > 0, "north", "south"),
            "at": pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC"),
            "label": label,
            "noise": rng.permutation(x[:, 0]),
            "word": np.where(label == 1, "yes", "no"),
            "query": np.arange(ROWS) // 8,
            "amount": 2 * x[:, 0] + 0.1 * rng.normal(size=ROWS),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Data and models, made once in a process of its own so that MLflow's warnings stay out of here."""
    home = tmp_path_factory.mktemp("score")
    (home / "data").mkdir()
    frame().set_axis(range(1000, 1000 + ROWS)).to_parquet(home / "data" / "part-0.parquet")
    (home / "few").mkdir()
    frame()[:20].to_parquet(home / "few" / "part-0.parquet")
    (home / "data" / "_complete.json").write_text("{}")
    (home / "short.py").write_text(MODEL_CODE)
    for name, answer in ANSWERS.items():
        (home / f"{name}.py").write_text(SAYING_CODE.replace("ANSWER", answer))
    make = """
import sys, mlflow, pandas as pd, numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from pathlib import Path
home = Path(sys.argv[1])
data = pd.read_parquet(home / "data" / "part-0.parquet")
inputs = data[["a", "b"]]
good = LogisticRegression().fit(inputs, data["label"])
mlflow.sklearn.save_model(good, home / "good", signature=infer_signature(inputs, good.predict(inputs)))
weak = LogisticRegression(C=0.001).fit(inputs, data["label"])
mlflow.sklearn.save_model(weak, home / "weak", signature=infer_signature(inputs, weak.predict_proba(inputs)),
                          pyfunc_predict_fn="predict_proba")
line = LinearRegression().fit(inputs, data["label"])
mlflow.sklearn.save_model(line, home / "line", signature=infer_signature(inputs, line.predict(inputs)))
leak = LogisticRegression().fit(data[["a", "label"]], data["label"])
mlflow.sklearn.save_model(leak, home / "leak", signature=infer_signature(data[["a", "label"]], leak.predict(data[["a", "label"]])))
other = inputs.rename(columns={"b": "gone"})
lost = LogisticRegression().fit(other, data["label"])
mlflow.sklearn.save_model(lost, home / "lost", signature=infer_signature(other, lost.predict(other)))
three = data[["a", "b", "noise"]]
driven = LogisticRegression().fit(three, data["label"])
mlflow.sklearn.save_model(driven, home / "driven", signature=infer_signature(three, driven.predict(three)))
line3 = LinearRegression().fit(three, data["amount"])
mlflow.sklearn.save_model(line3, home / "line3", signature=infer_signature(three, line3.predict(three)))
for name, answer in (("said", ["yes"]), ("chance", [0.1]), ("margin", [0.1])):
    mlflow.pyfunc.save_model(home / name, python_model=str(home / f"{name}.py"),
                             signature=infer_signature(three, np.array(answer)))
mlflow.pyfunc.save_model(home / "short", python_model=str(home / "short.py"))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", make, str(home)], check=True, capture_output=True, cwd=home)
    return home


def run(home, tmp_path, *models, data="data", label="label", keep=("country", "at"), more=()):
    output = tmp_path / "scores.parquet"
    command = [sys.executable, str(SCRIPT), "--data", str(home / data), "--label", label, "--output", str(output)]
    for model in models:
        command += ["--model", model]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # a job has one
    done = subprocess.run(
        [*command, "--keep", *keep, *more], capture_output=True, text=True, cwd=tmp_path, timeout=120, env=environment
    )
    return done, output


def test_a_classifier_that_answers_labels_is_asked_for_its_probabilities(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/good", f"champion={home}/weak", f"anchor={home}/weak")
    assert done.returncode == 0, done.stderr
    assert f"candidate: {ROWS} of {ROWS} rows" in done.stdout
    found = read_predictions(output, time="at")
    assert found.candidate.shape == (ROWS, 2)
    assert found.champion.shape == (ROWS, 2)
    assert found.classes == (0, 1)
    assert np.allclose(found.candidate.sum(axis=1), 1)
    assert found.label.tolist() == frame()["label"].tolist()
    assert list(found.slices) == ["country"]
    assert found.time.dtype.kind == "M"
    assert np.array_equal(read_anchor(output), found.champion)
    summary = read_summary(output)
    assert summary["models"]["candidate"]["inputs"] == {"a": "double", "b": "double"}
    cost = summary["models"]["candidate"]
    assert cost["size_bytes"] > 0
    assert 0 < cost["latency_ms"]["p50"] <= cost["latency_ms"]["p95"] <= cost["latency_ms"]["p99"]
    assert cost["memory_mib"] > 1
    assert summary["rows"] == ROWS


def test_a_regressor_gives_one_value_per_row(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/line")
    assert done.returncode == 0, done.stderr
    found = read_predictions(output, entity="country")
    assert found.candidate.shape == (ROWS,)
    assert found.champion is None
    assert found.champion_error is None
    assert found.entity[0] in {"north", "south"}
    assert read_anchor(output) is None


@pytest.mark.parametrize(
    ("champion", "text"),
    [
        pytest.param("nowhere", "No such|could not|not exist", id="that cannot be loaded"),
        pytest.param("short", "399 predictions for 400 rows|9 predictions", id="that predicts too few rows"),
        pytest.param("lost", "needs the columns 'gone'", id="that needs a column the data lacks"),
    ],
)
def test_the_candidate_is_scored_beside_a_champion(home, tmp_path, champion, text):
    done, output = run(home, tmp_path, f"candidate={home}/good", f"champion={home}/{champion}")
    assert done.returncode == 0, done.stderr
    found = read_predictions(output)
    assert found.champion is None
    assert found.champion_error
    assert re.search(text, found.champion_error)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"label": "labels"}, "no column 'labels'"),
        ({"data": "nothing"}, "cannot be read"),
        ({"models": ["candidate=HOME/leak"]}, "wants the label 'label' as an input"),
        ({"models": ["candidate=HOME/nowhere"]}, "candidate .* could not be scored"),
        ({"models": ["champion=HOME/good"]}, "give --model candidate=URI"),
        ({"models": ["country=HOME/good", "candidate=HOME/good"]}, "'country' has the name of the scores"),
    ],
)
def test_what_keeps_the_candidate_from_being_scored_is_said_and_nothing_is_written(home, tmp_path, change, text):
    change = dict(change)
    models = [model.replace("HOME", str(home)) for model in change.pop("models", [f"candidate={home}/good"])]
    done, _ = run(home, tmp_path, *models, **change)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert re.search(text, done.stderr)
    assert not list(tmp_path.iterdir())


MEASURED = [
    # id, model, label, more of the command line, loss
    ("probabilities", "driven", "label", (), "brier"),
    ("labels", "said", "word", (), "wrong_labels"),
    ("one score in 0..1", "chance", "label", (), "brier"),
    ("two classes on a scale of their own", "margin", "label", (), "rank_error"),
    ("values", "line3", "amount", (), "squared_error"),
    ("a ranking", "margin", "label", ("--group", "query"), "rank_error"),
]


@pytest.mark.parametrize(
    ("model", "label", "more", "loss"), [row[1:] for row in MEASURED], ids=[r[0] for r in MEASURED]
)
def test_the_column_that_drives_the_label_matters_and_shuffled_noise_does_not(home, tmp_path, model, label, more, loss):
    done, output = run(home, tmp_path, f"candidate={home}/{model}", label=label, more=("--importance", *more))
    assert done.returncode == 0, done.stderr
    assert "importance: 3 of 3 columns on 400 rows" in done.stdout
    found = read_importance(output)
    assert found.loss == loss
    assert (found.rows, found.repeats) == (ROWS, 10)
    assert found.columns["a"].low > 0
    assert found.shares["a"] > 0.85
    assert found.shares["noise"] < 0.05
    assert found.columns["noise"].low <= found.columns["noise"].drop <= found.columns["noise"].high
    assert {"country", "at", "query"} < set(found.not_inputs)
    assert label not in found.not_inputs


def test_importance_is_measured_per_slice_and_twice_the_same(home, tmp_path):
    ask = {"keep": ["at"], "more": ("--importance", "--per", "country")}
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done, output = run(home, tmp_path / name, f"candidate={home}/driven", f"champion={home}/weak", **ask)
        assert done.returncode == 0, done.stderr
        written.append(read_summary(output)["importance"])
        assert list(read_predictions(output, time="at").slices) == ["country"]
    assert written[0] == written[1]
    slices = read_importance(output).slices["country"]
    assert set(slices) == {"north", "south"}
    assert sum(part.rows for part in slices.values()) == ROWS
    assert all(part.shares["a"] > 0.8 for part in slices.values())


def test_shap_values_tell_the_column_that_moves_the_prediction(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/driven", more=("--shap",))
    assert done.returncode == 0, done.stderr
    assert "shap: 3 columns on 200 rows" in done.stdout
    found = read_importance(output)
    assert set(found.shap) == set(found.columns)
    assert found.shap["a"] > 5 * found.shap["noise"] >= 0


def test_shap_values_of_a_line_are_those_of_its_slope(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/line3", label="amount", more=("--shap",))
    assert done.returncode == 0, done.stderr
    a = frame()["a"]
    assert read_importance(output).shap["a"] == pytest.approx(2 * (a - a.mean()).abs().mean(), rel=0.1)


def test_shap_values_of_labels_are_not_measured_and_the_rest_is(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/said", label="word", more=("--shap",))
    assert done.returncode == 0, done.stderr
    assert "shap: not measured. The model predicts labels; SHAP values need numbers." in done.stdout
    assert read_importance(output).shap == {}
    assert read_importance(output).columns


def test_importance_that_cannot_be_measured_leaves_the_scores(home, tmp_path):
    done, output = run(home, tmp_path, f"candidate={home}/driven", label="word", more=("--importance",), data="few")
    assert done.returncode == 0, done.stderr
    assert "importance: not measured. 20 labeled rows are too few" in done.stdout
    assert read_importance(output) is None
    assert read_predictions(output).rows == 20


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"columns": None}, "cannot be read"),
        ({"rows": "many"}, "cannot be read"),
        ({"columns": {"a": {"drop": 1, "drop_low": 0}}}, "KeyError"),
        ({"columns": {"a": {"drop": float("nan"), "drop_low": 0, "drop_high": 1}}}, "no finite number"),
    ],
)
def test_an_importance_that_is_damaged_is_said(change, text):
    good = {"loss": "brier", "base": 0.1, "rows": 9, "repeats": 1, "columns": {}, "slices": {}, "not_inputs": []}
    assert Importance.from_dict(good).shares == {}
    with pytest.raises(DataError, match=text):
        Importance.from_dict({**good, **change})


def written(tmp_path, table, models, label="label", keep=()):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "scores.parquet"
    pq.write_table(pa.table(table), file)
    file.with_suffix(".json").write_text(json.dumps({"label": label, "keep": list(keep), "models": models}))
    return file


def test_models_that_know_different_classes_are_brought_onto_all_of_them(tmp_path):
    table = {"label": ["x"], "candidate_0": [0.4], "candidate_1": [0.6], "champion_0": [0.3], "champion_1": [0.7]}
    models = {
        "candidate": {"type": "probabilities", "classes": ["x", "y"]},
        "champion": {"type": "probabilities", "classes": ["x", "z"]},
    }
    found = read_predictions(written(tmp_path, table, models))
    assert found.classes == ("x", "y", "z")
    assert found.candidate.tolist() == [[0.4, 0.6, 0.0]]
    assert found.champion.tolist() == [[0.3, 0.0, 0.7]]


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path):
    table = {"label": [2**53, 2**53 + 1, None], "candidate": [2**53, 2**53, 2**53]}
    found = read_predictions(written(tmp_path, table, {"candidate": {"type": "values"}}))
    assert found.label.tolist() == [2**53, 2**53 + 1, None]


def test_classes_as_text_and_as_numbers_are_not_compared(tmp_path):
    table = {"label": [0], "candidate_0": [0.4], "candidate_1": [0.6], "champion_0": [0.3], "champion_1": [0.7]}
    models = {
        "candidate": {"type": "probabilities", "classes": [0, 1]},
        "champion": {"type": "probabilities", "classes": ["0", "1"]},
    }
    with pytest.raises(DataError, match=r"candidate: 0, 1; champion: '0', '1'"):
        read_predictions(written(tmp_path, table, models))


@pytest.mark.parametrize(
    ("models", "table", "text"),
    [
        ({"champion": {"type": "values"}}, {"label": [1]}, "no scores of a candidate"),
        ({"candidate": {"type": "values"}}, {"label": [1]}, "lack the column 'candidate'"),
        ({"candidate": {"type": "values"}}, {"labels": [1], "candidate": [1]}, "'label'.*Did you mean 'labels'"),
    ],
)
def test_scores_that_lack_something_are_refused(tmp_path, models, table, text):
    with pytest.raises(DataError, match=text):
        read_predictions(written(tmp_path, table, models))


def test_an_anchor_that_could_not_be_scored_is_not_left_out_unseen(tmp_path):
    models = {"candidate": {"type": "values"}, "anchor": {"error": "gone"}}
    with pytest.raises(DataError, match="anchor could not be scored"):
        read_anchor(written(tmp_path, {"label": [1], "candidate": [1]}, models))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (np.array(["2026-01-01", "2026-01-09", "2026-01-02", "NaT"], "datetime64[ns]"), [False, True, False, False]),
        (
            np.array(["2026-01-03", "2026-01-09", "2026-01-02", "2026-01-08"], "datetime64[D]"),
            [False, True, False, True],
        ),
        (np.array(["NaT"] * 4, "datetime64[us]"), None),
        (np.array([1.0, 2.0, 3.0, 4.0]), None),
    ],
    ids=["timestamps", "dates", "none", "no times"],
)
def test_the_newest_rows_are_those_of_the_last_window(tmp_path, times, expected):
    table = {"label": [0, 1, 0, 1], "at": times, "candidate": [0, 1, 0, 1]}
    file = written(tmp_path, table, {"candidate": {"type": "values"}}, keep=["at"])
    newest = read_predictions(file, time="at", newest=timedelta(days=6)).newest
    assert (newest is None) if expected is None else (newest.tolist() == expected)
    assert read_predictions(file, time="at").newest is None


def test_a_column_that_was_not_kept_is_named(tmp_path):
    file = written(tmp_path, {"label": [1], "candidate": [1]}, {"candidate": {"type": "values"}})
    with pytest.raises(DataError, match=r"time column 'at' was not kept.*--keep"):
        read_predictions(file, time="at")


@pytest.mark.parametrize(("text", "message"), [(None, "cannot be read"), ("{", "no JSON"), ("{}", "lacks 'label'")])
def test_a_summary_that_is_missing_or_damaged_is_said(tmp_path, text, message):
    if text is not None:
        (tmp_path / "scores.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_summary(tmp_path / "scores.parquet")


def test_scores_that_are_no_parquet_are_said(tmp_path):
    file = written(tmp_path, {"label": [1]}, {"candidate": {"type": "values"}})
    file.write_text("PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_predictions(file)
