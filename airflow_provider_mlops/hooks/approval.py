"""How the answer of a person gets into the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.hooks.journal import record_once

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

__all__ = ["record_answer"]


def record_answer(
    model: str, version: str, answer: Mapping[str, Any], gate_digest: str | None, context: Context
) -> tuple[bool, str]:
    """
    Journal an answer once, and return whether it was a yes, and what it was in words.

    :param answer: what an `ApprovalOperator` returns.
    :param gate_digest: digest of the gate's decision that the person saw.
    :raises ConfigError: *answer* is something else.
    """
    from airflow_provider_mlops.journal import kinds, payloads
    from airflow_provider_mlops.journal.narrative import sentence_of

    try:
        chosen, who, at = list(answer["chosen_options"]), answer["responded_by_user"], answer["responded_at"]
        payload = payloads.approval_answered(
            version=version,
            approved=chosen == ["Approve"],
            chosen=chosen,
            responded_by=None if who is None else {"id": who["id"], "name": who["name"]},
            at=at if at is None or isinstance(at, str) else at.isoformat(),
            gate_digest=gate_digest or None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"approval: {answer!r:.200} is not what an ApprovalOperator returns. Pass approval=approve.output."
        ) from error
    record_once(model, kinds.APPROVAL_ANSWERED, payload, context, once=("version", "responded_by", "at"))
    return payload["approved"], sentence_of(kinds.APPROVAL_ANSWERED, payload)
