"""Model versions on this machine: their files, their smoke test, their rollout."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    NotFoundError,
    PromotionConflictError,
    RolloutFailedError,
    SmokeTestFailedError,
)
from airflow_provider_mlops.hooks.jobs import end_job, fresh_number, identity, job_backend
from airflow_provider_mlops.hooks.journal import JournalHook, actor, lease_owner, record_once
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.settings import require_local_executor, storage
from airflow_provider_mlops.hooks.training import PROFILE_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_provider_mlops.adapters.rollout.local import LocalTarget
    from airflow_provider_mlops.hooks.log import Log
    from airflow_provider_mlops.journal import Journal
    from airflow_provider_mlops.rollout import RolloutState
    from airflow_provider_mlops.serving.smoke import Golden

__all__ = ["Deployment", "SmokeTest", "deploy", "local_model", "serves", "smoke_test"]

_LEASE_PATIENCE = 150.0  # seconds; longer than the lease of a promoter that died
_LEASE_POLL = 5.0


def local_model(model: str, version: str, mlflow_conn_id: str) -> Path:
    """Return the local folder with the files of a version, the profile of its training data among them."""
    from airflow_provider_mlops.adapters.rollout.local import PROFILE_FILE

    if not re.fullmatch(r"[0-9]{1,18}", version):
        raise ConfigError(f"{version!r} is no version of a registered model. Versions are whole numbers.")
    hook = MlflowHook(mlflow_conn_id)
    found = hook.registry.version(model, version)
    folder = hook.tracking.download_model(found.source, storage() / "models" / quote(model, safe="") / version)
    profile = folder / PROFILE_FILE
    if found.run_id and not profile.exists():
        try:
            text = hook.tracking.read_text(found.run_id, PROFILE_PATH)
        except NotFoundError:
            return folder  # a model that was trained elsewhere
        half = profile.with_name(f".{profile.name}.{time.monotonic_ns()}")
        half.write_text(text)
        half.replace(profile)
    return folder


@dataclass(frozen=True)
class SmokeTest:
    """What is probed. The fields are those of `SmokeTestModelOperator`, rendered."""

    model: str
    version: str
    predictions_uri: str
    data_uri: str
    requests: int
    tolerance: float
    ready_within: float
    max_latency_p95_ms: float | None
    model_environment: str
    mlflow_conn_id: str


def smoke_test(test: SmokeTest, context: Context) -> dict[str, Any]:
    """
    Start the version's server as a job, probe it, stop it; return what was measured.

    :raises SmokeTestFailedError: with the end of the server's log.
    """
    from airflow_provider_mlops.adapters.rollout.local import PROFILE_FILE
    from airflow_provider_mlops.jobs import JobSpec, job_name
    from airflow_provider_mlops.serving.environment import interpreter, package_path
    from airflow_provider_mlops.serving.smoke import probe, wait_ready

    folder = local_model(test.model, test.version, test.mlflow_conn_id)
    python = interpreter(test.model_environment, folder, storage() / "serving" / ".environments")
    backend = job_backend("process")
    task = identity(context)
    name = job_name(*task, fresh_number(backend, task))
    profile = ["--profile", str(folder / PROFILE_FILE)] if (folder / PROFILE_FILE).exists() else []
    command = [
        *(str(python), "-m", "airflow_provider_mlops.serving", "--model-uri", str(folder)),
        *("--name", test.model, "--version", test.version, "--port", "0", *profile),
    ]
    backend.submit(JobSpec(name=name, command=tuple(command), environment=package_path(python)))

    try:
        url, ready = wait_ready(
            lambda: _address(backend.logs, name),
            within=test.ready_within,
            alive=lambda: not backend.status(name).phase.is_final,
        )
        measured = probe(url, golden_requests(test), tolerance=test.tolerance)
        memory = _peak_memory_mib(url)
    except SmokeTestFailedError as error:
        raise SmokeTestFailedError(f"{error}\nThe end of the server's log:\n{_tail(backend.logs, name)}") from error
    finally:
        end_job(backend, name)
    numbers = {
        "ready_seconds": round(ready, 1),
        "requests": measured.requests,
        "latency_p50_ms": round(measured.latency_p50_ms, 1),
        "latency_p95_ms": round(measured.latency_p95_ms, 1),
        "peak_memory_mib": memory,
    }
    limit = test.max_latency_p95_ms
    if limit is not None and measured.latency_p95_ms > limit:
        raise SmokeTestFailedError(
            f"The 95th percentile of the latency is {measured.latency_p95_ms:.1f} ms; {limit:g} ms are allowed."
        )
    return numbers


def golden_requests(test: SmokeTest) -> list[Golden]:
    """Return the first evaluation rows with what the scoring job predicted for them."""
    import pyarrow.parquet as pq

    from airflow_provider_mlops.adapters.files import scan
    from airflow_provider_mlops.adapters.predictions import read_summary
    from airflow_provider_mlops.serving.smoke import Golden

    candidate = read_summary(test.predictions_uri)["models"]["candidate"]
    try:
        said = next(pq.ParquetFile(test.predictions_uri).iter_batches(batch_size=test.requests))
        rows = next(scan(test.data_uri, batch_rows=test.requests))
    except StopIteration:
        return []
    except OSError as error:
        raise DataError(f"{test.predictions_uri} cannot be read: {error}. Evaluate again.") from error
    inputs = [column for column in candidate["inputs"] or rows.schema.names if column in rows.schema.names]
    if candidate["type"] == "values":
        expected = said.column("candidate").to_pylist()
    else:
        columns = sorted((c for c in said.schema.names if re.fullmatch(r"candidate_\d+", c)), key=_number)
        expected = [list(row) for row in zip(*(said.column(c).to_pylist() for c in columns), strict=True)]
    classes = tuple(candidate["classes"]) if candidate.get("classes") else None
    return [
        Golden({key: _jsonable(value) for key, value in row.items()}, answer, classes)
        for row, answer in zip(rows.select(inputs).to_pylist(), expected, strict=False)
    ]


def _number(column: str) -> int:
    return int(column.rpartition("_")[2])


def _jsonable(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _address(logs: Any, name: str) -> str | None:
    """Return where the server listens, which is the first thing that it prints."""
    found = re.search(r"^Listening at (http://\S+)$", str(logs(name, 0)[0]), re.MULTILINE)
    return found[1] if found else None


def _tail(logs: Any, name: str) -> str:
    text, offset = logs(name, 0)
    whole = str(text)
    while text:
        text, offset = logs(name, offset)
        whole += text
    return whole[-2000:]


def _peak_memory_mib(url: str) -> float | None:
    """Return the most memory that the server has held, in MiB, as its own metrics tell."""
    import httpx

    metrics = httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text
    found = re.search(r"^mlops_serving_peak_memory_bytes\{.*\} ([0-9.e+]+)$", metrics, re.MULTILINE)
    return round(float(found[1]) / 2**20, 1) if found else None


@dataclass(frozen=True)
class Deployment:
    """What is deployed. The fields are those of `DeployToLocalOperator`, rendered."""

    model: str
    version: str
    plan: Mapping[str, Any] | None = None
    predictions_uri: str | None = None
    port: int | None = None
    model_environment: str = "current"
    poll_interval: float = 1.0
    restore_alias: str | None = None
    mlflow_conn_id: str = "mlflow_default"


def _target(port: int | None = None, model_environment: str = "current") -> LocalTarget:
    from airflow_provider_mlops.adapters.rollout.local import LocalTarget

    require_local_executor("Serving on this machine")
    return LocalTarget(storage() / "serving", python=model_environment, port=port)


def serves(model: str) -> str | None:
    """Return the version of *model* that this machine serves, or ``None``."""
    state, _ = _target().read_state(model)
    return state.serving[0] if state is not None and state.serving is not None else None


def deploy(deployment: Deployment, context: Context, log: Log) -> dict[str, Any]:
    """
    Drive the rollout of a version to its end and journal its steps.

    With *restore_alias* the rollout begins only while that alias points at the version, and when it ends badly the
    alias is returned to the version that serves.

    :raises RolloutFailedError: the version does not serve; says what does.
    """
    from airflow_provider_mlops.rollout import RolloutPhase, RolloutPlan, drive

    model, version = deployment.model, deployment.version
    plan = RolloutPlan.from_dict(deployment.plan or {"strategy": "rolling", "bake": 0})
    if deployment.predictions_uri is not None:
        usual = _usual_shift(deployment.predictions_uri)
        plan = replace(plan, max_prediction_shift=min(1.0, round(plan.max_prediction_shift + usual, 3)))
        log.info("On the evaluation rows the predictions of the two versions are %.3f apart.", usual)
    folder = local_model(model, version, deployment.mlflow_conn_id)
    target = _target(deployment.port, deployment.model_environment)
    ti = context["ti"]
    # A retry goes on with the rollout; a cleared task, whose max_tries Airflow raises, asks anew.
    request = json.dumps([ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.max_tries])
    stored, _ = target.read_state(model)
    if deployment.restore_alias is not None and (stored is None or stored.request != request):
        _check_alias(deployment, deployment.restore_alias)

    def tell(state: RolloutState) -> None:
        log.info("%s, %d %% of the traffic: %s", state.phase.value, state.weight, state.sentence)
        _record(state, plan, context)

    state = drive(
        target,
        model,
        plan,
        version=version,
        model=str(folder),
        request=request,
        clock=lambda: datetime.now(UTC),
        sleep=time.sleep,
        poll=timedelta(seconds=deployment.poll_interval),
        on_step=tell,
    )
    _record(state, plan, context)  # an attempt that was killed may have ended the rollout and not said so
    if state.phase is not RolloutPhase.PROMOTED:
        what = f"Version {version} of {model} does not serve: {state.phase.value}, {state.reason}: {state.sentence}"
        serving = f"Version {state.serving[0]} serves." if state.serving else "No version serves."
        restored = deployment.restore_alias and _restore(deployment, deployment.restore_alias, state, what, context)
        raise RolloutFailedError(" ".join(filter(None, (what, serving, restored))))
    endpoint = f"{target.url(model)}/invocations"
    log.info("Version %s of %s serves at %s", version, model, endpoint)
    return {
        "model": model,
        "version": version,
        "phase": state.phase.value,
        "reason": state.reason,
        "endpoint": endpoint,
    }


def _usual_shift(predictions_uri: str) -> float:
    """Return how far the predictions of candidate and champion are apart on the rows that the gate has seen, 0..1."""
    from airflow_provider_mlops.adapters.predictions import read_predictions
    from airflow_provider_mlops.rollout.predictions import distance, spread

    scored = read_predictions(predictions_uri)
    if scored.champion is None:
        return 0.0
    shift = distance(spread(scored.candidate), spread(scored.champion))
    if scored.candidate.ndim == scored.champion.ndim == 2:  # a server may answer the likeliest class instead
        labels = [spread(scores.argmax(axis=1)) for scores in (scored.candidate, scored.champion)]
        shift = max(shift, distance(*labels))
    return shift


def _check_alias(deployment: Deployment, alias: str) -> None:
    """Refuse to roll out what is not, or not any more, meant to serve: an old task that was cleared, for example."""
    model, version = deployment.model, deployment.version
    now = MlflowHook(deployment.mlflow_conn_id).registry.version_of(model, alias=alias)
    if now != version:
        whom = "no version" if now is None else f"version {now}"
        raise RolloutFailedError(
            f"Version {version} of {model} is not rolled out: {model}@{alias} is {whom}. Somebody has promoted another "
            "one since, or this one was rolled back. Train or promote anew."
        )


def _restore(deployment: Deployment, alias: str, state: RolloutState, why: str, context: Context) -> str | None:
    """
    Return *alias* from the version that does not serve to the one that does; return what became of it, in words.

    Nothing moves when the alias points elsewhere already. An attempt that was killed in here is made good by the next.
    """
    from airflow_provider_mlops.promotion import rollback

    if state.serving is None:
        return None
    journal, registry = JournalHook().journal, MlflowHook(deployment.mlflow_conn_id).registry
    owner, deadline = lease_owner(context), time.monotonic() + _LEASE_PATIENCE
    while True:
        try:
            moved = rollback(
                deployment.model,
                away_from=deployment.version,
                to=state.serving[0],
                alias=alias,
                actor=actor(context),
                owner=owner,
                journal=journal,
                registry=registry,
                clock=lambda: datetime.now(UTC),
                why=why,
            )
        except (PromotionConflictError, NotFoundError) as error:
            if time.monotonic() > deadline or not _leased_to_another(journal, deployment.model, owner):
                return f"{deployment.model}@{alias} was not returned to it: {error}"
            time.sleep(_LEASE_POLL)
        else:
            return moved.sentence


def _leased_to_another(journal: Journal, model: str, owner: str) -> bool:
    from airflow_provider_mlops.journal import model_stream
    from airflow_provider_mlops.promotion import state

    lease = state(journal.read(model_stream(model))).lease
    return lease is not None and lease.owner != owner and lease.until > datetime.now(UTC)


def _record(state: RolloutState, plan: Any, context: Context) -> None:
    """Journal where a rollout stands, and that it started, unless an earlier attempt has done so."""
    from airflow_provider_mlops.journal import kinds, payloads
    from airflow_provider_mlops.rollout import RolloutPhase

    common = {"name": state.name, "version": state.version, "began_at": state.started_at.isoformat()}
    once = ("name", "version", "began_at")
    started = payloads.rollout_started(
        **common, stable_version=state.stable_version, strategy=plan.strategy.value, plan=plan.to_dict()
    )
    record_once(state.name, kinds.ROLLOUT_STARTED, started, context, once=once)
    if state.phase.is_final:
        finished = payloads.rollout_finished(
            **common, phase=state.phase.value, reason=state.reason, sentence=state.sentence
        )
        record_once(state.name, kinds.ROLLOUT_FINISHED, finished, context, once=once)
    elif state.phase is not RolloutPhase.STARTING:
        advanced = payloads.rollout_advanced(
            **common, phase=state.phase.value, step=state.step, weight=state.weight, sentence=state.sentence
        )
        record_once(state.name, kinds.ROLLOUT_ADVANCED, advanced, context, once=(*once, "phase", "step"))
