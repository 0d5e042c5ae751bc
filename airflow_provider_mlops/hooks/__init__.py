"""From an Airflow connection to an adapter. A hook has no verbs of its own."""
