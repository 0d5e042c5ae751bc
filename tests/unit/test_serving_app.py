"""One version's server: MLflow's answers, and what is added to them."""

import asyncio
import io
import json
import re
import subprocess
import sys
import threading

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import served

from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.drift.profile import DataProfile
from airflow_provider_mlops.rollout.predictions import spread
from airflow_provider_mlops.serving.app import LiveProfile, Meter, build_app

ROWS = {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2], [3, 4]]}}
LAYOUT = choose_layout(pa.record_batch({"x": [float(k) for k in range(100)], "y": [float(k) for k in range(100)]}))


class Client:
    """Asks an app without a socket."""

    def __init__(self, app):
        self.app = app

    def request(self, method, path, **kwargs):
        async def ask():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as asker:
                return await asker.request(method, path, **kwargs)

        return asyncio.run(ask())

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **kwargs):
        return self.request("POST", path, **kwargs)


def client(model, **kwargs):
    return Client(build_app(model, name="sum", version="7", **kwargs))


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    import mlflow

    folder = tmp_path_factory.mktemp("models")

    def load(name, **kwargs):
        if not (folder / name).exists():
            served.save_python(folder / name, **kwargs)
        with served.quiet():
            return mlflow.pyfunc.load_model(str(folder / name))

    return load


def test_mlflows_own_addresses_stay(load):
    app = client(load("sum"))
    answer = app.post("/invocations", json=ROWS)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [3.0, 7.0]})
    assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == ("sum", "7")
    assert app.get("/ping").status_code == app.get("/health").status_code == 200
    assert app.get("/version").text.startswith("3.")


