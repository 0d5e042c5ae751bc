"""Which of a profile's columns are judged. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_mlops.drift.profile import DataProfile

__all__ = ["select_columns"]


def select_columns(
    profile: DataProfile, *, columns: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> DataProfile:
    """
    Return *profile* with some of its columns; the others are known, and not judged.

    :param columns: the columns to keep; ``None`` keeps all.
    :param exclude: the columns to drop, after that. One that the profile does not know is no error: it may be new.
    :raises ConfigError: *columns* names one that the profile does not know, or nothing is left.
    """
    for name in columns or ():
        if name not in profile.columns:
            raise ConfigError(
                f"Column {name!r} is not in the reference profile.{did_you_mean(name, profile.columns)} "
                f"It has {len(profile.columns)} columns."
            )
    kept = {
        name: column
        for name, column in profile.columns.items()
        if (columns is None or name in columns) and name not in exclude
    }
    if not kept:
        raise ConfigError("No column is left to judge: every column of the reference profile is excluded.")
    segments = profile.segments
    if segments is not None:
        segments = segments.each(
            lambda part: replace(part, columns={name: c for name, c in part.columns.items() if name in kept})
        )
    dropped = [name for name in (*profile.columns, *exclude) if name not in kept]
    return replace(
        profile, columns=kept, segments=segments, excluded=tuple(dict.fromkeys((*profile.excluded, *dropped)))
    )
