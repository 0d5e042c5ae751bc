"""The gate: is the candidate good enough, and better than the champion?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.links import MlflowRunLink
from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mlops.evaluation import GateDecision

__all__ = ["EvaluateModelOperator"]

_LISTED = 8  # sentences about rules in the result


class EvaluateModelOperator(MlopsOperator):
    """
    Judge a candidate on rows that it was not trained on, against rules and against the champion.

    A job scores both models on the same frozen rows; the gate then computes metrics with paired intervals. The
    decision is journaled and stored in the candidate's MLflow run (``mlops/gate.json``), and so are what it was judged
    on (``mlops/evaluation.json``) and how much each input matters to it (``mlops/importance.json``).

    Returns ``{"verdict", "reason", "sentence", "digest", "champion", "run_id", "experiment_id", "predictions_uri",
    "judged_before", "rules"}``, the last a sentence per rule (eight at most; all of them are in the run).
    A candidate that does not pass skips all that comes after, or fails the task.

    :param model: name of the registered model. (templated)
    :param run_id: MLflow run of the candidate. (templated)
    :param model_uri: the candidate, as `TrainOperator` returns it. (templated)
    :param data_uri: frozen rows that judge. (templated)
    :param label_column: column with the truth. (templated)
    :param rules: mappings with the keys of `airflow_provider_mlops.evaluation.Rule`. (templated)
    :param train_uri: frozen rows that were trained on; overlap with *data_uri* refuses. Those that `TrainOperator`
        recorded in the run without it. (templated)
    :param timestamp_column: column with the event time: rows near in time are resampled together. (templated)
    :param entity_column: column whose rows belong, and are resampled, together; in a ranking the query. (templated)
    :param champion_alias: alias of the version to compare with.
    :param if_refused: ``skip`` what comes after, or ``fail``.
    :param task: ``binary``, ``multiclass``, ``regression``, ``forecasting`` or ``ranking``; found from rules and labels
        without it.
    :param runs_on: where the scoring job runs, see `TrainOperator`. (templated)
    :param run_timeout: the scoring job is stopped after this time. (templated)
    :param newest: length of the newest window, ``7d``; a candidate that is shown worse there is refused. Needs
        *timestamp_column*; without it all rows count alike. (templated)
    :param max_age: largest age of the newest evaluation row, ``30d``; needs *timestamp_column*. (templated)
    :param as_of: the time that *max_age* counts from, ISO 8601; now without it. (templated)
    :param shap: measure SHAP values as well; the extra ``shap`` where *runs_on* scores models.
    :param mlflow_conn_id: the MLflow connection.
    :raises GateRefused: the candidate did not pass and *if_refused* is ``fail``.
    :raises JobFailedError: the candidate cannot be scored.
    :raises ConfigError: *model_uri* is a model of another run than *run_id*.
    """

    template_fields: Sequence[str] = (
        "model",
        "run_id",
        "model_uri",
        "data_uri",
        "label_column",
        "rules",
        "train_uri",
        "timestamp_column",
        "entity_column",
        "runs_on",
        "run_timeout",
        "newest",
        "max_age",
        "as_of",
    )
    operator_extra_links = (MlflowRunLink(),)

    def __init__(
        self,
        *,
        model: str,
        run_id: str,
        model_uri: str,
        data_uri: str,
        label_column: str,
        rules: Sequence[Mapping[str, Any]],
        train_uri: str | None = None,
        timestamp_column: str | None = None,
        entity_column: str | None = None,
        champion_alias: str = "champion",
        if_refused: str = "skip",
        task: str | None = None,
        runs_on: str | Mapping[str, Any] = "process",
        run_timeout: str = "1h",
        newest: str | None = None,
        max_age: str | None = None,
        as_of: str | None = None,
        shap: bool = False,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.run_id = run_id
        self.model_uri = model_uri
        self.data_uri = data_uri
        self.label_column = label_column
        self.rules = rules
        self.train_uri = train_uri
        self.timestamp_column = timestamp_column
        self.entity_column = entity_column
        self.champion_alias = champion_alias
        self.if_refused = if_refused
        self.task = task
        self.runs_on = runs_on
        self.run_timeout = run_timeout
        self.newest = newest
        self.max_age = max_age
        self.as_of = as_of
        self.shap = shap
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Score, judge, record."""
        import json

        from airflow_provider_mlops.data import parse_duration, parse_time
        from airflow_provider_mlops.errors import ConfigError, GateRefused
        from airflow_provider_mlops.evaluation import GatePolicy, Rule
        from airflow_provider_mlops.evaluation.reuse import warning
        from airflow_provider_mlops.hooks.evaluation import GATE_PATH, Evaluation, check_candidate, evaluate
        from airflow_provider_mlops.hooks.journal import JournalHook, record_once
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.journal import kinds, model_stream, payloads, read_intact
        from airflow_provider_mlops.promotion.anchor import anchor as find_anchor

        if self.if_refused not in {"skip", "fail"}:
            raise ConfigError(f"if_refused: expected 'skip' or 'fail', got {self.if_refused!r}.")
        hook = MlflowHook(self.mlflow_conn_id)
        registry, tracking = hook.registry, hook.tracking
        check_candidate(hook, self.run_id, self.model_uri)
        champion = registry.version_of(self.model, alias=self.champion_alias)
        rules = [Rule.from_dict(rule) for rule in self.rules]
        non_inferiority = any(rule.max_drop_vs_champion is not None for rule in rules)
        anchored = non_inferiority and champion is not None
        stream = model_stream(self.model)
        anchor = find_anchor(read_intact(JournalHook().journal, stream), self.champion_alias) if anchored else None
        judgment = evaluate(
            Evaluation(
                model=self.model,
                run_id=self.run_id,
                candidate_uri=self.model_uri,
                champion=champion,
                champion_uri=registry.version(self.model, champion).source if champion else None,
                anchor_uri=registry.version(self.model, anchor).source if anchor else None,
                data_uri=self.data_uri,
                train_uri=self.train_uri,
                label=self.label_column,
                timestamp=self.timestamp_column,
                entity=self.entity_column,
                rules=rules,
                task=self.task,
                runs_on=self.runs_on,
                run_timeout=parse_duration(self.run_timeout),
                mlflow_conn_id=self.mlflow_conn_id,
                newest=parse_duration(self.newest) if self.newest else None,
                max_age=parse_duration(self.max_age) if self.max_age else None,
                now=parse_time("as_of", self.as_of),
                shap=self.shap,
            ),
            context,
            self.log,
        )
        decision = judgment.decision
        self._tell(decision, champion)
        if reused := warning(judgment.judged_before, alpha=GatePolicy().alpha):
            self.log.warning("  %s", reused)
        tracking.log_text(self.run_id, json.dumps(decision.to_dict(), indent=2), GATE_PATH)
        tracking.log(self.run_id, tags={"mlops.gate": decision.verdict.value, "mlops.gate_digest": decision.digest})
        payload = payloads.gate_decided(
            verdict=decision.verdict.value,
            reason=decision.reason.value,
            sentence=decision.sentence,
            digest=decision.digest,
            run_id=self.run_id,
            champion=champion,
            model_uri=self.model_uri,
            rows_digest=judgment.rows_digest,
            judged_before=judgment.judged_before,
            numbers={
                "rows": decision.rows,
                "rows_needed": decision.rows_needed,
                "bootstrap": decision.bootstrap,
                "non_inferiority": non_inferiority and not decision.bootstrap,
                "anchor": anchor,
            },
        )
        if decision.champion_ignored:
            used = payloads.override_used(
                what="comparison with the champion",
                why="unsafe_ignore_champion: true in the rules",
                run_id=self.run_id,
            )
            record_once(self.model, kinds.OVERRIDE_USED, used, context, once=("what", "run_id"))
        record_once(
            self.model, kinds.GATE_DECIDED, payload, context, once=("run_id", "digest", "champion"), of="run_id"
        )
        result = {
            "verdict": decision.verdict.value,
            "reason": decision.reason.value,
            "sentence": decision.sentence,
            "digest": decision.digest,
            "champion": champion,
            "run_id": self.run_id,
            "experiment_id": tracking.run(self.run_id).experiment_id,
            "predictions_uri": str(judgment.predictions),
            "judged_before": judgment.judged_before,
            "rules": [outcome.sentence for outcome in decision.rules][:_LISTED],
        }
        if not decision.passed:
            if self.if_refused == "fail":
                raise GateRefused(f"{self.model}: {decision.reason.value}: {decision.sentence}")
            self.skip_following(context, result)
        return result

    def _tell(self, decision: GateDecision, champion: str | None) -> None:
        """Write the decision as a person wants to read it into the task's log."""
        against = f"against champion version {champion}" if champion else "without a champion"
        self.log.info("Gate of %s %s: %s", self.model, against, decision.verdict.value.upper())
        self.log.info("  %s", decision.sentence)
        told = [(f"{o.rule.metric}: {o.verdict} ({o.reason})", o.sentence) for o in decision.rules]
        told += [(finding.reason.value, finding.sentence) for finding in decision.findings]
        for what, sentence in told:
            if sentence not in decision.sentence:
                self.log.info("  %s: %s", what, sentence)
