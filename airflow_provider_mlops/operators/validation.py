"""Deciding whether data may be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.validation import Contract, ContractCheck

__all__ = ["ValidateDataOperator"]

_LISTED = 20  # violations that an error lists
_JOURNALED = 5  # violations that the journal's sentence quotes


class _Violation(Protocol):
    @property
    def column(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def sentence(self) -> str: ...


class ValidateDataOperator(MlopsOperator):
    """
    Hold data against the champion's profile, a contract and a suite of Great Expectations: whatever is given.

    Data that breaks one of them is ``bad_data``. With a *model* it is quarantined in the model's journal, so that no
    policy trains on it, whatever *if_invalid* says. A champion without a stored profile is passed over with a warning;
    a column that the champion did not know is no violation.

    Returns ``{"verdict", "reason", "violations"}``: ``valid`` or ``bad_data``, the code of the first violation, and
    how many there are.

    :param data_uri: file, folder, glob or URL of the data. (templated)
    :param data_digest: its digest, by which it is quarantined; without it by its URI. (templated)
    :param model: the registered model whose champion's profile is held against the data, and whose journal keeps
        what was found. (templated)
    :param contract: keys of a `validation.Contract`: ``min_rows``, ``unique``, ``ranges``, ``domains``,
        ``null_share``, ``fresh_within``. (templated)
    :param suite: JSON or YAML file with a suite of Great Expectations, in the folder of the DAG or below it; a
        relative path starts there. Needs the extra ``gx``, and the data in memory. (templated)
    :param if_invalid: ``fail`` the task, ``skip`` it and what comes after, or ``warn`` and go on.
    :param timestamp_column: column with the event time; ``fresh_within`` needs it. (templated)
    :param label_column: column that a model predicts, not held against the profile. (templated)
    :param entity_column: column whose rows belong together, not held against the profile. (templated)
    :param as_of: moment that ``fresh_within`` counts back from, ISO 8601; by default the end of the run's data
        interval, else now. (templated)
    :param mlflow_conn_id: the MLflow connection.
    """

    template_fields: Sequence[str] = (
        "data_uri",
        "data_digest",
        "model",
        "contract",
        "suite",
        "timestamp_column",
        "label_column",
        "entity_column",
        "as_of",
    )

    def __init__(
        self,
        *,
        data_uri: str,
        data_digest: str = "",
        model: str | None = None,
        contract: Mapping[str, Any] | None = None,
        suite: str | None = None,
        if_invalid: str = "fail",
        timestamp_column: str | None = None,
        label_column: str | None = None,
        entity_column: str | None = None,
        as_of: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_uri = data_uri
        self.data_digest = data_digest
        self.model = model
        self.contract = contract
        self.suite = suite
        self.if_invalid = if_invalid
        self.timestamp_column = timestamp_column
        self.label_column = label_column
        self.entity_column = entity_column
        self.as_of = as_of
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, journal, and do what *if_invalid* says."""
        from airflow_provider_mlops.errors import ConfigError, did_you_mean

        known = ("fail", "skip", "warn")
        if self.if_invalid not in known:
            near = did_you_mean(self.if_invalid, known)
            raise ConfigError(f"if_invalid: {self.if_invalid!r} is none of {', '.join(known)}.{near}")
        found = {
            "the champion's profile": self._against_champion(),
            "the contract": self._against_contract(context),
            "the suite": self._against_suite(),
        }
        violations = [violation for broken in found.values() for violation in broken or ()]
        if not violations:
            kept = " and ".join(name for name, broken in found.items() if broken is not None)
            self.log.info("%s %s.", self.data_uri, f"keeps {kept}" if kept else "was held against nothing")
            return {"verdict": "valid", "reason": "nothing_broken", "violations": 0}
        self._quarantine(violations, context)
        self._act(violations)
        return {"verdict": "bad_data", "reason": violations[0].code, "violations": len(violations)}

    def _against_champion(self) -> Sequence[_Violation] | None:
        """Return what breaks the champion's profile; ``None`` when there is none."""
        from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
        from airflow_provider_mlops.data import DataRef
        from airflow_provider_mlops.drift.contract import ContractPolicy, check_contract

        reference = self._champion_profile()
        if reference is None:
            return None
        data = DataRef(
            self.data_uri, label=self.label_column, timestamp=self.timestamp_column, entity=self.entity_column
        )
        current = EmbeddedEngine().window(data, layout=reference)
        return check_contract(reference, current, ContractPolicy(allow_extra_columns=True))

    def _champion_profile(self) -> DataProfile | None:
        from airflow_provider_mlops.drift.profile import DataProfile
        from airflow_provider_mlops.errors import NotFoundError
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.hooks.training import PROFILE_PATH

        if not self.model:
            return None
        hook = MlflowHook(self.mlflow_conn_id)
        number = hook.registry.version_of(self.model, alias="champion")
        if number is None:
            self.log.info("%s has no champion yet whose profile could be held against the data.", self.model)
            return None
        version = hook.registry.version(self.model, number)
        try:
            text = hook.tracking.read_text(version.run_id or "", PROFILE_PATH)
            return DataProfile.from_json(text, source=f"{PROFILE_PATH} of run {version.run_id}")
        except NotFoundError:
            self.log.warning(
                "The champion %s %s has no profile (%s on its MLflow run), so nothing of it is held against the data. "
                "Models trained with TrainOperator have one.",
                self.model,
                number,
                PROFILE_PATH,
            )
            return None

    def _against_contract(self, context: Context) -> Sequence[_Violation] | None:
        """Return what breaks the contract; ``None`` when it asks for nothing."""
        from airflow_provider_mlops.adapters.newest import newest
        from airflow_provider_mlops.data import DataRef
        from airflow_provider_mlops.errors import ConfigError
        from airflow_provider_mlops.validation import Contract

        contract = Contract.from_dict(self.contract or {})
        if contract == Contract():
            return None
        if contract.fresh_within is None:
            return _count(contract, self.data_uri).violations()
        if not self.timestamp_column:
            raise ConfigError("contract.fresh_within needs the column with the event time. Set timestamp_column.")
        return _count(contract, self.data_uri).violations(
            newest=newest(DataRef(self.data_uri, timestamp=self.timestamp_column)), as_of=self._now(context)
        )

    def _now(self, context: Context) -> datetime:
        from datetime import UTC, datetime

        from airflow_provider_mlops.data import parse_time

        return parse_time("as_of", self.as_of) or context.get("data_interval_end") or datetime.now(UTC)

    def _against_suite(self) -> Sequence[_Violation] | None:
        """Return what breaks the suite; ``None`` when there is none."""
        if not self.suite:
            return None
        from airflow_provider_mlops.adapters.great_expectations import check_suite, read_suite

        return check_suite(read_suite(self.suite, self._dag_folder()), self.data_uri)

    def _dag_folder(self) -> Path:
        from pathlib import Path

        from airflow.sdk import conf

        dag = self.get_dag()
        return Path(dag.fileloc).parent if dag is not None else Path(conf.get("core", "dags_folder"))

    def _quarantine(self, violations: Sequence[_Violation], context: Context) -> None:
        if not self.model:
            return
        from airflow_provider_mlops.hooks.journal import record_once
        from airflow_provider_mlops.journal import kinds, payloads

        more = f" And {len(violations) - _JOURNALED} more." if len(violations) > _JOURNALED else ""
        payload = payloads.data_quarantined(
            data_digest=self.data_digest or self.data_uri,
            reason=violations[0].code,
            sentence=" ".join(violation.sentence for violation in violations[:_JOURNALED]) + more,
            columns=list(dict.fromkeys(violation.column for violation in violations if violation.column)),
        )
        record_once(self.model, kinds.DATA_QUARANTINED, payload, context, once=("data_digest", "reason"))

    def _act(self, violations: Sequence[_Violation]) -> None:
        from airflow.sdk.exceptions import AirflowSkipException

        from airflow_provider_mlops.errors import DataError

        lines = [f"  {violation.code}: {violation.sentence}" for violation in violations[:_LISTED]]
        if len(violations) > _LISTED:
            lines.append(f"  and {len(violations) - _LISTED} more.")
        text = f"{self.data_uri} breaks {len(violations)} promise{'s' * (len(violations) > 1)}:\n" + "\n".join(lines)
        if self.if_invalid == "fail":
            raise DataError(f"{text}\nMend the data, or change the contract or the suite where it is wrong.")
        self.log.warning("%s", text)
        if self.if_invalid == "skip":
            raise AirflowSkipException(f"{self.data_uri} is not used: {violations[0].sentence}")


def _count(contract: Contract, path: str) -> ContractCheck:
    """Return the check of *contract* with all rows of *path* counted."""
    from airflow_provider_mlops.adapters.files import scan, schema
    from airflow_provider_mlops.adapters.row_hash import row_hashes
    from airflow_provider_mlops.validation import ContractCheck

    found = schema(path)
    read = [name for name in contract.columns if name in found.names] or found.names[:1]
    identified = bool(contract.unique) and set(contract.unique) <= set(found.names)
    check = ContractCheck(contract)
    for batch in scan(path, columns=read, types={field.name: field.type for field in found}):
        check.add(batch, row_hashes(batch, contract.unique) if identified else None)
    return check
