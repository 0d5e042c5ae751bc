"""Where data is, which part of it is meant, and which frozen version of it was used."""

from airflow_provider_mlops.data.values import DataRef, DataVersion, Window, parse_duration, parse_time

__all__ = ["DataRef", "DataVersion", "Window", "parse_duration", "parse_time"]
