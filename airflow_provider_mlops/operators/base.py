"""What the operators of this package have in common."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, SkipMixin
from airflow.sdk.exceptions import AirflowTaskTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

__all__ = ["MlopsOperator"]


class MlopsOperator(BaseOperator, SkipMixin):
    """
    An operator that returns a small flat mapping.

    Each of its keys is an XCom of its own as well, so ``train.output["run_id"]`` works.
    """

    def __init__(self, *, multiple_outputs: bool = True, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)

    def on_kill(self) -> None:
        """
        End the task, and its jobs with it; what it leaves half done the next attempt ends.

        On SIGTERM Airflow only calls this and goes on, until it sends SIGKILL. A task that exits may be retried, as one
        whose worker is shut down should be.
        """
        if not isinstance(sys.exception(), AirflowTaskTimeout):  # with which it ends already
            raise SystemExit("The task was told to end.")

    def skip_following(self, context: Context, result: Mapping[str, Any]) -> None:
        """Return *result* and skip all that comes directly after, tear-downs excepted. Call it last."""
        following = [task for task in self.get_direct_relatives(upstream=False) if not task.is_teardown]
        if not following:
            return
        ti = context["ti"]
        # Airflow ends a task that skips others by an exception, which leaves its return value behind.
        for key, value in {**(result if self.multiple_outputs else {}), "return_value": dict(result)}.items():
            ti.xcom_push(key=key, value=value)
        self.skip(ti=ti, tasks=following)
