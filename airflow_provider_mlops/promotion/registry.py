"""The port to a model registry: the few verbs that registration and promotion need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ModelVersion", "Registry", "check_alias", "check_model_name", "is_newer"]

# What MLflow itself refuses in a name ("/", ":"), what would break its search filters (quotes), and control characters.
_MODEL_NAME = re.compile(r"[^/:'\"`\\\x00-\x1f\x7f]{1,255}")
# MLflow keeps "latest" and every v<number> for itself.
_ALIAS = re.compile(r"(?!latest$)(?!v\d+$)[\w-]{1,255}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """
    One version of a registered model.

    :param model: name of the registered model.
    :param version: the registry's own version, a decimal number as text: ``"3"``.
    :param run_id: the run that made it; ``None`` for a version that was registered by hand.
    :param source: where the model is, as the registry knows it (``models:/m-...`` or a URI of an artifact store).
    :param tags: what is written on this version.
    :param aliases: the aliases that point here, sorted.
    :param description: what it is, as Markdown, for those who meet it in the registry; empty without one.
    """

    model: str
    version: str
    run_id: str | None
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    description: str = ""


class Registry(Protocol):
    """
    Named models, their numbered versions, and aliases that each point at one version.

    Every method may raise `ServiceError` when the registry cannot be reached or refuses, and `ConfigError` for a name
    that no registry could hold. Every write may be repeated: asking twice is asking once.
    """

    def create_version(self, model: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> ModelVersion:
        """
        Return the version of *model* that was made from the run *run_id*; create it, and the model, when missing.

        A repeated call returns the version of the first and writes *tags* again, so that a caller that died between
        the two is completed. Of versions that two processes created at the same moment, every later call returns the
        lowest.
        """

    def version(self, model: str, version: str) -> ModelVersion:
        """Return one version. :raises NotFoundError: no such model or version; names those that exist."""

    def versions(self, model: str) -> list[ModelVersion]:
        """Return every version, newest first; none when the model is unknown."""

    def version_of(self, model: str, *, alias: str) -> str | None:
        """Return the version that *alias* points at, or ``None`` when the model or the alias does not exist."""

    def set_alias(self, model: str, *, alias: str, version: str) -> None:
        """Point *alias* at *version*. :raises NotFoundError: no such model or version."""

    def delete_alias(self, model: str, *, alias: str) -> None:
        """Remove *alias*; nothing happens when the model or the alias does not exist."""

    def describe(self, model: str, version: str, text: str) -> None:
        """Make *text*, Markdown, the description of a version. :raises NotFoundError: no such model or version."""


def is_newer(version: str, known: str | None) -> bool:
    """
    Return whether *version* has a higher number than *known*; any has when nothing is *known*.

    :raises ConfigError: *known* is no version.

    >>> is_newer("10", "9")
    True
    """
    if known is None:
        return True
    if not isinstance(known, str) or not known.isdecimal():
        raise ConfigError(f"{known!r} is no version of a registered model. Versions are whole numbers, as text.")
    return int(version) > int(known)


def check_model_name(model: str) -> None:
    """
    Refuse a model name that a registry cannot hold or that a search filter could not quote.

    :raises ConfigError: empty, longer than 255 characters, or with a slash, colon, quote, back-slash or control
        character.
    """
    if not isinstance(model, str) or _MODEL_NAME.fullmatch(model) is None or model != model.strip():
        raise ConfigError(
            f"{model!r} is no name for a registered model. Use 1 to 255 characters without / : \\ quotes, control "
            "characters, or blanks at either end."
        )


def check_alias(alias: str) -> None:
    """
    Refuse an alias that a registry cannot hold.

    :raises ConfigError: anything but letters, digits, ``_`` and ``-``; ``latest`` and ``v1``, ``v2``, ... as well,
        which registries keep for themselves.
    """
    if not isinstance(alias, str) or _ALIAS.fullmatch(alias) is None:
        raise ConfigError(
            f"{alias!r} is no alias. Use 1 to 255 letters, digits, '_' and '-', but neither 'latest' nor a 'v' and a "
            "number: registries keep these for themselves."
        )
