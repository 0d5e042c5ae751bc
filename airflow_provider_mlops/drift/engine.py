"""The port through which data becomes profiles, wherever the data lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow_provider_mlops.data import DataRef, Window
    from airflow_provider_mlops.drift.profile import DataProfile

__all__ = ["Engine"]


class Engine(Protocol):
    """
    Counts data where it lies. Every engine gives the same counts for the same rows and layout.

    Columns named as label, timestamp or entity of the `DataRef` are never judged.
    """

    def reference(
        self,
        data: DataRef,
        *,
        window: Window | None = None,
        block: timedelta | None = None,
        exclude: Sequence[str] = (),
        text: Sequence[str] | None = None,
        segment: str | None = None,
    ) -> DataProfile:
        """
        Choose bins for *data* and count it on them.

        The bins follow from the data alone (a seeded sample): the same rows give the same profile.

        :param window: the span of event time to read; all of it by default. Needs ``data.timestamp``.
        :param block: length of the time blocks, that is of the windows that will be compared. Without it, or without
            ``data.timestamp``, the natural variation between blocks stays unknown.
        :param exclude: further columns not to judge.
        :param text: the columns to be taken as text (by length and characters) rather than as categories, and no
            others; ``None`` leaves it to the values, see `drift.layout.without_identifiers`.
        :param segment: a column by whose most frequent values the rows are counted apart as well; it need not be one
            that is judged.
        :raises ConfigError: *text* names a column that does not hold text, *segment* one that is not there.
        :raises DataError: no rows, or data that cannot be read.
        """

    def window(self, data: DataRef, *, layout: DataProfile, window: Window | None = None) -> DataProfile:
        """
        Count *data* on the bins of *layout*. No rows is an answer: a profile with ``rows == 0``.

        :param layout: a reference profile; its counts are not used.
        :raises DataError: data that cannot be read.
        """
