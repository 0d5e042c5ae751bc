"""Which version serves: the registry port and the promotion protocol."""

from airflow_provider_mlops.promotion.protocol import (
    ForeignChange,
    Promotion,
    PromotionRequest,
    check_run,
    promote,
    refusal,
    rollback,
)
from airflow_provider_mlops.promotion.registry import ModelVersion, Registry
from airflow_provider_mlops.promotion.state import PromotionState, state

__all__ = [
    "ForeignChange",
    "ModelVersion",
    "Promotion",
    "PromotionRequest",
    "PromotionState",
    "Registry",
    "check_run",
    "promote",
    "refusal",
    "rollback",
    "state",
]
