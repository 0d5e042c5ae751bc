"""Fields of a JSON object that came from outside: each is asked for by what it must be, and named if it isn't. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["MOST_ROWS", "Fields"]

MOST_ROWS = 10**12  # of a profile: beyond it neither sums nor the exact tests would stay exact and quick
_REQUIRED = object()


class Fields:
    """
    A JSON object.

    Every method raises `DataError` with the field's name and place when the field lacks or is something else.

    :param at: where the object stands, for messages; empty for the whole.
    """

    def __init__(self, values: Any, at: str = "") -> None:
        if not isinstance(values, dict):
            raise DataError(f"{at or 'The whole'} is {_shown(values)} instead of an object.")
        self._values = values
        self._at = at

    @property
    def at(self) -> str:
        """Where the object stands."""
        return self._at

    def error(self, name: str, problem: str) -> DataError:
        """Return the error that says of the field *name* what is wrong."""
        return DataError(f"{self._place(name)} {problem}.")

    def _place(self, name: str) -> str:
        return f"{self._at}: {name!r}" if self._at else repr(name)

    def _get(self, name: str, default: Any = _REQUIRED) -> Any:
        value = self._values.get(name, default)
        if value is _REQUIRED:
            raise self.error(name, "is missing")
        return value

    def _wrong(self, name: str, wanted: str) -> DataError:
        return self.error(name, f"is {_shown(self._values.get(name))} instead of {wanted}")

    def object(self, name: str, *, at: str | None = None) -> Fields:
        """Return the object *name*."""
        return Fields(self._get(name), self._place(name) if at is None else at)

    def optional(self, name: str) -> Fields | None:
        """Return the object *name*, or ``None`` for null, for none and for an empty one."""
        value = self._get(name, None)
        return None if value is None or value == {} else self.object(name)

    def objects(self, noun: str) -> Iterator[tuple[str, Fields]]:
        """Yield every field, which is an object, with its name; *noun* says what they are."""
        for name, value in self._values.items():
            yield name, Fields(value, f"{self._at}: {noun} {name!r}" if self._at else f"{noun} {name!r}")

    def listed(self, name: str) -> list[Fields]:
        """Return a list of objects."""
        values = self._get(name)
        if type(values) is not list:
            raise self._wrong(name, "a list")
        return [Fields(value, f"{self._place(name)}[{place}]") for place, value in enumerate(values)]

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._get(name)
        if type(value) is not str:
            raise self._wrong(name, "text")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or ``None`` for null."""
        return None if self._get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts that differ."""
        values = self._get(name)
        if type(values) is not list or not set(map(type, values)) <= {str} or len(set(values)) < len(values):
            raise self._wrong(name, "a list of different texts")
        return tuple(values)

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._get(name)
        if type(value) is not bool:
            raise self._wrong(name, "true or false")
        return value

    def whole(self, name: str, *, least: int = 0, most: int = MOST_ROWS) -> int:
        """Return a whole number of that range."""
        value = self._get(name)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least:,} to {most:,}")
        return value

    def optional_whole(self, name: str, *, least: int = 0) -> int | None:
        """Return a whole number of at least *least*, or ``None`` for null and for none."""
        return None if self._get(name, None) is None else self.whole(name, least=least)

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._get(name)
        found = _float(value) if type(value) in (int, float) else math.nan
        if not math.isfinite(found):
            raise self._wrong(name, "a finite number")
        return found

    def optional_number(self, name: str) -> float | None:
        """Return a finite number, or ``None`` for null."""
        return None if self._get(name) is None else self.number(name)

    def moment(self, name: str) -> datetime | None:
        """Return a time of ISO 8601, in UTC when it names no zone; ``None`` for null."""
        text = self.optional_text(name)
        if text is None:
            return None
        try:
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self._wrong(name, "a time of ISO 8601 in the years 1 to 9999") from error

    def numbered(self, name: str, *, most: int) -> dict[str, int]:
        """Return an object of whole numbers from 0 to *most*, by name."""
        values = self._get(name)
        if type(values) is not dict:
            raise self._wrong(name, "an object")
        counts = values.values()
        if not set(map(type, counts)) <= {int} or (values and not 0 <= min(counts) <= max(counts) <= most):
            raise self.error(name, f"holds something else than whole numbers from 0 to {most:,}")
        return dict(values)

    def named(self, name: str) -> dict[str, str]:
        """Return an object of texts, by name."""
        values = self._get(name)
        if type(values) is not dict or not set(map(type, values.values())) <= {str}:
            raise self._wrong(name, "an object of texts")
        return dict(values)

    def counts(
        self, name: str, *shape: int | None, least: int = 0, most: int = MOST_ROWS * 2**20
    ) -> npt.NDArray[np.int64]:
        """
        Return an array of whole numbers of that range.

        :param shape: its one or two lengths; the first may be ``None``, for any.
        """
        flat, lengths = self._flat(name, shape)
        problem = self.error(name, f"holds something else than whole numbers from {least:,} to {most:,}")
        if not set(map(type, flat)) <= {int}:
            raise problem
        try:
            found = np.array(flat, dtype=np.int64).reshape(lengths)
        except OverflowError:
            raise problem from None
        if found.size and not least <= found.min() <= found.max() <= most:
            raise problem
        return found

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a list of finite numbers as an array."""
        flat, _ = self._flat(name, (None,))
        if not set(map(type, flat)) <= {int, float}:
            raise self.error(name, "holds something else than numbers")
        found = np.array([_float(value) for value in flat], dtype=np.float64)
        if not np.isfinite(found).all():
            raise self.error(name, "holds a number that is not finite")
        return found

    def _flat(self, name: str, shape: tuple[int | None, ...]) -> tuple[list[Any], tuple[int, ...]]:
        values = self._get(name)
        first, *rest = shape
        wanted = " times ".join("any number" if length is None else str(length) for length in shape)
        if type(values) is not list or first not in (None, len(values)):
            raise self._wrong(name, f"a list of {wanted}")
        if not rest:
            return values, (len(values),)
        width = rest[0]
        if any(type(row) is not list or len(row) != width for row in values):
            raise self.error(name, f"is no list of lists, {wanted}")
        return list(chain.from_iterable(values)), (len(values), int(width or 0))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if type(value) is int and abs(value) >= 10**18:
        return "a number beyond 10 to the 18th"
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "…"
