"""DAGs of minimal.yaml for Airflow."""

from airflow_provider_mlops.factory import load_dags

load_dags(__file__)  # minimal.yaml -> DAG minimal__train
