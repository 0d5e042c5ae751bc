"""Registered models: a version, its smoke test, its promotion and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mlops.promotion import ForeignChange

__all__ = ["PromoteModelOperator", "RegisterModelOperator", "RollbackModelOperator", "SmokeTestModelOperator"]


class RegisterModelOperator(MlopsOperator):
    """
    Register the model of an MLflow run: one version per run, however often it is asked.

    The version carries the lineage (data digest, code digest, git commit, DAG run, hyperparameters, environment, gate)
    as tags, and the alias *alias* points at it, unless it points at a newer one. Its model card is written into the run
    (``mlops/model_card.md`` and ``.html``), the card's first paragraph into the description of the version. Returns
    ``{"model", "version", "run_id", "source"}``.

    :param model: name of the registered model. (templated)
    :param run_id: MLflow run that logged the model. (templated)
    :param model_uri: the logged model; the run's only one without it. (templated)
    :param data_digest: digest of the data that it was trained on. (templated)
    :param gate_digest: digest of the gate's decision on it. (templated)
    :param alias: alias that moves forward to the version; ``None`` moves none.
    :param mlflow_conn_id: the MLflow connection.
    :raises DataError: the run holds no model, several, or one without a signature.
    :raises PromotionConflictError: the journal knows the version as another run: it is the journal of another MLflow.
    """

    template_fields: Sequence[str] = ("model", "run_id", "model_uri", "data_digest", "gate_digest")

    def __init__(
        self,
        *,
        model: str,
        run_id: str,
        model_uri: str | None = None,
        data_digest: str | None = None,
        gate_digest: str | None = None,
        alias: str | None = "challenger",
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.run_id = run_id
        self.model_uri = model_uri
        self.data_digest = data_digest
        self.gate_digest = gate_digest
        self.alias = alias
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, str]:
        """Find the run's version or make it, then point the alias at it."""
        from airflow_provider_mlops.errors import DataError
        from airflow_provider_mlops.hooks.card import environment_of, write_card
        from airflow_provider_mlops.hooks.journal import JournalHook, record_once
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.journal import kinds, model_stream, payloads
        from airflow_provider_mlops.promotion import check_run, state
        from airflow_provider_mlops.promotion.registry import is_newer

        hook = MlflowHook(self.mlflow_conn_id)
        models = [model for model in hook.tracking.models(self.run_id) if self.model_uri in {None, model.uri}]
        if len(models) != 1:
            wanted = f" at {self.model_uri}" if self.model_uri else ""
            raise DataError(
                f"MLflow run {self.run_id} holds {len(models)} models{wanted}; one is needed. "
                "Log one model, or name it by model_uri."
            )
        if not models[0].has_signature:
            raise DataError(
                f"The model {models[0].name!r} of MLflow run {self.run_id} has no signature, so nobody can check what "
                "it is asked. Pass signature=mlflow.models.infer_signature(...) to log_model."
            )
        ti = context["ti"]
        run = hook.tracking.run(self.run_id)
        environment = environment_of(hook.tracking, models[0])
        lineage = {
            "mlops.dag_run": f"{ti.dag_id} {ti.run_id}",
            "mlops.data_digest": self.data_digest or run.tags.get("mlops.data_digest", ""),
            "mlops.gate_digest": self.gate_digest or "",
            "mlops.environment": environment.digest or "",
            **{
                key: run.tags[key]
                for key in ("mlops.code_digest", "mlops.hyperparameters", "mlops.seed", "mlflow.source.git.commit")
                if key in run.tags
            },
        }
        version = hook.registry.create_version(
            self.model,
            run_id=self.run_id,
            source=models[0].uri,
            tags={key: value for key, value in lineage.items() if value},
        )
        check_run(state(JournalHook().journal.read(model_stream(self.model))), version)
        write_card(hook, version, self.run_id, environment)
        # An old run that was cleared moves no alias backwards.
        if self.alias and is_newer(version.version, hook.registry.version_of(self.model, alias=self.alias)):
            hook.registry.set_alias(self.model, alias=self.alias, version=version.version)
        payload = payloads.model_registered(
            version=version.version,
            run_id=self.run_id,
            source=version.source,
            data_digest=lineage["mlops.data_digest"] or None,
            gate_digest=self.gate_digest,
        )
        record_once(self.model, kinds.MODEL_REGISTERED, payload, context, once=("version",))
        self.log.info("%s version %s is run %s.", self.model, version.version, self.run_id)
        return {"model": self.model, "version": version.version, "run_id": self.run_id, "source": version.source}


