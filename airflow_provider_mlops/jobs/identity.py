"""
Which job a task attempt works on. Pure: the runs of the tracker go in, a decision comes out.

A task may be killed at any line and run again, by a retry or by a person who cleared it. Its jobs are numbered 1, 2,
3, ...; each has one run in the tracker, tagged with the task instance and the number. A number is used up only when a
task attempt has recorded its outcome on that run. So a crash adopts the job that is still there, a retry after a
recorded failure and a clear train anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_mlops.jobs.backend import JobPhase
from airflow_provider_mlops.jobs.contract import task_instance_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mlops.jobs.tracking import Run

__all__ = [
    "ATTEMPT_TAG",
    "GENERATION_TAG",
    "OUTCOME_TAG",
    "TASK_TAG",
    "Adopt",
    "Outcome",
    "Start",
    "Step",
    "identity_tags",
    "next_attempt",
    "next_step",
]

TASK_TAG = "mlops.task_instance"
"""Tag of a run: the task instance that it was made for, as `task_instance_name` gives it."""
ATTEMPT_TAG = "mlops.attempt"
"""Tag of a run: the number of the job, 1 for the first."""
OUTCOME_TAG = "mlops.outcome"
"""Tag of a run: how its job ended, an `Outcome`, written by the task attempt that saw it."""
GENERATION_TAG = "mlops.generation"
"""Tag of a run: what stays the same over the retries of a task instance and changes when a person clears it."""


class Outcome(StrEnum):
    """How a job ended, as recorded on its run."""

    SUCCEEDED = "succeeded"
    """It did what it owed."""
    FAILED = "failed"
    """Its code failed, or ended well without what it owed."""
    TIMED_OUT = "timed_out"
    """It ran too long."""
    LOST = "lost"
    """It went down with the process that kept it."""


class Step(StrEnum):
    """What to do with an adopted job, by its phase."""

    SUBMIT = "submit"
    """It was never submitted: submit it."""
    WAIT = "wait"
    """It is under way: wait."""
    READ = "read"
    """It succeeded and nobody has read what it made: read and record that."""
    FAIL = "fail"
    """It ended badly and nobody has said so: record that, and fail."""
    REPLACE = "replace"
    """It was lost: record that, end its run as KILLED, and start the next number."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Go on with job *n*, whose run is *run*."""

    run: Run
    n: int


@dataclass(frozen=True, slots=True)
class Start:
    """Make a run for job *n*, search the runs again, and adopt what `next_attempt` then says: two may have made one."""

    n: int


def identity_tags(dag_id: str, run_id: str, task_id: str, map_index: int, n: int | None = None) -> dict[str, str]:
    """
    Return the tags that a job's run carries; without *n* those to search all runs of the task instance by.

    >>> identity_tags("fraud", "r1", "train", -1)
    {'mlops.task_instance': 'fraud-train-827caee753'}
    """
    tags = {TASK_TAG: task_instance_name(dag_id, run_id, task_id, map_index)}
    return tags if n is None else {**tags, ATTEMPT_TAG: str(n)}


def next_attempt(runs: Iterable[Run], generation: str) -> Adopt | Start:
    """
    Return what the next task attempt works on.

    :param runs: all runs of one task instance, newest first, as `Tracking.find_runs` gives them. A run without a
        number in its tags is left out: somebody made it by hand.
    :param generation: what the task instance's retries have in common; another one means that it was cleared.

    ========================================  ==============
    the highest number so far                 decision
    ========================================  ==============
    there is none                             ``Start(1)``
    n, its outcome is not recorded            ``Adopt(n)``
    n, recorded as succeeded, same generation ``Adopt(n)``
    n, its outcome is recorded                ``Start(n + 1)``
    ========================================  ==============

    The third line is the attempt that was killed after it had recorded success and before Airflow knew.

    Two attempts that overlap can make two runs for one number; both then take the older one.
    """
    numbered = {int(run.tags[ATTEMPT_TAG]): run for run in runs if run.tags.get(ATTEMPT_TAG, "").isdecimal()}
    if not numbered:
        return Start(1)
    n, run = max(numbered.items(), key=lambda item: item[0])
    outcome = run.tags.get(OUTCOME_TAG)
    unknown_to_airflow = outcome == Outcome.SUCCEEDED and run.tags.get(GENERATION_TAG) == generation
    return Adopt(run, n) if outcome is None or unknown_to_airflow else Start(n + 1)


def next_step(phase: JobPhase) -> Step:
    """Return what to do with an adopted job that is in *phase*."""
    match phase:
        case JobPhase.UNKNOWN:
            return Step.SUBMIT
        case JobPhase.PENDING | JobPhase.RUNNING:
            return Step.WAIT
        case JobPhase.SUCCEEDED:
            return Step.READ
        case JobPhase.LOST:
            return Step.REPLACE
        case JobPhase.FAILED | JobPhase.TIMED_OUT:
            return Step.FAIL
