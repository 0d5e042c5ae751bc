"""Has this data moved, and does it matter? Profiles, their comparison, and the port that makes them."""

from __future__ import annotations

from airflow_provider_mlops.drift.check import ColumnReport, DriftPolicy, DriftReport, Variation, Verdict, check
from airflow_provider_mlops.drift.contract import ContractPolicy, Violation, check_contract
from airflow_provider_mlops.drift.engine import Engine
from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.drift.profile import ColumnProfile, DataProfile, Family, ProfileBuilder

__all__ = [
    "ColumnProfile",
    "ColumnReport",
    "ContractPolicy",
    "DataProfile",
    "DriftPolicy",
    "DriftReport",
    "Engine",
    "Family",
    "ProfileBuilder",
    "Variation",
    "Verdict",
    "Violation",
    "check",
    "check_contract",
    "choose_layout",
]
