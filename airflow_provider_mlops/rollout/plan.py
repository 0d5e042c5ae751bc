"""How a new version is to take over. Pure: numbers and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mlops.data import parse_duration
from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IfInconclusive", "RolloutPlan", "Strategy"]


class Strategy(StrEnum):
    """How traffic moves."""

    ROLLING = "rolling"
    """Start the new version, move all traffic when it is ready, let the old one go at once. Least memory."""

    BLUE_GREEN = "blue_green"
    """Start the new version, move all traffic when it is ready, keep the old one warm until the bake is over."""

    CANARY = "canary"
    """Give the new version growing shares, and compare it with the old one at each of them."""


class IfInconclusive(StrEnum):
    """What happens when a step's time is up and nothing was proved."""

    ROLLBACK = "rollback"
    """Not proved healthy is not healthy."""

    HOLD = "hold"
    """Stay at the share and keep comparing until the total time is up, then roll back."""

    PROMOTE = "promote"
    """Go on to the next step. Hard stops and the roll back test still hold."""


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """
    How a new version takes over, and what stops it.

    :param strategy: ``rolling``, ``blue_green`` or ``canary``.
    :param weights_percent: the canary's shares of traffic in per cent, rising, each 1..99; only for ``canary``.
    :param min_requests_per_step: requests that the canary answers in a step before it can pass.
        2,500 prove a share of errors below three times the stable one's; see STEP in `rollout.analysis`.
    :param step_timeout: the time a step may take before *if_inconclusive* decides.
    :param if_inconclusive: ``rollback``, ``hold`` or ``promote``.
    :param bake: how long the new version is watched at its last canary share, and again with all traffic.
    :param max_error_rate: share of failed answers (5xx), 0..1, that a healthy version stays below.
    :param max_prediction_shift: largest distance, 0..1, between what the new and the stable version predict at the same
        time, see `rollout.predictions`; 1 accepts any.
    :param error_ceiling: share of failed answers, 0..1, above which the new version is stopped at once.
    :param start_timeout: the time the new version may take to get ready.
    :param total_timeout: wall clock from start to end; then the rollout ends, rolled back.
    :raises ConfigError: a value that contradicts the above.
    """

    strategy: Strategy = Strategy.CANARY
    weights_percent: tuple[int, ...] = ()
    min_requests_per_step: int = 500
    step_timeout: timedelta = timedelta(minutes=30)
    if_inconclusive: IfInconclusive = IfInconclusive.ROLLBACK
    bake: timedelta = timedelta(minutes=5)
    max_error_rate: float = 0.02
    max_prediction_shift: float = 0.2
    error_ceiling: float = 0.25
    start_timeout: timedelta = timedelta(minutes=10)
    total_timeout: timedelta = timedelta(hours=12)

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", _member(Strategy, "strategy", self.strategy))
        object.__setattr__(self, "if_inconclusive", _member(IfInconclusive, "if_inconclusive", self.if_inconclusive))
        object.__setattr__(self, "weights_percent", tuple(self.weights_percent))
        self._check_weights()
        if self.min_requests_per_step < 1:
            raise ConfigError(f"min_requests_per_step: expected a number >= 1, got {self.min_requests_per_step!r}.")
        if not 0 < self.max_error_rate <= self.error_ceiling <= 1:
            raise ConfigError(
                f"max_error_rate ({self.max_error_rate!r}) and error_ceiling ({self.error_ceiling!r}) are shares: "
                "0 < max_error_rate <= error_ceiling <= 1. Write 0.02 for two per cent."
            )
        if not 0 < self.max_prediction_shift <= 1:
            raise ConfigError(
                f"max_prediction_shift: expected a share > 0 and <= 1, got {self.max_prediction_shift!r}."
            )
        for name in ("step_timeout", "start_timeout", "total_timeout"):
            if getattr(self, name) <= timedelta():
                raise ConfigError(f"{name}: expected a time > 0, got {getattr(self, name)}.")
        if self.bake < timedelta():
            raise ConfigError(f"bake: expected a time >= 0, got {self.bake}.")
        if self.total_timeout <= self.bake * (2 if self.weights_percent else 1):
            raise ConfigError(
                f"total_timeout ({self.total_timeout}) is over before the bake ({self.bake}) is: "
                "no rollout could end well. Raise total_timeout or shorten bake."
            )

    def _check_weights(self) -> None:
        weights = self.weights_percent
        if self.strategy is not Strategy.CANARY:
            if weights:
                raise ConfigError(f"weights_percent belong to strategy 'canary', not to {self.strategy.value!r}.")
            return
        if not weights:
            raise ConfigError("A canary needs weights_percent, for example [10, 30, 60].")
        for weight in weights:
            if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= 99:
                raise ConfigError(
                    f"weights_percent: expected whole numbers 1..99, got {weight!r}. 100 follows the last by itself."
                )
        if list(weights) != sorted(set(weights)):
            raise ConfigError(f"weights_percent must rise from step to step, got {list(weights)}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RolloutPlan:
        """
        Return the plan that a plain mapping describes; times are seconds, as `to_dict` writes them, or ``"30m"``.

        :raises ConfigError: an unknown key or a wrong value.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"{key!r} is no key of a rollout plan.{did_you_mean(key, known)}")
        for name in _NUMBERS:
            if name in values and not _is_number(values[name]):
                raise ConfigError(f"{name}: expected a number, got {values[name]!r}.")
        if not isinstance(values.get("weights_percent", ()), list | tuple):
            raise ConfigError(f"weights_percent: expected a list such as [10, 50], got {values['weights_percent']!r}.")
        arguments: dict[str, Any] = {**values, **{name: _time(name, values[name]) for name in _TIMES if name in values}}
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain JSON mapping, times in seconds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **values,
            "strategy": self.strategy.value,
            "if_inconclusive": self.if_inconclusive.value,
            "weights_percent": list(self.weights_percent),
            **{name: values[name].total_seconds() for name in _TIMES},
        }


_Member = TypeVar("_Member", bound=StrEnum)
_TIMES = ("step_timeout", "bake", "start_timeout", "total_timeout")
_NUMBERS = ("min_requests_per_step", "max_error_rate", "max_prediction_shift", "error_ceiling")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _time(name: str, value: Any) -> timedelta:
    if _is_number(value):
        return timedelta(seconds=value)
    try:
        return parse_duration(value)
    except ConfigError:
        raise ConfigError(f'{name}: expected seconds or a duration such as "30m", got {value!r}.') from None


def _member(kind: type[_Member], name: str, value: str) -> _Member:
    known = [member.value for member in kind]
    if value not in known:
        raise ConfigError(f"{name}: {value!r} is none of {', '.join(known)}.{did_you_mean(str(value), known)}")
    return kind(value)
