"""Which job a task attempt works on: a crash adopts, a recorded outcome starts the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.jobs import (
    Adopt,
    JobPhase,
    Outcome,
    Run,
    Start,
    Step,
    identity_tags,
    next_attempt,
    next_step,
)
from fakes.tracking import MemoryTracking

TASK = ("fraud", "manual__1", "train", -1)


def run(name: str, n: int | str | None = None, outcome: Outcome | None = None, generation: str = "0") -> Run:
    tags = {} if n is None else {"mlops.attempt": str(n), "mlops.generation": generation}
    if outcome is not None:
        tags["mlops.outcome"] = outcome.value
    return Run(name, "1", name, "RUNNING", tags, {}, {}, "")


@pytest.mark.parametrize(
    ("runs", "decision"),
    [
        pytest.param([], Start(1), id="the first attempt"),
        pytest.param([run("a", 1)], Adopt(run("a", 1), 1), id="a crash after the run was made"),
        pytest.param([run("a", 1, Outcome.SUCCEEDED, "9")], Start(2), id="a clear of a success"),
        pytest.param(
            [run("a", 1, Outcome.SUCCEEDED)], Adopt(run("a", 1, Outcome.SUCCEEDED), 1), id="a success Airflow missed"
        ),
        pytest.param([run("a", 1, generation="9")], Adopt(run("a", 1, generation="9"), 1), id="a clear while it runs"),
        pytest.param([run("a", 1, Outcome.FAILED)], Start(2), id="a retry of a failure"),
        pytest.param([run("a", 1, Outcome.LOST)], Start(2), id="a retry of a lost job"),
        pytest.param([run("b", 2), run("a", 1, Outcome.LOST)], Adopt(run("b", 2), 2), id="a crash of the second job"),
        pytest.param([run("b", 2, Outcome.FAILED), run("a", 1)], Start(3), id="only the highest number counts"),
        pytest.param([run("j", 10), run("b", 2)], Adopt(run("j", 10), 10), id="numbers are numbers"),
        pytest.param([run("late", 1), run("early", 1)], Adopt(run("early", 1), 1), id="two for one: the older"),
        pytest.param(
            [run("late", 1, Outcome.LOST), run("early", 1)], Adopt(run("early", 1), 1), id="of the older alone"
        ),
        pytest.param([run("by hand"), run("odd", "x")], Start(1), id="runs of somebody else"),
    ],
)
def test_what_the_next_attempt_works_on(runs, decision):
    assert next_attempt(runs, "0") == decision


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([None, *Outcome]))))
def test_a_job_is_never_started_under_a_number_that_is_in_use(numbers):
    decision = next_attempt([run(str(index), n, outcome) for index, (n, outcome) in enumerate(numbers)], "0")
    highest = max((n for n, _ in numbers), default=0)
    assert decision.n == highest + isinstance(decision, Start)


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        (JobPhase.UNKNOWN, Step.SUBMIT),
        (JobPhase.PENDING, Step.WAIT),
        (JobPhase.RUNNING, Step.WAIT),
        (JobPhase.SUCCEEDED, Step.READ),
        (JobPhase.FAILED, Step.FAIL),
        (JobPhase.TIMED_OUT, Step.FAIL),
        (JobPhase.LOST, Step.REPLACE),
    ],
)
def test_what_is_done_with_a_job_that_was_found(phase, step):
    assert next_step(phase) is step


def test_every_phase_has_a_step():
    assert {next_step(phase) for phase in JobPhase} == set(Step)


def test_a_phase_knows_whether_it_is_final():
    assert [phase for phase in JobPhase if phase.is_final] == [
        JobPhase.SUCCEEDED,
        JobPhase.FAILED,
        JobPhase.TIMED_OUT,
        JobPhase.LOST,
    ]


def test_the_runs_of_one_task_instance_are_found_by_its_tags():
    tracking = MemoryTracking()
    experiment = tracking.experiment("fraud")

    def decide():
        return next_attempt(tracking.find_runs(experiment, tags=identity_tags(*TASK)), "0")

    assert decide() == Start(1)
    other = identity_tags("fraud", "manual__2", "train", -1, 1)
    tracking.create_run(experiment, name="other", tags=other)
    made = tracking.create_run(experiment, name="1", tags=identity_tags(*TASK, 1))
    assert decide() == Adopt(made, 1)
    tracking.log(made.run_id, tags={"mlops.outcome": Outcome.FAILED})
    assert decide() == Start(2)
