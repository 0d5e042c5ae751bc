"""
A job backend in memory, held to the same contract as the real ones.

A job's command is ``(text, exit code)`` and ends at once, or ``(text, "forever")``, which runs until it is canceled,
or until a test says how it ended: ``end("name", JobPhase.LOST)``.
"""

from __future__ import annotations

from airflow_provider_mlops.jobs.backend import JobPhase, JobSpec, JobStatus, check_job_name


class MemoryJobs:
    def __init__(self) -> None:
        self.submitted: dict[str, JobSpec] = {}
        self._statuses: dict[str, JobStatus] = {}

    def submit(self, spec: JobSpec) -> None:
        if spec.name in self.submitted:
            return
        self.submitted[spec.name] = spec
        self._statuses[spec.name] = JobStatus(JobPhase.RUNNING)
        if (ending := spec.command[-1]) != "forever":
            code = int(ending) if ending.isdecimal() else 0
            phase = JobPhase.FAILED if code else JobPhase.SUCCEEDED
            self.end(spec.name, phase, code, f"It ended with exit code {code}." if code else "")

    def end(self, name: str, phase: JobPhase, exit_code: int | None = None, reason: str = "") -> None:
        self._statuses[name] = JobStatus(phase, exit_code, reason)

    def status(self, name: str) -> JobStatus:
        return self._statuses.get(check_job_name(name), JobStatus(JobPhase.UNKNOWN))

    def logs(self, name: str, after: int = 0) -> tuple[str, int]:
        check_job_name(name)
        text = self.submitted[name].command[0].encode() if name in self.submitted else b""
        return text[after:].decode(errors="replace"), max(after, len(text))

    def cancel(self, name: str) -> None:
        if self.status(name).phase is JobPhase.RUNNING:
            self.end(name, JobPhase.FAILED, None, "It was canceled.")

    def kill(self, name: str) -> None:
        if self.status(name).phase is JobPhase.RUNNING:
            self.end(name, JobPhase.TIMED_OUT, None, "It ran longer than its run_timeout.")
