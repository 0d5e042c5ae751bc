"""Live traffic of real model servers, judged as files are: the same rows, the same counts, the same report."""

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import httpx
import numpy as np
import pyarrow as pa
import pytest
import served
from pyarrow import parquet
from services_mlflow import held_port

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.engines.serving import served_profile
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.drift.selection import select_columns
from airflow_provider_mlops.errors import ConfigError, ServiceError

PATIENCE = 180  # seconds until a server has imported MLflow


def rows(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return pa.table({"x": rng.normal(size=n), "y": rng.normal(shift, 1, n)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def engine_and_reference(folder):
    parquet.write_table(rows(20_000, 0), folder / "training.parquet")
    engine = EmbeddedEngine()
    reference = engine.reference(DataRef(str(folder / "training.parquet")))
    (folder / "profile.json").write_text(reference.to_json())
    return engine, reference


@pytest.fixture(scope="module")
def servers(folder, engine_and_reference):
    """Start two replicas of version 7 and one of version 8, which has no profile."""
    served.save_sklearn(folder / "model")
    command = [sys.executable, "-m", "airflow_provider_mlops.serving", "--model-uri", folder / "model", "--name", "sum"]
    urls, running, ports = {}, [], ExitStack()
    for name, version in (("first", "7"), ("second", "7"), ("bare", "8")):
        port = ports.enter_context(held_port())
        profile = [] if name == "bare" else ["--profile", folder / "profile.json"]
        running.append(subprocess.Popen([*command, "--version", version, "--port", str(port), *profile]))
        urls[name] = f"http://127.0.0.1:{port}"
    try:
        for url in urls.values():
            until_it_answers(url)
        yield urls
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(PATIENCE)
        ports.close()


def until_it_answers(url):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx.get(f"{url}/ping", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.2)


def ask(url, table):
    for part in table.to_batches(max_chunksize=1500):
        body = {"dataframe_split": part.to_pandas().to_dict("split", index=False)}
        assert httpx.post(f"{url}/invocations", json=body, trust_env=False, timeout=30).status_code == 200


@pytest.fixture(scope="module")
def traffic(folder, servers):
    """Ask both replicas, one more than the other; return the file with all that was asked."""
    asked = rows(6000, 1, shift=0.5)
    ask(servers["first"], asked.slice(0, 4000))
    ask(servers["second"], asked.slice(4000))
    parquet.write_table(asked, folder / "asked.parquet")
    return str(folder / "asked.parquet")


def test_live_traffic_gives_the_report_that_its_rows_in_a_file_give(servers, traffic, engine_and_reference):
    engine, reference = engine_and_reference
    live = served_profile([servers["first"], servers["second"]], layout=reference, version="7")
    stored = engine.window(DataRef(traffic), layout=reference)
    assert live.rows == 6000
    for name, column in live.columns.items():
        assert column.numbers.counts.tolist() == stored.columns[name].numbers.counts.tolist()
    found, expected = check(reference, live).to_dict(), check(reference, stored).to_dict()
    assert found == expected
    assert (found["verdict"], found["top_columns"]) == (Verdict.DRIFT, ["y"])


def test_one_replica_alone_tells_its_own_share(servers, traffic, engine_and_reference):
    assert served_profile([servers["second"]], layout=engine_and_reference[1]).rows == 2000


def test_only_the_columns_that_the_reference_judges_are_judged(servers, traffic, engine_and_reference):
    _, reference = engine_and_reference
    chosen = select_columns(reference, columns=["x"])
    live = served_profile([servers["first"]], layout=chosen)
    assert list(live.columns) == ["x"]
    assert check(chosen, live).verdict is not Verdict.BAD_DATA


def test_what_the_servers_cannot_tell_is_said(servers, engine_and_reference):
    _, reference = engine_and_reference
    with pytest.raises(ConfigError, match="None of 1 servers serves version 9; they serve 7"):
        served_profile([servers["first"]], layout=reference, version="9")
    with pytest.raises(ConfigError, match=r"/profile has no profile: .*Version 8 of sum was started without"):
        served_profile([servers["first"], servers["bare"]], layout=reference, version="7")
    with held_port() as port, pytest.raises(ServiceError, match=r"does not answer.*Does the model's server run"):
        served_profile([f"http://127.0.0.1:{port}"], layout=reference)
    with pytest.raises(ConfigError, match="at least one server"):
        served_profile([], layout=reference)
    edges = reference.columns["x"].numbers.edges[1:]
    numbers = replace(reference.columns["x"].numbers, edges=edges, counts=np.zeros(edges.size + 1, dtype=np.int64))
    other = replace(reference, columns={"x": replace(reference.columns["x"], numbers=numbers)})
    with pytest.raises(ConfigError, match="counts column 'x' on other bins"):
        served_profile([servers["first"]], layout=other)
