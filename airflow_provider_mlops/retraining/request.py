"""Asking for a training: decide and record in one step, so that of many who ask at once one is told to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConflictError
from airflow_provider_mlops.journal import Record, kinds, model_stream, read_intact
from airflow_provider_mlops.retraining.policy import RetrainDecision, RetrainPolicy, Trigger, decide

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_provider_mlops.journal import Journal

__all__ = ["request"]

_ATTEMPTS = 200  # appends that may lose against other writers of the same stream


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
    stream = model_stream(model)
    entries = read_intact(journal, stream)
    for _ in range(_ATTEMPTS):
        now = clock()
        decision = decide(policy, entries, now, key, trigger=trigger, owner=owner, data_digest=data_digest)
        if decision.granted_before:
            return decision
        record = Record(kinds.RETRAINING_DECIDED, now, actor, decision.to_payload(binding=binding))
        try:
            journal.append(stream, len(entries), record)
        except ConflictError:
            entries += journal.read(stream, after=len(entries))
        else:
            return decision
    raise ConflictError(f"{stream}: {_ATTEMPTS} attempts to record a decision lost against other writers. Try again.")
