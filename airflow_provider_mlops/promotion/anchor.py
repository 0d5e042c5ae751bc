"""Which version small losses are measured against, so that they cannot add up unseen. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mlops.journal import kinds
from airflow_provider_mlops.promotion.state import state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mlops.journal import Entry

__all__ = ["anchor"]


def anchor(entries: Sequence[Entry], alias: str = "champion") -> str | None:
    """
    Return the last version behind *alias* that did not get there by non-inferiority.

    That is a version that was shown to be better than its champion, the first one, or one that a person put there.
    ``None`` when there is none, or when it is the champion itself.

    :param entries: the model's whole stream, oldest first.
    """
    runs = {
        entry.record.payload["version"]: entry.record.payload["run_id"]
        for entry in entries
        if entry.record.kind == kinds.MODEL_REGISTERED
    }
    non_inferior = {
        entry.record.payload["run_id"]: bool(entry.record.payload["numbers"].get("non_inferiority"))
        for entry in entries
        if entry.record.kind == kinds.GATE_DECIDED
    }
    folded = state(entries)
    gone = folded.rolled_back(alias)
    for move in reversed(folded.moves):
        version = move.version
        if move.alias != alias or version is None or version in gone:
            continue
        if not non_inferior.get(runs.get(version), False):
            return None if version == folded.champion(alias) else version
    return None
