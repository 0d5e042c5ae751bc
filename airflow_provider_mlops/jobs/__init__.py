"""A unit of user code that runs elsewhere: what it is, what it is told, and where its outcome is kept."""

from airflow_provider_mlops.jobs.backend import JobBackend, JobPhase, JobSpec, JobStatus
from airflow_provider_mlops.jobs.contract import job_name, training_environment
from airflow_provider_mlops.jobs.identity import Adopt, Outcome, Start, Step, identity_tags, next_attempt, next_step
from airflow_provider_mlops.jobs.tracking import LoggedModel, Run, Tracking

__all__ = [
    "Adopt",
    "JobBackend",
    "JobPhase",
    "JobSpec",
    "JobStatus",
    "LoggedModel",
    "Outcome",
    "Run",
    "Start",
    "Step",
    "Tracking",
    "identity_tags",
    "job_name",
    "next_attempt",
    "next_step",
    "training_environment",
]
