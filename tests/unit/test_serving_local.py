"""The router and its model servers as real processes: under load, killed, asked for nonsense."""

import asyncio
import collections
import fcntl
import json
import shutil
import signal
import socket
import stat
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import pyarrow as pa
import pytest
import served
import uvicorn

from airflow_provider_mlops.adapters.rollout.local import LocalTarget
from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError
from airflow_provider_mlops.rollout import Action, Role, RolloutPhase, RolloutPlan, drive
from airflow_provider_mlops.serving import local
from airflow_provider_mlops.serving.router import ModelRouter

ROWS = {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2]]}}
PATIENCE = 180  # seconds; a server starts in two on an idle machine
LOST = 6  # of each of three clients: what a killed server was answering, and what its socket still took while it died


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    served.save_python(folder / "1")
    served.save_python(folder / "2")
    served.save_python(folder / "thousandfold", answer="1000 * (data['x'] + data['y']).to_numpy()")
    served.save_python(folder / "slow", seconds="(open('asked', 'w').close(), 1.5)[1]")
    served.save_python(folder / "environment", answer="[' '.join(sorted(os.environ))] * len(data)", signature=False)
    served.save_python(folder / "broken")
    (folder / "broken" / "broken_code.py").write_text("raise ImportError('no such library')")
    layout = choose_layout(pa.record_batch({"x": [float(k) for k in range(9)], "y": [float(k) for k in range(9)]}))
    (folder / "1" / "profile.json").write_text(layout.to_json())
    return folder


@pytest.fixture
def target(tmp_path):
    target = LocalTarget(tmp_path / "root", model_environment={"FEATURE_STORE_PASSWORD": "s3cr3t"})
    yield target
    target.stop()
    left = [process.cmdline() for process in psutil.process_iter() if str(tmp_path) in " ".join(_cmdline(process))]
    assert left == []


def _cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def ask_for(target, models, **percents):
    wish = tuple(
        Action(version.removeprefix("v"), str(models / version.removeprefix("v")), percent, Role.STABLE)
        for version, percent in percents.items()
    )
    target.act("sum", wish)


def until(holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        try:
            if result := holds():
                return result
        except (ServiceError, httpx.HTTPError):
            pass
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def ready(target, *versions):
    until(lambda: all(v in (arms := target.observe("sum").arms) and arms[v].ready for v in versions))


def post(target, **kwargs):
    return httpx.post(f"{target.url('sum')}/invocations", json=ROWS, timeout=30, trust_env=False, **kwargs)


def router(target):
    return psutil.Process(json.loads((target._root / "router.json").read_text())["pid"])


def server(target, version):
    (found,) = (child for child in router(target).children() if f"--version {version} " in " ".join(child.cmdline()))
    return found


class Clients:
    """Some clients who ask all the time."""

    def __init__(self, target, number=3):
        self.answers = collections.Counter()
        self.last = None
        self._url = f"{target.url('sum')}/invocations"
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(f"client-{k}",)) for k in range(number)]

    def _ask(self, name):
        with httpx.Client(trust_env=False, timeout=60, headers={"X-Client-Id": name}) as client:
            while not self._end.is_set():
                answer = client.post(self._url, json=ROWS)
                self.last = (answer.status_code, answer.headers.get("x-model-version"))
                self.answers[self.last] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_a_canary_under_load_loses_no_request_and_its_shares_are_exact(target, models):
    seen = []

    class Watched:
        def __getattr__(self, method):
            call = getattr(target, method)
            if method != "observe":
                return call

            def observe(name):
                seen.append(call(name))
                return seen[-1]

            return observe

    def go(version, plan):
        return drive(
            Watched(), "sum", plan, version=version, model=str(models / version), request=version,
            clock=lambda: datetime.now(UTC), sleep=time.sleep, poll=timedelta(seconds=0.5),
        )  # fmt: skip

    assert go("1", RolloutPlan(strategy="rolling", bake=timedelta(0))).phase is RolloutPhase.PROMOTED
    with Clients(target) as clients:
        plan = RolloutPlan(weights_percent=(25, 60), min_requests_per_step=200, bake=timedelta(seconds=1))
        state = go("2", plan)
        assert state.phase is RolloutPhase.PROMOTED, state.sentence
        until(lambda: clients.last == (200, "2"))
    assert set(clients.answers) == {(200, "1"), (200, "2")}
    for observation in seen:
        arms = observation.arms
        if len(arms) == 2 and 0 < arms["2"].percent < 100:
            total = sum(arm.counts.requests for arm in arms.values())
            # one for the share, three for what is under way
            assert abs(arms["2"].counts.requests - total * arms["2"].percent / 100) <= 4


