"""Where a rollout stands: what a crash must not lose. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.rollout.analysis import Tally

__all__ = ["RolloutPhase", "RolloutState"]

_FORMAT = 1
_SUPERSEDED_KEPT = 20


class RolloutPhase(StrEnum):
    """Where a rollout stands."""

    IDLE = "idle"
    """No rollout has been asked for."""

    STARTING = "starting"
    """The new version's servers start; it gets no traffic."""

    PROGRESSING = "progressing"
    """The new version serves its step's share and is compared with the stable version."""

    BAKING = "baking"
    """All steps are passed; the new version is watched at its last share."""

    SETTLING = "settling"
    """The new version serves everything and is watched; with blue_green and canary the old one is kept warm."""

    PROMOTED = "promoted"
    """The new version serves everything and the old one is gone."""

    ROLLED_BACK = "rolled_back"
    """The new version had traffic, was judged and is gone; the stable version serves everything."""

    FAILED = "failed"
    """The new version never served: it did not get ready, or there was nothing to go back to."""

    @property
    def is_final(self) -> bool:
        """Whether a rollout in this phase changes no more."""
        return self in {RolloutPhase.IDLE, RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK, RolloutPhase.FAILED}


@dataclass(frozen=True, slots=True)
class RolloutState:
    """
    Where the rollout of one model stands.

    :param name: the model's name.
    :param request: who asked; the same request is the same rollout, however often it is made.
    :param version: the new version; *model* is where its files are.
    :param stable_version: the version that served before, or ``None``; *stable_model* is where its files are.
    :param phase: see `RolloutPhase`.
    :param step: index into the plan's weights; -1 before the first and without canary steps.
    :param weight: the new version's share of traffic in per cent, as asked of the target.
    :param started_at: wall clock of the start, aware; the total time counts from here.
    :param step_started_at: wall clock at which phase or step began.
    :param reason: code of the last change; *sentence* says it in words.
    :param unready_since: since when the new version has been seen not ready, after it had been.
    :param blind_looks: looks in a row at which the target could not be read.
    :param looks: looks in all.
    :param tally: the evidence.
    :param superseded: requests that a later one has replaced; they can never continue.
    """

    name: str
    request: str
    version: str
    model: str
    stable_version: str | None
    stable_model: str | None
    phase: RolloutPhase
    started_at: datetime
    step_started_at: datetime
    reason: str
    sentence: str
    step: int = -1
    weight: int = 0
    unready_since: datetime | None = None
    blind_looks: int = 0
    looks: int = 0
    tally: Tally = field(default_factory=Tally)
    superseded: tuple[str, ...] = ()

    @property
    def serving(self) -> tuple[str, str] | None:
        """The version, and the place of its files, that serves when this rollout is over or given up."""
        if self.phase is RolloutPhase.PROMOTED:
            return self.version, self.model
        if self.stable_version is None or self.stable_model is None:
            return None
        return self.stable_version, self.stable_model

    def supersede(self) -> tuple[str, ...]:
        """Return the superseded requests of a rollout that replaces this one."""
        if self.phase.is_final:
            return self.superseded
        return (*self.superseded, self.request)[-_SUPERSEDED_KEPT:]

    def to_json(self) -> str:
        """Return the state as JSON text."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in _TIMES:
            values[name] = None if values[name] is None else values[name].isoformat()
        return json.dumps(
            {
                "format": _FORMAT,
                **values,
                "phase": self.phase.value,
                "tally": self.tally.to_dict(),
                "superseded": list(self.superseded),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> RolloutState:
        """
        Return the state that `to_json` wrote.

        :raises DataError: the text is something else, or of a later format.
        """
        try:
            values = dict(json.loads(text))
            written = values.pop("format")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"This is no rollout state: {text[:80]!r} ({error}).") from error
        if written != _FORMAT:
            raise DataError(
                f"This rollout state has format {written!r}; this package reads {_FORMAT}. Update the package."
            )
        try:
            for name in _TIMES:
                values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
            values["phase"] = RolloutPhase(values["phase"])
            values["tally"] = Tally.from_dict(values["tally"])
            values["superseded"] = tuple(values["superseded"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"This rollout state is damaged: {error}.") from error

    def moved(self, phase: RolloutPhase, now: datetime, *, reason: str, sentence: str, **changes: Any) -> RolloutState:
        """Return the state at the beginning of another phase or step."""
        values = {"unready_since": None, "tally": self.tally.next_step(), **changes}
        return replace(self, phase=phase, step_started_at=now, reason=reason, sentence=sentence, **values)


_TIMES = ("started_at", "step_started_at", "unready_since")
