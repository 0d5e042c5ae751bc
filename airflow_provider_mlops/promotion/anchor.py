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

    That is a version that the gate has passed without it: shown to be better than its champion, or the first one. Or
    one that no gate has judged, which a person put there. ``None`` when there is none, or when it is the champion
    itself.

    :param entries: the model's whole stream, oldest first.
    """
    decisions = [entry.record.payload for entry in entries if entry.record.kind == kinds.GATE_DECIDED]
    judged = {decision["run_id"] for decision in decisions}
    # Any passed decision, not the last: a run that is judged again, now by other rules, has won nothing by that.
    won = {
        decision["run_id"]
        for decision in decisions
        if decision["verdict"] == "passed" and not decision["numbers"].get("non_inferiority")
    }
    folded = state(entries)
    gone = folded.rolled_back(alias)
    for move in reversed(folded.moves):
        version = move.version
        if move.alias != alias or version is None or version in gone:
            continue
        run = folded.runs.get(version)
        if run in won or run not in judged:
            return None if version == folded.champion(alias) else version
    return None
