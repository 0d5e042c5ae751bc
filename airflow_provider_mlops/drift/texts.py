"""
Text that is no category, as numbers: how long it is, and how many characters of each class it holds.

A character is a Unicode code point. Every class but the last is a fixed set of ASCII characters, so that a database
counts the same by removing them. Pure.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.drift.counting import NumberCounter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from airflow_provider_mlops.drift.counts import Counts, NumberCounts

__all__ = ["CLASSES", "LENGTH", "MEASURES", "OTHER", "TextCounter", "measure", "prose"]

LENGTH, OTHER = "length", "other"
CLASSES: Mapping[str, str] = {
    "digits": string.digits,
    "spaces": "\t\n\x0b\x0c\r ",
    "punctuation": string.punctuation,
    "capitals": string.ascii_uppercase,
    "lowercase": string.ascii_lowercase,
}
"""The ASCII characters of each class. ``other`` counts the rest: other scripts, accents, emoji, control characters."""
MEASURES = (LENGTH, *(name for name in CLASSES if name != "lowercase"), OTHER)
"""What is counted per text. Lowercase letters are what the length has beyond the others, so they are not counted."""

_CHUNK = 1 << 22  # bytes of text looked at together
_FOLLOWS = len(CLASSES) + 1  # bytes that begin no character
_KINDS = np.full(256, len(CLASSES), dtype=np.int8)  # the class of each byte of UTF-8; those that begin no character
_KINDS[0x80:0xC0] = _FOLLOWS
for _place, _characters in enumerate(CLASSES.values()):
    _KINDS[list(_characters.encode())] = _place


def measure(array: pa.Array) -> dict[str, Counts]:
    """Return the measures of the texts of *array*, each of shape ``(texts,)``; nulls are left out."""
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

    if pa.types.is_dictionary(array.type):
        places = array.indices.drop_null().to_numpy(zero_copy_only=False)
        return {name: values[places] for name, values in measure(array.dictionary).items()}
    texts = array.drop_null().cast(pa.large_binary())
    parts = [np.zeros((len(MEASURES), 0), dtype=np.int64), *map(_measured, _chunks(texts))]
    return dict(zip(MEASURES, np.concatenate(parts, axis=1), strict=True))


def _chunks(texts: pa.Array) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Yield the bytes of some texts, and where each of them begins and the last ends."""
    if not len(texts):
        return
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    start = 0
    while start < len(texts):
        stop = int(np.searchsorted(ends, ends[start] + _CHUNK, side="right")) - 1
        stop = min(max(stop, start + 1), len(texts))
        yield raw[ends[start] : ends[stop]], ends[start : stop + 1] - ends[start]
        start = stop


def _measured(chunk: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]) -> Counts:
    """Return the measures of a chunk's texts, shape ``(measures, texts)``."""
    raw, ends = chunk
    kinds = _KINDS[raw]

    def count(chosen: npt.NDArray[np.bool_]) -> Counts:
        found: Counts = np.diff(np.concatenate([[0], np.cumsum(chosen, dtype=np.int64)])[ends])
        return found

    classes = {name: count(kinds == place) for place, name in enumerate(CLASSES) if name in MEASURES}
    return np.stack([count(kinds != _FOLLOWS), *classes.values(), count(kinds == len(CLASSES))])


def prose(array: pa.Array) -> bool:
    """Return whether most values hold a space or a character beyond ASCII, as words do and identifiers do not."""
    found = measure(array)
    return bool(found[LENGTH].size) and float(((found["spaces"] > 0) | (found[OTHER] > 0)).mean()) > 0.5


class TextCounter:
    """Counts the measures of one text column on the bins of *layout*, one set of bins per measure."""

    def __init__(self, layout: Mapping[str, NumberCounts]) -> None:
        self._counters = {name: NumberCounter(numbers) for name, numbers in layout.items()}

    def add(self, array: pa.Array, block: int | None) -> int:
        """Count *array*, whose rows all lie in *block* (``None``: in no block); return its missing rows."""
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        found: dict[str, Any] = measure(array)
        for name, counter in self._counters.items():
            counter.add(pa.array(found[name]), block)
        return int(array.null_count)

    def result(self, blocks: Sequence[int]) -> dict[str, NumberCounts]:
        """Return the counts, with one row per block of *blocks*."""
        return {name: counter.result(blocks) for name, counter in self._counters.items()}
