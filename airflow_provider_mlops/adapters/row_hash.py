"""Sixty-four bits that stand for a row: the same on every machine, in every process and for every chunking."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["row_hashes"]

_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_NANOSECONDS_PER_DAY = 86_400_000_000_000


def row_hashes(batch: pa.RecordBatch, columns: Sequence[str] | None = None) -> NDArray[np.uint64]:
    """
    Return one hash per row of *batch*, shape ``(rows,)``, uniform over ``0 .. 2**64 - 1``.

    Equal rows have equal hashes, whatever the order of the columns, the chunks they came in, or how Arrow stores them:
    a string may be dictionary-encoded, an integer may have any width, a timestamp any unit. ``-0.0`` equals ``0.0``,
    every NaN equals every other, and a null equals only a null. A column's name is part of the hash. Not for
    cryptographic use: one who may choose the values can make two rows collide.

    :param columns: the columns that count; ``None`` takes all.
    """
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in batch.schema.names if columns is None else columns:
        salt = np.uint64(_bytes_hash(b"column:" + name.encode()))
        # A sum does not depend on the order of its terms; each term has been mixed with its column's name before.
        total += _mix(_value_bits(batch.column(name)) ^ salt)
    return _mix(total)


def _value_bits(array: pa.Array) -> NDArray[np.uint64]:
    """Return 64 bits per value; equal values have equal bits."""
    import pyarrow.compute as pc

    bits = _valid_bits(array)
    if array.null_count:
        bits = np.where(pc.is_null(array).to_numpy(zero_copy_only=False), np.uint64(_bytes_hash(b"null")), bits)
    return bits


def _valid_bits(array: pa.Array) -> NDArray[np.uint64]:  # noqa: PLR0911 - one return per kind of type
    """Return the bits of the values that are not null; what stands in the place of a null has no meaning."""
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if types.is_null(kind):
        return np.zeros(len(array), dtype=np.uint64)
    if types.is_floating(kind):
        values = _numbers(array, pa.float64()) + 0.0  # -0.0 + 0.0 is 0.0
        values[np.isnan(values)] = np.nan
        return values.view(np.uint64)
    if types.is_uint64(kind):
        return _numbers(array, kind)
    if types.is_integer(kind) or types.is_boolean(kind):
        return _numbers(array, pa.int64()).view(np.uint64)
    if types.is_date32(kind):
        return (_numbers(array.cast(pa.int32()), pa.int64()) * _NANOSECONDS_PER_DAY).view(np.uint64)
    if types.is_temporal(kind) and not types.is_interval(kind):
        unit = "ms" if types.is_date64(kind) else kind.unit
        storage = pa.int32() if types.is_time32(kind) else pa.int64()
        # Far dates overflow nanoseconds and wrap around, the same everywhere.
        return (_numbers(array.cast(storage), pa.int64()) * _NANOSECONDS[unit]).view(np.uint64)
    if types.is_dictionary(kind):
        if not len(array.dictionary):
            return np.zeros(len(array), dtype=np.uint64)
        return np.take(_value_bits(array.dictionary), _numbers(array.indices, pa.int64()))
    if types.is_nested(kind) or types.is_interval(kind):
        texts = [json.dumps(value, sort_keys=True, default=str) for value in array.to_pylist()]
        return np.fromiter((_bytes_hash(text.encode()) for text in texts), dtype=np.uint64, count=len(texts))
    return _text_bits(array)


def _text_bits(array: pa.Array) -> NDArray[np.uint64]:
    """Return the bits of strings, bytes and decimals: each distinct value is hashed once."""
    import pyarrow as pa

    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())
    encoded = array.cast(pa.large_binary()).dictionary_encode()
    distinct = [_bytes_hash(value) for value in encoded.dictionary.to_pylist()]
    # One more entry, so that the index which stands for a null finds something even where all values are null.
    table = np.array([*distinct, 0], dtype=np.uint64)
    return np.take(table, _numbers(encoded.indices, pa.int64()))


def _numbers(array: pa.Array, kind: pa.DataType) -> NDArray[Any]:
    """Return a fresh numpy array of *kind*, zero in the place of nulls."""
    import pyarrow.compute as pc

    values = array.cast(kind)
    return np.array(pc.fill_null(values, 0) if values.null_count else values)


def _bytes_hash(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread *bits* so that each output bit depends on each input bit: the finalizer of SplitMix64 (Steele 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
