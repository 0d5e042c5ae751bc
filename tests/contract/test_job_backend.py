"""What every job backend must do. A new backend joins by one line in BACKENDS."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import pytest

from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.jobs import JobPhase, JobSpec
from fakes.jobs import MemoryJobs


def ending(text: str, code: int) -> tuple[str, ...]:
    """The command of a job that writes *text* and ends with *code*, for a backend that runs programs."""
    return (sys.executable, "-c", f"import sys; sys.stdout.write({text!r}); sys.exit({code})")


def lasting(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import time; print({text!r}, end='', flush=True); time.sleep(600)")


BACKENDS = [
    pytest.param(
        (lambda folder: MemoryJobs(), lambda text, code: (text, str(code)), lambda text: (text, "forever")), id="memory"
    ),
    pytest.param((ProcessBackend, ending, lasting), id="process"),
]


@pytest.fixture(params=BACKENDS)
def place(request, tmp_path):
    make, ends, lasts = request.param
    backend = make(tmp_path / "jobs")
    backend.ends, backend.lasts = ends, lasts
    return backend


def settled(backend, name, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (status := backend.status(name)).phase.is_final:
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def whole_log(backend, name):
    text, after = backend.logs(name)
    pages = [text]
    while text:
        text, after = backend.logs(name, after)
        pages.append(text)
    return "".join(pages)


def test_a_job_that_was_never_submitted_is_unknown_and_has_no_log(place):
    assert place.status("nobody").phase is JobPhase.UNKNOWN
    assert place.logs("nobody") == ("", 0)
    place.cancel("nobody")
    assert place.status("nobody").phase is JobPhase.UNKNOWN


def test_a_job_that_ends_well_has_succeeded(place):
    place.submit(JobSpec("good", place.ends("trained\n", 0)))
    status = settled(place, "good")
    assert (status.phase, status.exit_code, status.reason) == (JobPhase.SUCCEEDED, 0, "")
    assert whole_log(place, "good") == "trained\n"


def test_a_job_that_ends_badly_says_its_exit_code(place):
    place.submit(JobSpec("bad", place.ends("oops\n", 3)))
    status = settled(place, "bad")
    assert (status.phase, status.exit_code) == (JobPhase.FAILED, 3)
    assert status.reason == "It ended with exit code 3."
    assert whole_log(place, "bad") == "oops\n"


def test_submitting_twice_is_submitting_once(place):
    place.submit(JobSpec("once", place.ends("first\n", 0)))
    settled(place, "once")
    place.submit(JobSpec("once", place.ends("second\n", 1)))
    assert settled(place, "once").phase is JobPhase.SUCCEEDED
    assert whole_log(place, "once") == "first\n"


def test_submitting_a_job_that_runs_leaves_it_alone(place):
    place.submit(JobSpec("busy", place.lasts("first")))
    place.submit(JobSpec("busy", place.ends("second", 0)))
    assert place.status("busy").phase is JobPhase.RUNNING
    place.cancel("busy")
    settled(place, "busy")


def test_a_canceled_job_has_failed_and_says_so(place):
    place.submit(JobSpec("stop", place.lasts("working")))
    place.cancel("stop")
    place.cancel("stop")
    status = settled(place, "stop")
    assert status.phase is JobPhase.FAILED
    assert status.reason == "It was canceled."


def test_cancelling_what_has_ended_changes_nothing(place):
    place.submit(JobSpec("done", place.ends("", 0)))
    settled(place, "done")
    place.cancel("done")
    assert place.status("done").phase is JobPhase.SUCCEEDED


def test_a_log_is_read_on_from_any_offset(place):
    place.submit(JobSpec("log", place.ends("one\ntwo\n", 0)))
    settled(place, "log")
    assert place.logs("log", 4) == ("two\n", 8)
    assert place.logs("log", 8) == ("", 8)
    assert place.logs("log", 99) == ("", 99)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "a_b", "-a", "a-", "a" * 64, "a\n", ".", "ä"])
def test_a_name_that_could_lead_elsewhere_is_refused(place, name):
    for ask in (place.status, place.logs, place.cancel):
        with pytest.raises(ConfigError, match="is no job name"):
            ask(name)
    with pytest.raises(ConfigError, match="is no job name"):
        JobSpec(name, ("true",), run_timeout=timedelta(seconds=1))
