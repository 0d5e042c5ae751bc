"""The command line: ``mlops`` by itself, ``airflow mlops`` inside Airflow's."""
