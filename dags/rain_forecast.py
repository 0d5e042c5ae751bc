"""DAGs of rain_forecast.yaml for Airflow."""

from airflow_provider_mlops.factory import load_dags

load_dags(__file__)  # rain_forecast.yaml -> DAGs rain_forecast__train, rain_forecast__monitor
