"""Which bins a reference is counted on. They are chosen once, from a random sample of its rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from airflow_provider_mlops.drift.counting import family_of, plain
from airflow_provider_mlops.drift.counts import CategoryCounts, Family, NumberCounts, no_counts
from airflow_provider_mlops.drift.profile import ColumnProfile, DataProfile, Segments, cut
from airflow_provider_mlops.drift.texts import measure, prose
from airflow_provider_mlops.drift.vectors import layout_of
from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from airflow_provider_mlops.data.values import Window
    from airflow_provider_mlops.drift.counts import Edges

__all__ = ["SAMPLE_ROWS", "Sample", "block_origin", "choose_edges", "choose_layout", "without_identifiers"]

BINS = 256
TAILS = (0.0001, 0.001, 0.999, 0.9999)
IDENTIFIER_SHARE = 0.5  # of the rows that hold a value of their own: above it the values are no categories
_MAYBE = 0.45  # of a sample's rows: below it the share in all rows is practically never above
SAMPLE_ROWS = 20_000
MAX_SEGMENTS = 10  # the most frequent values; all others together are one more segment
SEGMENT_BINS = 32  # per column in a segment, so that all segments together are no larger than the whole
MAX_BLOCK_CELLS = 1_000_000  # counts per time block that a reference holds at most, a few megabytes
FEWEST_BLOCKS = 12  # that are kept in any case
_LARGEST = float(np.finfo(np.float64).max)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def choose_layout(
    sample: pa.RecordBatch,
    *,
    timestamp: str | None = None,
    exclude: Sequence[str] = (),
    block: timedelta | None = None,
    origin: datetime | None = None,
    text: Sequence[str] | None = None,
    segment: str | None = None,
    bins: int = BINS,
) -> DataProfile:
    """
    Return a profile without counts whose bins fit *sample*, a random part of the reference.

    Numbers: one bin per value up to 256 values, else the sample's 1/256 quantiles and its 0.01 %, 0.1 %, 99.9 % and
    99.99 % ones; at 20,000 rows the gap between two distributions on these bins differs from the exact one by under
    1e-4. Text: the 255 most frequent values are the cells that are counted per block. Where most values may be seen
    once, and hold spaces or characters beyond ASCII, their length and characters are counted as well;
    `without_identifiers` decides between the two when all rows are counted.

    :param text: the columns to be taken as text rather than as categories, and no others; ``None`` leaves it to the
        values.
    :param segment: a column whose 10 most frequent values, and all others together, are counted apart as well.
    :param bins: of a column of many values.
    :param exclude: columns that are known and not judged. *timestamp* is not judged either.
    :param block: length of the time blocks; they begin at *origin*. Both or neither.
    """
    left_out = {*exclude, timestamp}
    _require_text(text or (), sample)
    columns = {
        field_.name: _column_layout(
            sample.column(position), field_.type, text=None if text is None else field_.name in text, bins=bins
        )
        for position, field_ in enumerate(sample.schema)
        if field_.name not in left_out
    }
    whole = DataProfile(
        rows=0,
        columns=columns,
        timestamp=timestamp,
        excluded=tuple(dict.fromkeys(exclude)),
        block=block if origin is not None else None,
        origin=_utc(origin).isoformat() if origin is not None and block is not None else None,
    )
    if segment is None:
        return whole
    family, values = _segments_of(sample, segment)
    parts = dict(cut(sample, segment, family, values))
    profiles = {
        value: choose_layout(
            parts[value],
            timestamp=timestamp,
            exclude=(*exclude, segment),
            block=block,
            origin=origin,
            text=None if text is None else [name for name in text if name != segment],
            bins=SEGMENT_BINS,
        )
        for value in (*values, None)
        if value in parts
    }
    return replace(whole, segments=Segments(segment, family, profiles))


def _segments_of(sample: pa.RecordBatch, segment: str) -> tuple[Family, list[str]]:
    """Return the family of the column *segment*, and its most frequent values. :raises ConfigError: it has none."""
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    if segment not in sample.schema.names:
        near = did_you_mean(segment, sample.schema.names)
        raise ConfigError(f"segment: {segment!r} is no column of the reference.{near} Name one.")
    array = plain(sample.column(segment))
    family = family_of(array.type)
    if family not in (Family.TEXT, Family.BOOLEAN, Family.NUMBER):
        raise ConfigError(f"segment: {segment!r} holds {family.value}. Name a column of text, booleans or numbers.")
    pairs = pc.value_counts(array.drop_null())
    seen = {
        _label(value, family): count
        for value, count in zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True)
    }
    ranked = sorted(seen, key=lambda value: (-seen[value], value))
    return family, [value for value in ranked if value != "nan"][:MAX_SEGMENTS]


def _label(value: object, family: Family) -> str:
    if family is Family.NUMBER:
        return repr(float(str(value))).removesuffix(".0")
    return str(value).lower() if family is Family.BOOLEAN else str(value)


def block_origin(first: int | None, block: timedelta | None, window: Window | None) -> datetime | None:
    """
    Return when block 0 begins: with the window, else with the first row's midnight, or whole block if that is shorter.

    :param first: event time of the first row, microseconds since 1970.
    :raises ConfigError: a block of no length.
    """
    if block is not None and block <= timedelta(0):
        raise ConfigError(f"block: expected a length of time > 0, got {block}.")
    if first is None or block is None:
        return None
    if window is not None and window.start is not None:
        return window.start
    step = min(block, timedelta(days=1)) // timedelta(microseconds=1)
    return _EPOCH + timedelta(microseconds=first // step * step)


def _require_text(names: Sequence[str], sample: pa.RecordBatch) -> None:
    for name in names:
        if name not in sample.schema.names:
            near = did_you_mean(name, sample.schema.names)
            raise ConfigError(f"text_columns: {name!r} is no column of the reference.{near} Name one that holds text.")
        family = family_of(sample.schema.field(name).type)
        if family is not Family.TEXT:
            raise ConfigError(f"text_columns: {name!r} holds {family.value}, not text. Take it out.")


def without_identifiers(profile: DataProfile) -> DataProfile:
    """
    Return *profile* with every text column as a category, as text, or as an identifier.

    Where over half the rows hold a value that no other row holds, the values are no categories: they are new in every
    window, and none of their counts says anything about drift. Such a column is text if its length and characters were
    counted; else it names its rows, and is an identifier.

    Of very many time blocks some are kept, chosen at random with a fixed seed, so that a profile stays at a few
    megabytes; the sums over all rows stay exact.
    """
    segments = profile.segments
    if segments is not None:
        cells = MAX_BLOCK_CELLS // (2 * len(segments.profiles))
        segments = segments.each(lambda part: _thinned(without_identifiers(part), cells))
    settled = {name: _settled(column) for name, column in profile.columns.items()}
    return _thinned(replace(profile, columns=settled, segments=segments), MAX_BLOCK_CELLS)


def _thinned(profile: DataProfile, cells: int) -> DataProfile:
    """Return *profile* with no more time blocks than have about *cells* counts."""
    width = sum(
        1
        + sum(
            counts.blocks.shape[1]
            for counts in (*column.measures.values(), column.categories, column.vectors)
            if counts is not None
        )
        for column in profile.columns.values()
    )
    keep = max(FEWEST_BLOCKS, cells // max(width, 1))
    if len(profile.blocks) <= keep:
        return profile
    chosen = np.sort(np.random.default_rng(0).choice(len(profile.blocks), keep, replace=False))

    def thin(column: ColumnProfile) -> ColumnProfile:
        numbers, categories, texts, vectors = column.numbers, column.categories, column.texts, column.vectors
        return replace(
            column,
            block_missing=column.block_missing[chosen],
            numbers=replace(numbers, blocks=numbers.blocks[chosen]) if numbers else None,
            categories=replace(categories, blocks=categories.blocks[chosen]) if categories else None,
            texts={name: replace(counts, blocks=counts.blocks[chosen]) for name, counts in texts.items()}
            if texts
            else None,
            vectors=replace(vectors, blocks=vectors.blocks[chosen]) if vectors else None,
        )

    return replace(
        profile,
        columns={name: thin(column) for name, column in profile.columns.items()},
        blocks=tuple(profile.blocks[place] for place in chosen),
        block_rows=tuple(profile.block_rows[place] for place in chosen),
    )


def _settled(column: ColumnProfile) -> ColumnProfile:
    categories = column.categories
    if categories is None or column.family is not Family.TEXT:
        return column
    if categories.once + categories.tail_rows <= IDENTIFIER_SHARE * categories.rows:
        return replace(column, texts=None)
    return replace(column, identifier=column.texts is None, categories=None)


def _column_layout(array: pa.Array, type_: pa.DataType, *, text: bool | None = None, bins: int = BINS) -> ColumnProfile:
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    family = family_of(type_)
    empty = ColumnProfile(family=family, block_missing=np.zeros(0, dtype=np.int64))
    values = plain(array).drop_null()
    if family is Family.NUMBER:
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        return replace(empty, numbers=_bins(numbers[~np.isnan(numbers)], bins))
    if family is Family.VECTOR:
        return replace(empty, vectors=layout_of(values))
    if family is Family.BOOLEAN:
        return replace(empty, categories=CategoryCounts(cells=("false", "true"), counts={}, blocks=no_counts(3)))
    if family is Family.TEXT:
        if text:
            return replace(empty, texts=_text_bins(values, bins))
        pairs = pc.value_counts(values)
        seen = zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True)
        ranked = sorted(seen, key=lambda item: (-item[1], item[0]))
        cells = tuple(value for value, _ in ranked[: bins - 1])
        empty = replace(empty, categories=CategoryCounts(cells=cells, counts={}, blocks=no_counts(len(cells) + 1)))
        once = sum(count == 1 for _, count in ranked)
        if text is None and once > _MAYBE * len(values) and prose(values):
            return replace(empty, texts=_text_bins(values, bins))
    return empty


def _text_bins(values: pa.Array, bins: int) -> dict[str, NumberCounts]:
    return {name: _bins(found.astype(np.float64), bins) for name, found in measure(values).items()}


def _bins(values: npt.NDArray[np.float64], bins: int) -> NumberCounts:
    edges = choose_edges(values, bins)
    width = edges.size + 1
    return NumberCounts(edges=edges, counts=np.zeros(width, dtype=np.int64), blocks=no_counts(width))


def choose_edges(values: npt.NDArray[np.float64], bins: int = BINS) -> Edges:
    """
    Return ascending bin edges, shape ``(e,)``, for *values* without NaN; empty without values.

    Where the values vary, a guard lies one span below the smallest and one above the largest of them: what falls
    beyond the guards comes from another world (another unit), which ranks alone could not tell. A value that stands
    alone has an edge close below it, so that smaller values are told from it. Where all values are infinite, each
    infinity has a bin of its own and the finite values have two between.
    """
    edges = np.unique(values[np.isfinite(values)])
    if edges.size == 0 and values.size:
        return np.array([-_LARGEST, 0.0, _LARGEST])
    if edges.size > bins:
        shares = np.concatenate([TAILS, np.arange(bins) / bins, [1.0]])
        edges = np.unique(np.quantile(values[np.isfinite(values)], shares, method="inverted_cdf"))
    if edges.size == 0:
        return edges
    with np.errstate(over="ignore"):
        if edges.size == 1:
            below = edges - np.maximum(np.abs(edges) * 1e-9, 1e-300)
            return np.unique(np.nan_to_num(np.concatenate([below, edges])))
        span = edges[-1] - edges[0]
        guards = np.nan_to_num([edges[0] - span, edges[-1] + span])
    return np.unique(np.concatenate([guards, edges]))


def _utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class Sample:
    """
    A random sample of at most *rows* rows of a stream of batches, each row as likely as any other.

    Seeded: the same batches give the same sample.
    """

    def __init__(self, rows: int = SAMPLE_ROWS, seed: int = 0) -> None:
        self._rows = rows
        self._random = np.random.default_rng(seed)
        self._keys: list[npt.NDArray[np.float64]] = []
        self._parts: list[pa.RecordBatch] = []
        self._held = 0
        self._limit = 1.0  # rows whose key is above cannot be among the sample any more

    def add(self, batch: pa.RecordBatch) -> None:
        """Let the rows of *batch* take part."""
        keys = self._random.random(batch.num_rows)
        chosen = np.flatnonzero(keys <= self._limit)
        if chosen.size == 0:
            return
        self._keys.append(keys[chosen])
        self._parts.append(batch.take(chosen))
        self._held += chosen.size
        if self._held > 4 * self._rows:
            self._prune()

    def _prune(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        keys = np.concatenate(self._keys)
        table = pa.Table.from_batches(self._parts).unify_dictionaries()
        if keys.size > self._rows:
            kept = np.sort(np.argpartition(keys, self._rows - 1)[: self._rows])
            keys, table = keys[kept], table.take(kept)
            self._limit = float(keys.max())
        self._keys = [keys]
        self._parts = table.combine_chunks().to_batches()
        self._held = keys.size

    def batch(self) -> pa.RecordBatch | None:
        """Return the sample, or ``None`` when no row was seen."""
        if not self._held:
            return None
        self._prune()
        return self._parts[0]
