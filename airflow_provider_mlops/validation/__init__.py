"""Does this data keep what somebody wrote down about it?"""

from airflow_provider_mlops.validation.contract import Contract, ContractCheck, Violation

__all__ = ["Contract", "ContractCheck", "Violation"]