class SmokeTestModelOperator(MlopsOperator):
    """
    Start the exact artifact of a version as a server, probe it, and stop it again.

    Readiness within a deadline, golden requests from the evaluation rows whose answers must equal the offline
    predictions, latency, memory, and malformed input that must be refused and not crash the server. Returns
    ``{"version", "ready_seconds", "requests", "latency_p50_ms", "latency_p95_ms", "peak_memory_mib"}``.

    :param model: name of the registered model. (templated)
    :param version: the version. (templated)
    :param predictions_uri: the scored evaluation rows, as `EvaluateModelOperator` returns them. (templated)
    :param data_uri: the evaluation rows themselves. (templated)
    :param requests: how many golden requests.
    :param tolerance: largest difference, relative to 1 or to the value, between online and offline predictions.
    :param ready_within: seconds until the server must be ready.
    :param max_latency_p95_ms: largest 95th percentile of the latency of one row, in milliseconds; ``None``: any.
    :param model_environment: ``current`` or ``model``, see `DeployToLocalOperator`. (templated)
    :param mlflow_conn_id: the MLflow connection.
    :raises SmokeTestFailedError: with what was seen and the end of the server's log.
    """

    template_fields: Sequence[str] = ("model", "version", "predictions_uri", "data_uri", "model_environment")

    def __init__(
        self,
        *,
        model: str,
        version: str,
        predictions_uri: str,
        data_uri: str,
        requests: int = 20,
        tolerance: float = 1e-6,
        ready_within: float = 180.0,
        max_latency_p95_ms: float | None = None,
        model_environment: str = "current",
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.version = version
        self.predictions_uri = predictions_uri
        self.data_uri = data_uri
        self.requests = requests
        self.tolerance = tolerance
        self.ready_within = ready_within
        self.max_latency_p95_ms = max_latency_p95_ms
        self.model_environment = model_environment
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Serve, ask, compare, record, clean up."""
        from airflow_provider_mlops.errors import SmokeTestFailedError
        from airflow_provider_mlops.hooks.journal import record_once
        from airflow_provider_mlops.hooks.serving import SmokeTest, smoke_test
        from airflow_provider_mlops.journal import kinds, payloads

        test = SmokeTest(
            model=self.model,
            version=self.version,
            predictions_uri=self.predictions_uri,
            data_uri=self.data_uri,
            requests=self.requests,
            tolerance=self.tolerance,
            ready_within=self.ready_within,
            max_latency_p95_ms=self.max_latency_p95_ms,
            model_environment=self.model_environment,
            mlflow_conn_id=self.mlflow_conn_id,
        )
        try:
            numbers = smoke_test(test, context)
        except SmokeTestFailedError as error:
            failed = payloads.model_smoke_tested(
                version=self.version, passed=False, reason="failed", sentence=str(error).split("\n", 1)[0]
            )
            record_once(self.model, kinds.MODEL_SMOKE_TESTED, failed, context)
            raise
        sentence = (
            f"Ready after {numbers['ready_seconds']} s; {numbers['requests']} golden requests answered as offline, "
            f"95 % within {numbers['latency_p95_ms']} ms; malformed input refused."
        )
        self.log.info("%s", sentence)
        passed = payloads.model_smoke_tested(
            version=self.version, passed=True, reason="holds", sentence=sentence, numbers=numbers
        )
        record_once(self.model, kinds.MODEL_SMOKE_TESTED, passed, context, once=("version", "passed"))
        return {"version": self.version, **numbers}


class PromoteModelOperator(MlopsOperator):
    """
    Point the champion alias at a version that the gate has passed: compare and swap, journaled.

    A task that was killed half-way and runs again finishes what it began; of two promotions at once one loses. A DAG
    run that is older than the champion never moves the alias backwards. Returns ``{"model", "version", "previous",
    "changed"}``.

    :param model: name of the registered model. (templated)
    :param version: version to promote. (templated)
    :param expected_champion: version that the candidate was compared with; ``None`` or ``""``: there was none.
        (templated)
    :param gate_digest: digest of the gate's decision. (templated)
    :param approval: what the `ApproveModelOperator` or `ApprovalOperator` before this task returned: the answer, and
        who gave it, is journaled before anything moves, and only ``Approve`` lets it. Without it nobody was asked.
        (templated)
    :param alias: alias to move.
    :param on_foreign_change: what to do when somebody moved the alias by hand: ``fail``, ``adopt`` or ``restore``.
    :param allow_downgrade: promote a version older than the champion.
    :param unsafe_override: promote what the gate did not pass; the text says why and is journaled. (templated)
    :param mlflow_conn_id: the MLflow connection.
    :raises PromotionConflictError: the champion is another one than expected.
    :raises GateRefused: the journal holds no passed decision of the gate for this version, or it was not approved.
    """

    template_fields: Sequence[str] = (
        "model",
        "version",
        "expected_champion",
        "gate_digest",
        "approval",
        "unsafe_override",
    )

    def __init__(
        self,
        *,
        model: str,
        version: str,
        expected_champion: str | None = None,
        gate_digest: str | None = None,
        approval: Mapping[str, Any] | None = None,
        alias: str = "champion",
        on_foreign_change: ForeignChange = "fail",
        allow_downgrade: bool = False,
        unsafe_override: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.version = version
        self.expected_champion = expected_champion
        self.gate_digest = gate_digest
        self.approval = approval
        self.alias = alias
        self.on_foreign_change = on_foreign_change
        self.allow_downgrade = allow_downgrade
        self.unsafe_override = unsafe_override
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Record who approved, then run the promotion protocol."""
        from datetime import UTC, datetime

        from airflow_provider_mlops.hooks.journal import JournalHook, actor, lease_owner
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.promotion import PromotionRequest, promote

        if self.approval is not None:
            self._require_approval(self.approval, context)
        promotion = promote(
            PromotionRequest(
                model=self.model,
                version=self.version,
                expected_champion=self.expected_champion or None,
                alias=self.alias,
                gate={"digest": self.gate_digest} if self.gate_digest else {},
                actor=actor(context),
                owner=lease_owner(context),
                allow_downgrade=self.allow_downgrade,
                on_foreign_change=self.on_foreign_change,
                unsafe_override=self.unsafe_override or None,
            ),
            journal=JournalHook().journal,
            registry=MlflowHook(self.mlflow_conn_id).registry,
            clock=lambda: datetime.now(UTC),
        )
        self.log.info("%s", promotion.sentence)
        return {
            "model": self.model,
            "version": promotion.version,
            "previous": promotion.previous,
            "changed": promotion.changed,
        }

    def _require_approval(self, approval: Mapping[str, Any], context: Context) -> None:
        from airflow_provider_mlops.errors import GateRefused
        from airflow_provider_mlops.hooks.approval import record_answer

        is_approved, told = record_answer(self.model, self.version, approval, self.gate_digest, context)
        self.log.info("%s", told)
        if not is_approved:
            raise GateRefused(f"{self.model} version {self.version} is not promoted: {told} Train or evaluate again.")


class RollbackModelOperator(MlopsOperator):
    """
    Return to the last healthy version, or to a named earlier one: the alias, and the traffic on this machine with it.

    Returns ``{"model", "version", "previous", "changed"}``.

    :param model: name of the registered model. (templated)
    :param away_from: version that is to leave: nothing happens when the alias does not point at it. Without it the
        version that the alias points at, once per task instance. (templated)
    :param to: version to return to; the last healthy one without it. (templated)
    :param alias: alias to move.
    :param on_foreign_change: what to do when somebody moved the alias by hand: ``fail``; ``adopt`` that version, and
        roll back from it; or ``restore`` the alias to where the journal has it.
    :param traffic: also move the traffic, when this machine serves the model.
    :param mlflow_conn_id: the MLflow connection.
    :raises PromotionConflictError: there is no healthy version to return to, or somebody else is promoting.
    """

    template_fields: Sequence[str] = ("model", "away_from", "to")

    def __init__(
        self,
        *,
        model: str,
        away_from: str | None = None,
        to: str | None = None,
        alias: str = "champion",
        on_foreign_change: ForeignChange = "fail",
        traffic: bool = True,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.away_from = away_from
        self.to = to
        self.alias = alias
        self.on_foreign_change = on_foreign_change
        self.traffic = traffic
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the promotion protocol backwards, then move the traffic."""
        from datetime import UTC, datetime

        from airflow_provider_mlops.hooks.journal import JournalHook, actor, lease_owner
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.hooks.serving import Deployment, deploy, serves
        from airflow_provider_mlops.promotion import rollback

        promotion = rollback(
            self.model,
            away_from=self.away_from or None,
            to=self.to or None,
            alias=self.alias,
            on_foreign_change=self.on_foreign_change,
            actor=actor(context),
            owner=lease_owner(context),
            journal=JournalHook().journal,
            registry=MlflowHook(self.mlflow_conn_id).registry,
            clock=lambda: datetime.now(UTC),
        )
        self.log.info("%s", promotion.sentence)
        if self.traffic and serves(self.model) not in {None, promotion.version}:
            deploy(Deployment(self.model, promotion.version, mlflow_conn_id=self.mlflow_conn_id), context, self.log)
        return {
            "model": self.model,
            "version": promotion.version,
            "previous": promotion.previous,
            "changed": promotion.changed,
        }