MALFORMED = {
    "no JSON": ("application/json", b"{"),
    "not UTF-8": ("application/json", b"\xff\xfe{}"),
    "null": ("application/json", b"null"),
    "a list": ("application/json", b"[]"),
    "no known key": ("application/json", b'{"rows": [1]}'),
    "a column is missing": ("application/json", b'{"dataframe_split": {"columns": ["x"], "data": [[1]]}}'),
    "words for numbers": ("application/json", b'{"dataframe_split": {"columns": ["x", "y"], "data": [["a", "b"]]}}'),
    "a number for a frame": ("application/json", b'{"dataframe_split": 5}'),
    "null instances": ("application/json", b'{"instances": null}'),
    "deep nesting": ("application/json", b"[" * 100_000),
    "empty": ("application/json", b""),
    "no type": ("", b"zzz"),
    "an unknown type": ("image/png", b"zzz"),
    "no parquet": ("application/vnd.apache.parquet", b"PAR1"),
    "no text": ("text/csv", b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_cannot_be_understood_is_the_clients_fault(load, kind):
    app = client(load("sum"))
    content_type, body = MALFORMED[kind]
    answer = app.post("/invocations", content=body, headers={"content-type": content_type} if content_type else {})
    assert 400 <= answer.status_code < 500
    assert app.post("/invocations", json=ROWS).status_code == 200


@pytest.mark.parametrize("signature", [True, False])
def test_a_model_that_fails_is_not_the_clients_fault(load, signature):
    app = client(load(f"broken-{signature}", fails="True", signature=signature))
    answer = app.post("/invocations", json=ROWS)
    assert answer.status_code == 500
    assert "The model failed: ArithmeticError('this model is broken')" in answer.json()["message"]


def test_an_answer_that_cannot_be_written_is_not_the_clients_fault(load):
    app = client(load("unwritable", answer="[{1, 2}] * len(data)", signature=False))
    assert app.post("/invocations", json=ROWS).status_code == 500


def test_metrics_count_answers_and_predictions(load):
    app = client(load("sum"))
    app.post("/invocations", json=ROWS)
    app.post("/invocations", content=b"{")
    text = app.get("/metrics").text
    assert 'mlops_serving_requests_total{code="200",model="sum",version="7"} 1.0' in text
    assert 'mlops_serving_latency_seconds_count{model="sum",version="7"} 2.0' in text
    assert 'mlops_serving_prediction_bucket{le="10.0",model="sum",version="7"} 2.0' in text


def test_the_metrics_tell_the_most_memory_that_was_held(load):
    text = client(load("sum")).get("/metrics").text
    (peak,) = re.findall(
        r'^mlops_serving_peak_memory_bytes\{model="sum",version="7"\} ([0-9.e+]+)$', text, re.MULTILINE
    )
    assert 2**24 < float(peak) < 2**36


def test_whoever_asks_is_told_how_the_predictions_spread_and_nobody_else(load):
    app = client(load("sum"))
    assert "x-mlops-predictions" not in app.post("/invocations", json=ROWS).headers
    answer = app.post("/invocations", json=ROWS, headers={"x-mlops-predictions": "wanted"})
    assert json.loads(answer.headers["x-mlops-predictions"]) == spread([3.0, 7.0])
    counted = app.get("/_rollout/observation").json()["arms"]["7"]["predictions"]
    assert counted == {name: 2 * share for name, share in spread([3.0, 7.0]).items()}


def test_predictions_that_are_no_numbers_are_counted_by_class(load):
    app = client(load("words", answer="['yes'] * len(data)", signature=False))
    app.post("/invocations", json=ROWS)
    assert 'mlops_serving_classes_total{class="yes",model="sum",version="7"} 2.0' in app.get("/metrics").text


def test_classes_beyond_fifty_are_others():
    meter = Meter("sum", "7", None)
    meter.predicted(None, [f"c{k}" for k in range(60)])
    value = meter.registry.get_sample_value
    assert value("mlops_serving_classes_total", {"model": "sum", "version": "7", "class": "other"}) == 10


@pytest.mark.parametrize("predictions", [[], None, object(), [[1, 2], [3]], [float("nan")], np.zeros((2, 0))])
def test_strange_predictions_never_cost_an_answer(predictions):
    Meter("sum", "7", LiveProfile(LAYOUT)).predicted(None, predictions)


def test_the_profile_counts_live_rows_on_the_references_bins(load):
    app = client(load("sum"), layout=LAYOUT)
    app.post("/invocations", json=ROWS)
    profile = DataProfile.from_json(app.get("/profile").text)
    assert profile.rows == 2
    merged = profile.merge(DataProfile.from_json(app.get("/profile").text))
    assert merged.columns["x"].rows == 4


def test_without_a_reference_there_is_no_profile(load):
    answer = client(load("sum")).get("/profile")
    assert answer.status_code == 404
    assert answer.json()["message"] == (
        "Version 7 of sum was started without a reference profile, so its traffic has no bins."
    )


def test_the_profile_survives_many_threads_and_changing_types():
    profile = LiveProfile(LAYOUT)

    def ask(dtype):
        for _ in range(100):
            profile.add(pd.DataFrame({"x": np.ones(3, dtype=dtype), "y": np.ones(3, dtype=dtype)}))

    threads = [threading.Thread(target=ask, args=(dtype,)) for dtype in ("float64", "int64", "float64", "int8")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    profile.add([1, 2, 3])  # no columns, nothing to count
    counted = DataProfile.from_json(profile.to_json())
    assert counted.rows == counted.columns["x"].rows == 1200


def test_an_observation_names_what_a_rollout_needs(load):
    app = client(load("broken-True", fails="True"))
    app.post("/invocations", json=ROWS, headers={"X-Client-Id": "ann"})
    app.post("/invocations", json=ROWS, headers={"X-Client-Id": "ann"})
    body = app.get("/_rollout/observation").json()
    arm = body["arms"]["7"]
    assert (body["name"], arm["requests"], arm["errors"], arm["first_errors"]) == ("sum", 2, 2, 1)
    assert (arm["clients_at_risk"], arm["clients_with_error"]) == (0, 1)


def test_parquet_and_csv_are_read(load):
    app = client(load("sum"))
    frame = pd.DataFrame({"x": [1.0], "y": [2.0]})
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    for kind, body in (("text/csv", frame.to_csv(index=False)), ("application/vnd.apache.parquet", parquet.getvalue())):
        answer = app.post("/invocations", content=body, headers={"content-type": kind})
        assert answer.json() == {"predictions": [3.0]}


def test_a_server_loads_no_airflow(tmp_path):
    served.save_python(tmp_path / "model")
    code = (
        "import sys, mlflow\n"
        "import airflow_provider_mlops.serving.__main__, airflow_provider_mlops.serving.local\n"
        "import airflow_provider_mlops.serving.router\n"
        "from airflow_provider_mlops.serving.app import build_app\n"
        "build_app(mlflow.pyfunc.load_model(sys.argv[1]), name='m', version='1')\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'airflow'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-uri", "nowhere"], "The model 'nowhere' cannot be loaded"),
        (["--model-uri", "nowhere", "--profile", "no.json"], "The profile 'no.json' cannot be read"),
        (["--model-uri", "nowhere", "--profile", "bad.json"], "is no data profile"),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path, arguments, message):
    (tmp_path / "bad.json").write_text(json.dumps({"x": 1}))
    names = ["--name", "m", "--version", "1", "--port", "0"]
    command = [sys.executable, "-m", "airflow_provider_mlops.serving", *names, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert re.fullmatch(r"Listening at http://127\.0\.0\.1:[0-9]+\n", done.stdout)  # said before the model is loaded
