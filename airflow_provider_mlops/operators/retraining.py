"""Deciding whether to train now, and giving back a granted training that did not take place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["CloseRetrainingOperator", "DecideRetrainingOperator"]


class DecideRetrainingOperator(MlopsOperator):
    """
    Ask the retraining policy whether to train now; skip what comes after unless it says so.

    The decision and what it rests on (judged windows, trainings, refusals) are in the model's journal. Of many who
    ask at once, one is told to train. A person's run, and one that was granted before it was started, are not judged.

    Returns ``{"verdict", "reason", "sentence", "key", "run_id"}``: *key* names what is trained, *run_id* is a DAG run
    id made from it.

    :param model: name of the registered model. (templated)
    :param data_digest: digest of the data that asks for a training, or would be trained on. (templated)
    :param script: the training script, whose content is part of the key. (templated)
    :param hyperparameters: a mapping, or a JSON object in a string. (templated)
    :param trigger: what asks: ``monitor``, ``schedule``, ``new_data`` or ``manual``. (templated)
    :param granted_key: key of a training that was granted already. (templated)
    :param when: what may start a training: ``schedule``, ``new_data``, ``drift``, ``performance_drop``.
    :param violating_windows: judged windows with a cause, the latest among them, that start a training ...
    :param of_last: ... out of this many latest windows.
    :param cooldown: shortest time from the end of one training to the next, ``3d``.
    :param max_runs_per_30_days: most trainings in 30 days.
    :param breaker_after: after so many refused or failed trainings in a row only a person can start one.
    :param lease: a granted training that has not ended for so long counts as lost; longer than the longest training.
    :param binding: ``False`` notes what would be decided; it counts nowhere.
    """

    template_fields: Sequence[str] = ("model", "data_digest", "script", "hyperparameters", "trigger", "granted_key")

    def __init__(
        self,
        *,
        model: str,
        data_digest: str,
        script: str,
        hyperparameters: str | Mapping[str, Any] | None = None,
        trigger: str = "monitor",
        granted_key: str = "",
        when: Sequence[str] = ("schedule",),
        violating_windows: int = 2,
        of_last: int = 3,
        cooldown: str = "3d",
        max_runs_per_30_days: int = 5,
        breaker_after: int = 3,
        lease: str = "2d",
        binding: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.data_digest = data_digest
        self.script = script
        self.hyperparameters = hyperparameters
        self.trigger = trigger
        self.granted_key = granted_key
        self.when = when
        self.violating_windows = violating_windows
        self.of_last = of_last
        self.cooldown = cooldown
        self.max_runs_per_30_days = max_runs_per_30_days
        self.breaker_after = breaker_after
        self.lease = lease
        self.binding = binding

    def execute(self, context: Context) -> dict[str, str]:
        """Decide, record, and skip what comes after unless the answer is yes."""
        from pathlib import Path

        from airflow_provider_mlops.adapters.code import freeze_script
        from airflow_provider_mlops.errors import ConfigError, did_you_mean
        from airflow_provider_mlops.hooks.settings import storage
        from airflow_provider_mlops.hooks.training import hyperparameters_of
        from airflow_provider_mlops.retraining import Trigger, request_key

        known = [kind.value for kind in Trigger]
        if self.trigger not in known:
            raise ConfigError(f"trigger: {self.trigger!r} is none of {known}.{did_you_mean(self.trigger, known)}")
        code = freeze_script(Path(self.script), storage())
        key = self.granted_key or request_key(
            self.model, self.data_digest, code.digest, hyperparameters_of(self.hyperparameters)
        )
        if self.granted_key:
            verdict, reason, sentence = "train", "granted_before", "This training was granted before it was started."
        elif self.trigger == Trigger.MANUAL:
            verdict, reason, sentence = "train", "manual", "A person asked for it."
        else:
            verdict, reason, sentence = self._ask(context, key)
        self.log.info("%s: %s (%s): %s", self.model, verdict.upper(), reason, sentence)
        result = {
            "verdict": verdict,
            "reason": reason,
            "sentence": sentence,
            "key": key,
            "run_id": f"retrain__{key[:24]}",
        }
        if verdict != "train":
            self.skip_following(context, result)
        return result

    def _ask(self, context: Context, key: str) -> tuple[str, str, str]:
        from datetime import UTC, datetime

        from airflow_provider_mlops.data.values import parse_duration
        from airflow_provider_mlops.hooks.journal import JournalHook, actor
        from airflow_provider_mlops.retraining import RetrainPolicy, Trigger, request

        decision = request(
            JournalHook().journal,
            RetrainPolicy(
                when=tuple(self.when),
                violating_windows=self.violating_windows,
                of_last=self.of_last,
                cooldown=parse_duration(self.cooldown),
                max_runs_per_30_days=self.max_runs_per_30_days,
                breaker_after=self.breaker_after,
                lease=parse_duration(self.lease),
            ),
            self.model,
            key=key,
            trigger=Trigger(self.trigger),
            owner=_owner(context),
            actor=actor(context),
            clock=lambda: datetime.now(UTC),
            data_digest=self.data_digest,
            binding=self.binding,
        )
        return decision.verdict.value, decision.reason, decision.sentence


class CloseRetrainingOperator(MlopsOperator):
    """
    Say in the journal that a granted training is over, when it ended without saying so itself.

    A run that was told to train and fails before training starts would else keep everybody waiting until the lease of
    the grant ends. Make it a tear-down (``as_teardown()``) after the training task: it then runs however that ended,
    and says nothing about whether the run succeeded. Running twice is running once.

    Returns ``{"closed"}``: the key of the training that was ended so, or an empty string.

    :param model: name of the registered model. (templated)
    :param key: key of what was to be trained, as `DecideRetrainingOperator` returned it; may be empty. (templated)
    """

    template_fields: Sequence[str] = ("model", "key")

    def __init__(self, *, model: str, key: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.key = key

    def execute(self, context: Context) -> dict[str, str]:
        """Look for a training of this run that has no end, and write one."""
        from datetime import UTC, datetime

        from airflow_provider_mlops.hooks.journal import JournalHook, actor
        from airflow_provider_mlops.retraining import close

        owner = _owner(context)
        closed = close(
            JournalHook().journal,
            self.model,
            key=self.key,
            owner=owner,
            actor=actor(context),
            clock=lambda: datetime.now(UTC),
            sentence=f"The run {owner} came to its end without a trained model.",
        )
        if closed:
            self.log.info("The granted training %s of %s did not take place: recorded as failed.", closed, self.model)
        return {"closed": closed or ""}


def _owner(context: Context) -> str:
    """Return what names a DAG run as one who asks for a training."""
    ti = context["ti"]
    return f"{ti.dag_id} {ti.run_id}"
