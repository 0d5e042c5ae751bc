"""
Asking for a training: decide and record in one step, so that of many who ask at once one is told to train.

And giving back what was granted and not used, so that nobody waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mlops.journal import Record, append_decided, kinds, model_stream, payloads, read_intact
from airflow_provider_mlops.retraining.history import open_attempt
from airflow_provider_mlops.retraining.policy import RetrainDecision, RetrainPolicy, Trigger, decide

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_provider_mlops.journal import Entry, Journal

__all__ = ["close", "request"]


def request(
    journal: Journal,
    policy: RetrainPolicy,
    model: str,
    *,
    key: str,
    trigger: Trigger,
    owner: str,
    actor: str,
    clock: Callable[[], datetime],
    data_digest: str | None = None,
    binding: bool = True,
) -> RetrainDecision:
    """
    Decide whether to train *model* now, and record the decision on the very state that it was made on.

    :param owner: the same for every attempt of one request (a DAG run); asking twice is asking once.
    :param binding: ``False`` notes what would be decided (``mode: observe``); it starts nothing and counts nowhere.
    :raises ConflictError: others wrote to the model's stream faster, every time.
    :raises DataError: the journal was changed from outside.

    See `decide` for the other parameters.
    """

    def decided(entries: list[Entry]) -> tuple[Record | None, RetrainDecision]:
        now = clock()
        decision = decide(policy, entries, now, key, trigger=trigger, owner=owner, data_digest=data_digest)
        if decision.granted_before:
            return None, decision
        return Record(kinds.RETRAINING_DECIDED, now, actor, decision.to_payload(binding=binding)), decision

    stream = model_stream(model)
    return append_decided(journal, stream, read_intact(journal, stream), decided)


def close(
    journal: Journal, model: str, *, key: str, owner: str, actor: str, clock: Callable[[], datetime], sentence: str
) -> str | None:
    """
    Record that the run which was to train *model* is over, when no end of its training was recorded. Idempotent.

    :param key: key of what the run was to train; empty when it did not come so far.
    :param owner: the run, as it would ask by `request`.
    :param sentence: what happened.
    :return: the key of the training that was ended so; ``None``: there was nothing to end.
    :raises ConflictError: others wrote to the model's stream faster, every time.
    :raises DataError: the journal was changed from outside.
    """

    def ended(entries: list[Entry]) -> tuple[Record | None, str | None]:
        attempt = open_attempt(entries, key=key, owner=owner)
        if attempt is None:
            return None, None
        payload = payloads.training_failed(
            key=attempt.key, run_id=attempt.run_id, reason="abandoned", sentence=sentence
        )
        return Record(kinds.TRAINING_FAILED, clock(), actor, payload), attempt.key

    stream = model_stream(model)
    return append_decided(journal, stream, read_intact(journal, stream), ended)
