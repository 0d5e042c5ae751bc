"""Deployment: a model version takes over the traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mlops.promotion import ModelVersion

__all__ = ["DeployToLocalOperator"]


class DeployToLocalOperator(MlopsOperator):
    """
    Serve a model version on this machine and let it take over step by step.

    One server process per version, and a small router in front of them that divides requests by exact weight and is
    reached at one port for good. During a canary the new version is compared with the stable one at every look;
    errors send all traffic back, and the stable version never stopped serving. A killed task that runs again goes on
    where the rollout stands. LocalExecutor only.

    Returns ``{"model", "version", "phase", "reason", "endpoint"}``.

    :param model: name of the registered model, and of the deployment. (templated)
    :param version: version to deploy. (templated)
    :param alias: alias whose version is deployed, when *version* is not given.
    :param restore_alias: the deployment belongs to a promotion: it begins only while *alias* points at the version, and
        when the version does not take over, *alias* is returned to the one that serves, through the promotion protocol.
        An alias that points elsewhere by then is left alone.
    :param plan: keys of `airflow_provider_mlops.rollout.RolloutPlan`, times as ``30m`` or in seconds; without it all
        traffic moves at once when the new version is ready. (templated)
    :param predictions_uri: the scored evaluation rows, as `EvaluateModelOperator` returns them: by as much as the two
        versions differ there they may differ in service, on top of the plan's ``max_prediction_shift``. (templated)
    :param port: TCP port of the endpoint; a free one, kept from then on, without it.
    :param model_environment: ``current`` serves in this worker's Python environment, ``model`` in one made from the
        model's own requirements. (templated)
    :param poll_interval: seconds between two looks.
    :param unsafe_override: serve a version that the gate, or a person, refused and that *alias* does not point at; the
        text says why and is journaled. (templated)
    :param mlflow_conn_id: the MLflow connection.
    :raises GateRefused: the journal's last word on the version is a no, and there is no *unsafe_override*.
    :raises RolloutFailedError: the new version does not serve; the message says why, and what serves.
    """

    template_fields: Sequence[str] = (
        "model",
        "version",
        "plan",
        "predictions_uri",
        "model_environment",
        "unsafe_override",
    )

    def __init__(
        self,
        *,
        model: str,
        version: str | None = None,
        alias: str = "champion",
        restore_alias: bool = False,
        plan: Mapping[str, Any] | None = None,
        predictions_uri: str | None = None,
        port: int | None = None,
        model_environment: str = "current",
        poll_interval: float = 1.0,
        unsafe_override: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.version = version
        self.alias = alias
        self.restore_alias = restore_alias
        self.plan = plan
        self.predictions_uri = predictions_uri
        self.port = port
        self.model_environment = model_environment
        self.poll_interval = poll_interval
        self.unsafe_override = unsafe_override
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Drive the rollout to its end."""
        from airflow_provider_mlops.errors import NotFoundError
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.hooks.serving import Deployment, deploy

        registry = MlflowHook(self.mlflow_conn_id).registry
        meant = registry.version_of(self.model, alias=self.alias)
        version = self.version or meant
        if version is None:
            raise NotFoundError("Alias", self.alias, hint=f"{self.model} has no such alias: promote a version first.")
        if version != meant:
            self._check_refusal(registry.version(self.model, version), context)
        deployment = Deployment(
            self.model,
            version,
            plan=self.plan,
            predictions_uri=self.predictions_uri or None,
            port=self.port,
            model_environment=self.model_environment,
            poll_interval=self.poll_interval,
            restore_alias=self.alias if self.restore_alias else None,
            mlflow_conn_id=self.mlflow_conn_id,
        )
        return deploy(deployment, context, self.log)

    def _check_refusal(self, candidate: ModelVersion, context: Context) -> None:
        from airflow_provider_mlops.errors import GateRefused
        from airflow_provider_mlops.hooks.journal import JournalHook, record_once
        from airflow_provider_mlops.journal import kinds, model_stream, payloads, read_intact
        from airflow_provider_mlops.promotion import refusal

        said = refusal(read_intact(JournalHook().journal, model_stream(self.model)), candidate, self.alias)
        if said is None:
            return
        if not self.unsafe_override:
            raise GateRefused(
                f"{self.model} version {candidate.version} is not deployed: {said} Evaluate it again, or say why it "
                "shall serve all the same with unsafe_override, which is journaled."
            )
        used = payloads.override_used(what=f"gate: {said}", why=self.unsafe_override, version=candidate.version)
        record_once(self.model, kinds.OVERRIDE_USED, used, context, once=("what", "why", "version"))
