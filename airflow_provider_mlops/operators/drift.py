"""Checking the data of a model in use for drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_provider_mlops.links import DriftReportLink
from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["CheckDataDriftOperator", "drift_asset"]

_ALIAS = "mlops-drift"


def drift_asset(model: str) -> Asset:
    """Return the asset that a check updates when it finds drift: ``DAG(schedule=[drift_asset("rain")])``."""
    return Asset(f"mlops-drift://{model}")


class CheckDataDriftOperator(MlopsOperator):
    """
    Compare the newest data of a model with the data that it was trained on.

    The champion's profile is the reference; where its run says how much each input matters to the model
    (`EvaluateModelOperator` stores it), the least important columns that hold under 5 % together do not count. Drift is
    no failure: the verdict is returned, written to the journal as ``drift.checked`` (and ``data.quarantined`` for data
    that breaks its contract), and explained in a report. A retry writes nothing twice. A model without champion gives
    ``no_data`` with the reason ``no_champion``.

    Returns ``{"verdict", "reason", "sentence", "top_columns", "report_uri", "data_digest", "window_end", "variation",
    "run_id", "experiment_id"}``, the last two of the champion's MLflow run, to whose report the task links; the verdict
    is ``drift``, ``no_drift``, ``insufficient``, ``bad_data`` or ``no_data``.

    :param model: the registered model whose data is watched; with *reference_profile* any name for the journal and
        the reports. (templated)
    :param data: the data to judge, as keys of a `DataRef`: ``path``, ``timestamp``, ``columns``, ...; instead of
        ``path`` also ``table`` or ``query`` with ``conn_id``, an SQL connection, whose database then counts the rows
        itself, each statement for the task's ``execution_timeout`` (one hour) at most. (templated)
    :param served_by: in place of *data* the URL of a deployed model (`LocalTarget.url`), or those of all its replicas:
        what they were asked since they started is judged, by version. (templated)
    :param reference_profile: path or URL of a stored profile to compare with instead of the champion's. (templated)
    :param window: judge the newest span of this length, ``7d``; all rows without it. (templated)
    :param as_of: where the window ends, ISO 8601; without it, with the newest row. (templated)
    :param trailing: compare the window also with the time of this length just before it, ``28d``: finds sudden
        changes, and the report tells them from gradual ones. (templated)
    :param max_rows: of Parquet files with more rows only about so many are read, spread over files and time; at least
        as many as *ignore_shift_below* takes.
    :param ignore_shift_below: smallest change that matters, a share 0..1.
    :param false_alarms_per_30_days: expected number of false alarms that is accepted.
    :param checks_per_30_days: how many windows are checked in that time.
    :param min_rows: a window with fewer rows is ``no_data``.
    :param exclude: columns that are not judged. (templated)
    :param asset: emit an event of the asset ``mlops-drift://MODEL`` when there is drift, and only then, with
        ``report_uri`` and ``top_columns`` in its extra.
    :param short_circuit: skip the tasks directly downstream unless there is drift.
    :param report_folder: folder or URL below which reports are written; ``reports`` below ``[mlops] storage`` without
        it. (templated)
    :param mlflow_conn_id: the MLflow connection.
    """

    template_fields: Sequence[str] = (
        "model",
        "data",
        "served_by",
        "reference_profile",
        "window",
        "as_of",
        "trailing",
        "exclude",
        "report_folder",
    )
    operator_extra_links = (DriftReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        data: Mapping[str, Any] | None = None,
        served_by: str | Sequence[str] | None = None,
        reference_profile: str | None = None,
        window: str | None = None,
        as_of: str | None = None,
        trailing: str | None = None,
        max_rows: int | None = None,
        ignore_shift_below: float = 0.05,
        false_alarms_per_30_days: float = 1.0,
        checks_per_30_days: float = 30.0,
        min_rows: int = 50,
        exclude: Sequence[str] = (),
        asset: bool = False,
        short_circuit: bool = False,
        report_folder: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.data = data
        self.served_by = served_by
        self.reference_profile = reference_profile
        self.window = window
        self.as_of = as_of
        self.trailing = trailing
        self.max_rows = max_rows
        self.ignore_shift_below = ignore_shift_below
        self.false_alarms_per_30_days = false_alarms_per_30_days
        self.checks_per_30_days = checks_per_30_days
        self.min_rows = min_rows
        self.exclude = exclude
        self.asset = asset
        self.short_circuit = short_circuit
        self.report_folder = report_folder
        self.mlflow_conn_id = mlflow_conn_id
        if asset:
            # An asset in `outlets` gets an event whenever the task succeeds; behind an alias only when one is added.
            self.outlets = [*self.outlets, AssetAlias(_ALIAS)]

    def execute(self, context: Context) -> dict[str, Any]:
        """Check once."""
        from airflow_provider_mlops.hooks.drift_check import DriftCheck, check_drift

        found = check_drift(
            DriftCheck(
                model=self.model,
                data=self.data,
                served_by=self.served_by,
                reference_profile=self.reference_profile,
                window=self.window,
                as_of=self.as_of,
                trailing=self.trailing,
                max_rows=self.max_rows,
                ignore_shift_below=self.ignore_shift_below,
                false_alarms_per_30_days=self.false_alarms_per_30_days,
                checks_per_30_days=self.checks_per_30_days,
                min_rows=self.min_rows,
                exclude=self.exclude,
                report_folder=self.report_folder,
                mlflow_conn_id=self.mlflow_conn_id,
            ),
            context,
            self.log,
        )
        drifted = found["verdict"] == "drift"
        if self.asset and drifted:
            extra = {"report_uri": found["report_uri"], "top_columns": found["top_columns"]}
            context["outlet_events"][AssetAlias(_ALIAS)].add(drift_asset(self.model), extra=extra)
        if self.short_circuit and not drifted:
            self.skip_following(context, found)
        return found