def test_a_canary_that_predicts_something_else_is_rolled_back(target, models):
    def go(version, plan):
        return drive(
            target, "sum", plan, version=version, model=str(models / version), request=version,
            clock=lambda: datetime.now(UTC), sleep=time.sleep, poll=timedelta(seconds=0.5),
        )  # fmt: skip

    go("1", RolloutPlan(strategy="rolling", bake=timedelta(0)))
    with Clients(target):
        plan = RolloutPlan(weights_percent=(50,), min_requests_per_step=5000, bake=timedelta(0))
        state = go("thousandfold", plan)
    assert (state.phase, state.reason) == (RolloutPhase.ROLLED_BACK, "other_predictions"), state.sentence
    assert post(target).headers["x-model-version"] == "1"
    assert "x-mlops-predictions" not in post(target).headers


def test_a_killed_server_comes_back_and_others_answer_meanwhile(target, models):
    ask_for(target, models, v1=50, v2=50)
    ready(target, "1", "2")
    with Clients(target) as clients:
        server(target, "2").send_signal(signal.SIGKILL)
        until(lambda: target.observe("sum").arms["2"].restarts == 1)
        ready(target, "2")
        before = clients.answers[200, "2"]
        until(lambda: clients.answers[200, "2"] > before)
    lost = sum(count for (status, _), count in clients.answers.items() if status != 200)
    assert lost <= LOST, clients.answers
    assert post(target).status_code == 200


def test_when_the_new_version_dies_the_old_one_that_is_kept_warm_answers(target, models):
    ask_for(target, models, v1=100)
    ready(target, "1")
    post(target)
    ask_for(target, models, v1=0, v2=100)
    ready(target, "1", "2")
    until(lambda: post(target).headers["x-model-version"] == "2")
    with Clients(target) as clients:
        server(target, "2").send_signal(signal.SIGKILL)
        until(lambda: clients.answers[200, "1"] and target.observe("sum").arms["2"].restarts == 1)
        ready(target, "2")
    lost = sum(count for (status, _), count in clients.answers.items() if status != 200)
    assert lost <= LOST, clients.answers
    assert post(target).headers["x-model-version"] == "2"


def test_a_killed_router_takes_its_servers_along_and_comes_back(target, models):
    ask_for(target, models, v1=100)
    ready(target, "1")
    url, dying = target.url("sum"), [router(target), server(target, "1")]
    dying[0].send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(dying, timeout=PATIENCE)
    assert alive == []
    with pytest.raises(ServiceError, match=r"does not answer at http://127.0.0.1"):
        target.observe("sum")
    ask_for(target, models, v1=100)
    ready(target, "1")
    assert target.url("sum") == url
    assert post(target).json() == {"predictions": [3.0]}


def test_an_answer_under_way_is_finished_before_its_server_ends(target, models):
    ask_for(target, models, vslow=100, v1=0)
    ready(target, "slow", "1")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(post(target)))
    asking.start()
    until((target._root / "sum" / "asked").exists)
    ask_for(target, models, v1=100)
    until(lambda: list(target.observe("sum").arms) == ["1"])
    asking.join()
    assert (answers[0].status_code, answers[0].headers["x-model-version"]) == (200, "slow")


