"""
What this package raises, classed by what the reader can do about it:

* MlopsError
  x ConfigError (ValueError)       an argument, file or connection is wrong: mend it
  x DataError (ValueError)         the data cannot answer the question: look at it
  x ServiceError                   a service refused or failed: a retry may help
    + NotFoundError (LookupError)  the named thing does not exist there
    + ConflictError                somebody else wrote first: read again and decide anew
  x JobFailedError                 the user's own code ended badly: read its log
  x SmokeTestFailedError           the model's server did not do what it must: read its log
  x GateRefused                    the candidate was judged and is not good enough
  x PromotionConflictError         the champion is not the one this promotion was decided against
  x RolloutFailedError             the rollout ended, and the new version does not serve
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "ConflictError",
    "DataError",
    "GateRefused",
    "JobFailedError",
    "MlopsError",
    "NotFoundError",
    "PromotionConflictError",
    "RolloutFailedError",
    "ServiceError",
    "SmokeTestFailedError",
    "did_you_mean",
]


class MlopsError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigError(MlopsError, ValueError):
    """An argument, a pipeline file, a setting or a connection is wrong. A retry will not help."""


class DataError(MlopsError, ValueError):
    """The data is missing, unreadable or cannot answer the question that was asked of it."""


class ServiceError(MlopsError):
    """A service refused, timed out or failed. A retry may help."""


class NotFoundError(ServiceError, LookupError):
    """The named thing does not exist in the service."""

    def __init__(self, kind: str, name: str, *, known: Iterable[str] = (), hint: str = "") -> None:
        super().__init__(f"{kind} {name!r} was not found.{did_you_mean(name, known)}{' ' if hint else ''}{hint}")


class ConflictError(ServiceError):
    """Somebody else wrote first. Read the state again and decide anew."""


class JobFailedError(MlopsError):
    """
    A job of the user's own code ended badly, or ended well without what it owed.

    :param sentence: what happened, in one line; also an attribute.
    :param tail: the last lines of the job's log, which its task has logged already.
    """

    def __init__(self, sentence: str, *, tail: str = "") -> None:
        super().__init__(f"{sentence}\nIts last lines:\n{tail}" if tail else sentence)
        self.sentence = sentence


class SmokeTestFailedError(MlopsError):
    """A version's server did not get ready, answered something else than offline, or did not survive bad input."""


class GateRefused(MlopsError):  # noqa: N818 - a refusal is an outcome, not a defect
    """The candidate was judged and refused. The message carries the reason codes and the numbers."""


class PromotionConflictError(MlopsError):
    """The champion is no longer the one that this promotion was decided against."""


class RolloutFailedError(MlopsError):
    """The rollout ended and the new version does not serve."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Return ``" Did you mean 'x' or 'y'?"`` for the names in *known* close to *name*, else ``""``.

    >>> did_you_mean("champoin", ["champion", "challenger"])
    " Did you mean 'champion'?"
    """
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
