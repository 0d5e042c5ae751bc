"""Gathers what a run and its model say of themselves, and writes the card of the version that was made from them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import NotFoundError
from airflow_provider_mlops.hooks.evaluation import EVALUATION_PATH, GATE_PATH, importance_of
from airflow_provider_mlops.hooks.training import PROFILE_PATH, hyperparameters_of

if TYPE_CHECKING:
    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.hooks.mlflow import MlflowHook
    from airflow_provider_mlops.jobs.tracking import LoggedModel, Tracking
    from airflow_provider_mlops.promotion.registry import ModelVersion

__all__ = ["CARD_PATH", "ModelEnvironment", "environment_of", "write_card"]

CARD_PATH = "mlops/model_card"
"""Where a run keeps the card of its model, with the endings ``.md`` and ``.html``."""

_LINEAGE = {
    "mlops.data_digest": "Data digest",
    "mlops.code_digest": "Code digest",
    "mlflow.source.git.commit": "Git commit",
    "mlops.dag_run": "DAG run",
    "mlops.seed": "Seed",
    "mlops.gate_digest": "Gate decision",
    "mlops.environment": "Environment",
}


@dataclass(frozen=True)
class ModelEnvironment:
    """
    What a model says it needs: the lock of its environment, as far as its versions are fixed.

    :param python: version of Python, ``None`` when the model does not say.
    :param requirements: lines of its ``requirements.txt``.
    :param digest: ``sha256:`` and 64 hexadecimal digits over both; ``None`` when there are no requirements.
    """

    python: str | None
    requirements: tuple[str, ...]
    digest: str | None


def environment_of(tracking: Tracking, model: LoggedModel) -> ModelEnvironment:
    """Return the environment that a logged model asks for."""
    requirements = _text(tracking, model, "requirements.txt")
    found = re.search(r"^python:\s*['\"]?([0-9][\w.]*)", _text(tracking, model, "python_env.yaml"), re.MULTILINE)
    python = found[1] if found else None
    lines = tuple(line.strip() for line in requirements.splitlines() if line.strip())
    lock = "\n".join([f"python {python or ''}", *lines])
    return ModelEnvironment(python, lines, f"sha256:{hashlib.sha256(lock.encode()).hexdigest()}" if lines else None)


def write_card(hook: MlflowHook, version: ModelVersion, run_id: str, environment: ModelEnvironment) -> None:
    """
    Write the card of *version* into its run (``mlops/model_card.md`` and ``.html``) and its first paragraph on it.

    What the run does not hold is left out of the card, and named under its limits.
    """
    from airflow_provider_mlops.evaluation.card import CardFacts, card

    tracking = hook.tracking
    profile = _profile(tracking, run_id)
    facts = CardFacts(
        model=version.model,
        version=version.version,
        gate=_json(tracking, run_id, GATE_PATH),
        judged=_json(tracking, run_id, EVALUATION_PATH) or {},
        importance=importance_of(tracking, run_id),
        training_rows=profile.rows if profile else None,
        training_span=(profile.start, profile.end) if profile else (None, None),
        watched=tuple(profile.columns) if profile else None,
        lineage={
            "MLflow run": run_id,
            **{name: version.tags[tag] for tag, name in _LINEAGE.items() if tag in version.tags},
        },
        hyperparameters=hyperparameters_of(version.tags.get("mlops.hyperparameters")),
        python=environment.python,
        requirements=environment.requirements,
    )
    written = card(facts)
    tracking.log_text(run_id, written.markdown, f"{CARD_PATH}.md")
    tracking.log_text(run_id, written.html, f"{CARD_PATH}.html")
    hook.registry.describe(version.model, version.version, written.summary)


def _profile(tracking: Tracking, run_id: str) -> DataProfile | None:
    from airflow_provider_mlops.drift.profile import DataProfile

    try:
        return DataProfile.from_json(tracking.read_text(run_id, PROFILE_PATH), source=f"{PROFILE_PATH} of run {run_id}")
    except NotFoundError:
        return None


def _json(tracking: Tracking, run_id: str, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(tracking.read_text(run_id, path))
    except NotFoundError:
        return None
    return found


def _text(tracking: Tracking, model: LoggedModel, path: str) -> str:
    try:
        return tracking.read_model_text(model.uri, path)
    except NotFoundError:
        return ""