def test_secrets_reach_the_model_and_no_disk_and_the_callers_stay_with_the_caller(target, models, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://airflow:secret@db/airflow")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    ask_for(target, models, venvironment=100)
    ready(target, "environment")
    names = post(target).json()["predictions"][0].split()
    assert "FEATURE_STORE_PASSWORD" in names
    assert "PATH" in names
    assert not [name for name in names if name.startswith(("AIRFLOW_", "AWS_"))]
    for file in target._root.rglob("*"):
        assert not file.is_file() or b"s3cr3t" not in file.read_bytes()
        assert file.suffix != ".db", "MLflow made a database to log traces to"
    assert b"s3cr3t" not in " ".join(server(target, "environment").cmdline()).encode()


def test_what_lies_on_disk_is_private(target, models):
    ask_for(target, models, v1=100)
    root = target._root
    for folder in (root, root / "sum"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (root / "sum" / "wanted.json", root / "router.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_model_that_cannot_be_loaded_is_started_again_and_its_log_says_why(target, models):
    ask_for(target, models, vbroken=100)
    until(lambda: target.observe("sum").arms["broken"].restarts >= 2)
    answer = post(target)
    assert answer.status_code == 503
    assert answer.json()["message"] == "No version of sum can answer now: broken is not ready."
    assert (
        "no such library. Does this interpreter have what the model's requirements.txt names?"
        in (target._root / "sum" / "broken.log").read_text()
    )


def test_the_routers_own_addresses(target, models):
    ask_for(target, models)
    url = target.url("sum")
    until(lambda: httpx.get(f"{url}/health", trust_env=False).status_code == 503)
    ask_for(target, models, v1=100, v2=0)
    ready(target, "1", "2")
    post(target)

    def get(path):
        return httpx.get(url + path, trust_env=False)

    assert get("/ping").status_code == 200
    assert get("/version").json() == {
        "name": "sum",
        "versions": {
            "1": {"percent": 100, "ready": True, "restarts": 0},
            "2": {"percent": 0, "ready": True, "restarts": 0},
        },
    }
    assert get("/profile").json()["rows"] == 1
    assert "was started without a reference profile" in get("/profile?version=2").json()["message"]
    assert get("/profile?version=9").json()["message"] == "Version '9' of sum does not serve now. Wanted: 1, 2."
    metrics = get("/metrics").text
    assert 'mlops_serving_requests_total{code="200",model="sum",version="1"} 1' in metrics
    assert 'mlops_router_percent{model="sum",version="2"} 0' in metrics
    assert metrics.count("# TYPE mlops_serving_requests_total ") == 1
    assert get("/invocations").status_code == 405
    assert "There is no /admin" in get("/admin").json()["message"]
    malformed = httpx.post(f"{url}/invocations", content=b"{", trust_env=False)
    assert (malformed.status_code, malformed.headers["x-model-version"]) == (400, "1")


def test_a_request_too_large_is_refused(target, models):
    ask_for(target, models, v1=100)
    ready(target, "1")
    answer = httpx.post(
        f"{target.url('sum')}/invocations", content=bytes(65 * 1024 * 1024), trust_env=False, timeout=60
    )
    assert answer.status_code == 413


def test_a_request_whose_body_never_ends_is_refused_and_its_connection_closed(tmp_path):
    async def ask(sent):
        router = ModelRouter("sum", tmp_path, body_seconds=0.3)
        config = uvicorn.Config(router, log_config=None, lifespan="off", ws="none", port=0)
        server = uvicorn.Server(config)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            task = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n" + sent)
            answer = await asyncio.wait_for(reader.read(), PATIENCE)  # until the connection is closed
            writer.close()
            server.should_exit = True
            await task
        return answer

    answer = asyncio.run(ask(b"{"))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"The request did not arrive within 0.3 s." in answer


def test_a_damaged_wish_changes_nothing(target, models):
    ask_for(target, models, v1=100)
    ready(target, "1")
    (target._root / "sum" / "wanted.json").write_text("{")
    until(lambda: "does not say what to serve" in (target._root / "router.log").read_text())
    assert post(target).status_code == 200


def test_many_who_start_the_router_at_once_start_one(target, models, tmp_path):
    threads = [threading.Thread(target=local.ensure_running, args=(tmp_path / "root",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = [p for p in psutil.process_iter() if str(tmp_path) in " ".join(_cmdline(p))]
    until(lambda: len([p for p in running if p.is_running()]) == 1)
    local.ensure_running(tmp_path / "root")
    assert router(target).is_running()


def test_who_asks_whether_a_router_runs_is_none_to_others_who_ask(tmp_path):
    with (tmp_path / "router.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert not local.is_running(tmp_path)
        threading.Timer(2, lock.close).start()  # longer than a router would try if it took this for another
        local.ensure_running(tmp_path)
    assert local.is_running(tmp_path)
    local.stop(tmp_path)


def test_a_port_is_chosen_once_and_cannot_be_taken_away(target, models):
    ask_for(target, models)
    port = local.port_of(target._root, "sum")
    ask_for(target, models)
    assert local.port_of(target._root, "sum") == port
    with pytest.raises(ConfigError, match=f"is served at port {port}, not 1"):
        LocalTarget(target._root, port=1).act("sum", ())


def test_a_taken_port_is_said_and_tried_again(tmp_path, target, models):
    from airflow_provider_mlops.serving.processes import listen

    with listen(0) as other:
        port = other.getsockname()[1]
        LocalTarget(target._root, port=port).act("sum", ())
        until(lambda: f"cannot be served at port {port}" in (target._root / "router.log").read_text())
        with pytest.raises(
            ServiceError,
            match=rf"^sum cannot be served at port {port}: Address already in use\. End what listens there; or remove "
            r"/.*/sum/port and deploy with another port\.$",
        ):
            target.observe("sum")
    until(lambda: target.observe("sum").counter)
    assert local.complaint(target._root, "sum") is None


def test_a_router_that_cannot_start_says_why(tmp_path):
    with pytest.raises(ServiceError, match=r"did not start. Its log ends with: (.|\n)*encodings"):
        local.ensure_running(tmp_path / "root", environment={"PYTHONHOME": "/nowhere"})


def test_to_stop_what_does_not_run_is_nothing(tmp_path):
    local.stop(tmp_path / "nowhere")
    assert not local.is_running(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", ".hidden", "router.log", "x" * 300])
def test_a_name_that_would_hide_the_routers_files_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a served model"):
        local.model_folder(tmp_path, name)


def test_any_other_name_stays_below_the_root(tmp_path):
    assert local.model_folder(tmp_path, "a/../b").parent == tmp_path
    assert local.model_folder(tmp_path, "Träger 1").parent == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path):
    target = LocalTarget(tmp_path / "root")
    with pytest.raises(ConfigError, match=r"is no folder with an MLflow model. Download the model first"):
        target.act("sum", (Action("1", "models:/sum/1", 100, Role.STABLE),))
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "name": "m", "versions": {"1": {}}}'])
def test_a_wish_that_cannot_be_read_says_so(tmp_path, text):
    (tmp_path / "wanted.json").write_text(text)
    with pytest.raises(DataError, match="does not say what to serve"):
        local.read_wanted(tmp_path / "wanted.json")


def test_a_wish_of_a_later_format_says_so(tmp_path):
    (tmp_path / "wanted.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="has format 2; this package reads 1"):
        local.read_wanted(tmp_path / "wanted.json")


def test_a_removed_folder_ends_its_servers(target, models):
    ask_for(target, models, v1=100)
    ready(target, "1")
    dying = server(target, "1")
    shutil.rmtree(target._root / "sum")
    _, alive = psutil.wait_procs([dying], timeout=PATIENCE)
    assert alive == []
    assert router(target).is_running()
