"""The port to whatever serves models: a process on this machine, a cluster, a managed service."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from airflow_provider_mlops.rollout.analysis import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mlops.rollout.state import RolloutState

__all__ = ["Action", "Arm", "Observation", "Role", "Target"]


class Role(StrEnum):
    """What a version is to a target that treats versions differently."""

    STABLE = "stable"
    """It serves, or is to serve, everything."""

    CANDIDATE = "candidate"
    """It is on trial: when nobody renews it, it must go away by itself where the target can arrange that."""

    PREVIOUS = "previous"
    """It has just been replaced and is kept warm without traffic."""


@dataclass(frozen=True, slots=True)
class Action:
    """
    One version that is to serve. A look's actions are the *whole* wish: what is not among them is drained and ended.

    :param version: the version.
    :param model: where its files are; what that means is the target's matter.
    :param percent: its share of traffic, 0..100; at 0 it runs and is ready, without traffic.
    :param role: see `Role`.
    """

    version: str
    model: str
    percent: int
    role: Role


@dataclass(frozen=True, slots=True)
class Arm:
    """
    What is seen of one version.

    :param percent: the share of traffic that it is given now, which may not yet be the share asked for. A target that
        can only come near a share says the share asked for when it is as near as it can be.
    :param ready: whether it can answer.
    :param restarts: how often it ended by itself since it was first asked for.
    :param counts: what it has answered since the counters began.
    """

    percent: float
    ready: bool
    restarts: int = 0
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What one look at a target shows.

    :param arms: by version.
    :param counter: identity of the counters. It changes when they begin anew: when the shares of traffic change, so
        that a client counts once per step, and when whoever counts was restarted.
    :param error: why the target could not be read; then the rest means nothing.
    """

    arms: Mapping[str, Arm]
    counter: str = ""
    error: str | None = None


class Target(Protocol):
    """Serves the versions of models, by share of traffic, and keeps the rollout's state beside them."""

    def read_state(self, name: str) -> tuple[RolloutState | None, str]:
        """Return the state last written for *name* and its token; ``(None, "")`` when there is none."""

    def write_state(self, name: str, state: RolloutState, expected_token: str) -> str:
        """
        Write *state* if the state there still has *expected_token*; return the new token.

        :raises ConflictError: somebody else wrote first; nothing was written.
        """

    def observe(self, name: str) -> Observation:
        """
        Return what serves *name* now. Changes nothing.

        :raises ServiceError: it cannot be read just now. A target that serves nothing yet is no error: no arms.
        """

    def act(self, name: str, actions: tuple[Action, ...]) -> None:
        """
        Make *actions* the whole wish for *name*. Idempotent, called at every look; does not wait for readiness.

        A target whose candidates hold a lease renews it here.

        :raises ServiceError: it could not be asked for just now.
        """
