"""What Airflow reads about this provider, in every process: a plain mapping and no imports."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_PACKAGE = "airflow_provider_mlops"


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": "MLOps", "python-modules": [f"{_PACKAGE}.{name}" for name in names]}]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata (``airflow/provider_info.schema.json``)."""
    return {
        "package-name": "airflow-provider-mlops",
        "name": "MLOps",
        "description": "Continuous training: drift, gates, promotion and rollout of machine learning models.",
        "integrations": [
            {
                "integration-name": "MLOps",
                "external-doc-url": "https://github.com/airflow-provider-mlops/airflow-provider-mlops",
                "tags": ["ml"],
            }
        ],
        "operators": _modules(
            "operators.prepare",
            "operators.data",
            "operators.validation",
            "operators.drift",
            "operators.retraining",
            "operators.training",
            "operators.evaluation",
            "operators.approval",
            "operators.model",
            "operators.deployment",
        ),
        "sensors": _modules("sensors.drift", "sensors.model"),
        "triggers": _modules("triggers.data", "triggers.model"),
        "hooks": _modules("hooks.mlflow", "hooks.journal"),
        "connection-types": [
            {
                "connection-type": "mlflow",
                "hook-class-name": f"{_PACKAGE}.hooks.mlflow.MlflowHook",
                "hook-name": "MLflow",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {"host": "Tracking server", "login": "User", "password": "Password"},
                    "placeholders": {"host": "https://mlflow.example.com", "port": "5000"},
                },
                "conn-fields": {
                    "token": {
                        "label": "Bearer token, instead of user and password",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "verify": {
                        "label": "Verify the TLS certificate",
                        "schema": {"type": "boolean", "default": True},
                    },
                },
            }
        ],
        "task-decorators": [
            {"name": "train_model", "class-name": f"{_PACKAGE}.decorators.training.train_model_task"},
        ],
        "asset-uris": [{"schemes": ["mlops-drift", "mlops-data"], "handler": None}],
        "cli": [f"{_PACKAGE}.cli.airflow_commands.get_commands"],
        "config": {
            "mlops": {
                "description": "Continuous training of machine learning models.",
                "options": {
                    "storage": {
                        "description": (
                            "Folder for data snapshots, job logs, drift reports, local serving and the default "
                            "journal. Empty: the folder mlops below the Airflow home."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/airflow/mlops",
                        "default": "",
                    },
                    "journal_conn_id": {
                        "description": (
                            "SQL connection that holds the journal of decisions. Empty: a SQLite file in the "
                            "storage folder, which works with LocalExecutor only."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "mlops_journal",
                        "default": "",
                    },
                    "target": {
                        "description": "Which entry of a pipeline file's `targets:` applies on this deployment.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "prod",
                        "default": "",
                    },
                },
            }
        },
    }
