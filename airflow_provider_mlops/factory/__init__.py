"""From a pipeline file, or the same words in Python, to DAGs."""

from airflow_provider_mlops.factory.build import continuous_training_dags, load_dags

__all__ = ["continuous_training_dags", "load_dags"]
