"""The human gate: a person is asked, and what was answered is journaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

__all__ = ["ApproveModelOperator"]


class ApproveModelOperator(ApprovalOperator):
    """
    Ask a person whether a version may be promoted, and journal the answer: a no as well as a yes.

    Airflow's `ApprovalOperator`, with all of its arguments: `response_timeout`, `defaults`, `assigned_users`, ...
    After a no, what comes after is skipped. Returns what an `ApprovalOperator` returns, which is what
    `PromoteModelOperator` takes as *approval*.

    :param model: name of the registered model. (templated)
    :param version: version that is asked about. (templated)
    :param subject: the question. (templated)
    :param body: the evidence, Markdown. (templated)
    :param gate_digest: digest of the gate's decision that is shown as evidence. (templated)
    """

    template_fields: Sequence[str] = ("subject", "body", "model", "version", "gate_digest")

    def __init__(
        self,
        *,
        model: str,
        version: str,
        subject: str,
        body: str | None = None,
        gate_digest: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(subject=subject, body=body, **kwargs)
        self.model = model
        self.version = version
        self.gate_digest = gate_digest

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Journal the answer, then do as it says."""
        from airflow_provider_mlops.hooks.approval import record_answer

        if "error" not in event:  # nobody answered in time and there is no default: the task fails
            self.log.info("%s", record_answer(self.model, self.version, event, self.gate_digest, context)[1])
        return super().execute_complete(context, event)
