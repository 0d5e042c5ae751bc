"""
How often the same evaluation rows have judged. Pure.

Each candidate is one more chance to pass by luck: of 20 that are no better than the champion, one passes a test at 5 %
with a chance of 64 %. And who looks at what these rows said of the last candidate fits the next one to them.
Source: Dwork et al. (2015), Science 349(6248); Bonferroni for the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mlops.journal import kinds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mlops.journal import Entry

__all__ = ["judged_before", "warning"]


def judged_before(entries: Iterable[Entry], rows_digest: str, run_id: str) -> int:
    """
    Return how many candidates but that of *run_id* the rows have judged.

    :param entries: the model's whole stream.
    :param rows_digest: names the rows, as in ``gate.decided``.
    """
    decisions = [entry.record.payload for entry in entries if entry.record.kind == kinds.GATE_DECIDED]
    return len({p.get("run_id") for p in decisions if p.get("rows_digest") == rows_digest} - {run_id})


def warning(before: int, *, alpha: float) -> str:
    """
    Return what to say, and what to do, when the rows have judged *before* other candidates; ``""`` below 20 in all.

    :param alpha: chance that a candidate which is no better passes, 0..1.

    >>> warning(18, alpha=0.05)
    ''
    >>> warning(19, alpha=0.05).partition(".")[0]
    'These evaluation rows have now judged 20 candidates'
    """
    count = before + 1
    if count < kinds.MANY_CANDIDATES:
        return ""
    return (
        f"These evaluation rows have now judged {count} candidates. Were none of them better than the champion, one "
        f"would have passed by luck with a chance of {1 - (1 - alpha) ** count:.0%}. Judge on rows that are new: a "
        "hold_out given as a duration moves with the data, a share of unchanged data never does."
    )
