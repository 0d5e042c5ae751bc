"""
A data set as counts: small, mergeable, and all that any statistical decision of this package reads.

A `DataProfile` holds, per column, how many rows fell in each bin, how many were missing, and the same per block of
event time. The bins (its *layout*) are chosen once, from the reference; profiles on the same layout merge by
addition, so files, days and serving pods can be counted apart. Pure: nothing here opens a file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.drift.counting import (
    CategoryCounter,
    NumberCounter,
    Scratch,
    family_of,
    microseconds,
    parse_text,
    plain,
)
from airflow_provider_mlops.drift.counts import CategoryCounts, Family, NumberCounts, Spread
from airflow_provider_mlops.drift.fields import MOST_ROWS, Fields
from airflow_provider_mlops.drift.texts import MEASURES, TextCounter
from airflow_provider_mlops.drift.vectors import VectorCounter, VectorCounts
from airflow_provider_mlops.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from airflow_provider_mlops.drift.counts import Counts

__all__ = [
    "SCHEMA_VERSION",
    "CategoryCounts",
    "ColumnProfile",
    "DataProfile",
    "Family",
    "NumberCounts",
    "ProfileBuilder",
    "Segments",
]

SCHEMA_VERSION = 2
MIN_BLOCKS = 6  # fewer blocks cannot estimate a variance
MIN_BLOCK_SHARE = 0.1  # a block with fewer rows than this share of the median block is a gap in the data
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS = (86_400, 3_600, 60)  # seconds; rows of one day, hour or minute are often stamped with its beginning
MOST_JSON = 256 << 20  # characters of a profile that are read; real ones have a few millions
_MOST_BLOCKS = 1 << 62
_MOST_SECONDS = 10_000 * 366 * 86_400
_PARTS = ("numbers", "categories", "texts", "vectors")
_PARTS_OF: Mapping[Family, Sequence[set[str]]] = {
    Family.NUMBER: [{"numbers"}],
    Family.BOOLEAN: [{"categories"}],
    Family.TEXT: [{"categories"}, {"texts"}, {"categories", "texts"}],
    Family.TIME: [set()],
    Family.OTHER: [set()],
    Family.VECTOR: [set(), {"vectors"}],
}
"""What may be counted of each family. Text is settled as one of both when all its rows are counted."""
BLOCK_TOLERANCE = 0.05  # share of a block that may lack at the ends of the data before the block counts as partial


@dataclass(frozen=True, slots=True, eq=False)
class ColumnProfile:
    """
    One column.

    :param family: the family in the reference; bins follow from it.
    :param rows: rows in which the column existed; fewer than the profile's rows when a file lacked it.
    :param null: rows with a null.
    :param block_missing: missing rows (null or NaN) per time block, shape ``(blocks,)``.
    :param retyped: rows that came with another family than the reference's, by that family.
    :param unparsed: rows of untyped text (CSV) that could not be read as *family*.
    :param identifier: a column of names of rows: most values are seen once, and they are no text either. Only its
        nulls are counted.
    :param numbers: for `Family.NUMBER`.
    :param categories: for `Family.BOOLEAN`, and for `Family.TEXT` unless most values are seen once.
    :param vectors: for `Family.VECTOR`.
    :param texts: of text that is no category the counts of each of `texts.MEASURES`.
    """

    family: Family
    block_missing: Counts
    rows: int = 0
    null: int = 0
    retyped: Mapping[str, int] = field(default_factory=dict)
    unparsed: int = 0
    identifier: bool = False
    numbers: NumberCounts | None = None
    categories: CategoryCounts | None = None
    texts: Mapping[str, NumberCounts] | None = None
    vectors: VectorCounts | None = None

    @property
    def measures(self) -> Mapping[str, NumberCounts]:
        """What is compared as numbers: the numbers themselves, under no name, or the measures of a text."""
        return {"": self.numbers} if self.numbers is not None else self.texts or {}

    @property
    def missing(self) -> int:
        """Rows with a null or a NaN."""
        return self.null + (self.numbers.nan if self.numbers else 0)

    @property
    def values(self) -> int:
        """Rows that hold a value of *family*."""
        return self.rows - self.missing - self.unparsed - sum(self.retyped.values())

    def empty(self) -> ColumnProfile:
        """Return the same bins without counts."""
        return ColumnProfile(
            family=self.family,
            block_missing=np.zeros(0, dtype=np.int64),
            identifier=self.identifier,
            numbers=self.numbers.empty() if self.numbers else None,
            categories=self.categories.empty() if self.categories else None,
            texts={name: numbers.empty() for name, numbers in self.texts.items()} if self.texts else None,
            vectors=self.vectors.empty() if self.vectors else None,
        )

    def same_layout(self, other: ColumnProfile) -> bool:
        """Return whether counts of both may be added or compared."""
        if (self.family, self.identifier) != (other.family, other.identifier):
            return False
        if self.numbers and other.numbers:
            return np.array_equal(self.numbers.edges, other.numbers.edges)
        if self.categories and other.categories:
            return self.categories.cells == other.categories.cells
        if self.texts and other.texts:
            return list(self.texts) == list(other.texts) and all(
                np.array_equal(numbers.edges, other.texts[name].edges) for name, numbers in self.texts.items()
            )
        if self.vectors and other.vectors:
            return self.vectors.same_layout(other.vectors)
        ours, theirs = ((side.numbers, side.categories, side.texts, side.vectors) for side in (self, other))
        return all((one is None) == (two is None) for one, two in zip(ours, theirs, strict=True))

    def merge(self, other: ColumnProfile, spread: Spread) -> ColumnProfile:
        """Return the sum of two columns of the same layout."""
        families = sorted({*self.retyped, *other.retyped})
        return ColumnProfile(
            family=self.family,
            rows=self.rows + other.rows,
            null=self.null + other.null,
            block_missing=spread(self.block_missing, other.block_missing),
            retyped={name: self.retyped.get(name, 0) + other.retyped.get(name, 0) for name in families},
            unparsed=self.unparsed + other.unparsed,
            identifier=self.identifier,
            numbers=self.numbers.merge(other.numbers, spread) if self.numbers and other.numbers else None,
            categories=self.categories.merge(other.categories, spread)
            if self.categories and other.categories
            else None,
            texts={name: numbers.merge(other.texts[name], spread) for name, numbers in self.texts.items()}
            if self.texts and other.texts
            else None,
            vectors=self.vectors.merge(other.vectors, spread) if self.vectors and other.vectors else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "family": self.family.value,
            "rows": self.rows,
            "null": self.null,
            "block_missing": self.block_missing.tolist(),
            "retyped": dict(self.retyped),
            "unparsed": self.unparsed,
            "identifier": self.identifier,
            "numbers": self.numbers.to_dict() if self.numbers else None,
            "categories": self.categories.to_dict() if self.categories else None,
            "texts": {name: numbers.to_dict() for name, numbers in self.texts.items()} if self.texts else None,
            "vectors": self.vectors.to_dict() if self.vectors else None,
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, rows: int, block_rows: Counts) -> ColumnProfile:
        """
        Return what `to_dict` wrote.

        :param rows: of the data set, which no count exceeds; *block_rows* alike, per time block.
        :raises DataError: a field lacks, is of another form, or does not fit the others.
        """
        family, held = _family(fields), fields.whole("rows", most=rows)
        numbers, categories, texts, vectors = map(fields.optional, ("numbers", "categories", "texts", "vectors"))
        measured = dict(texts.objects("measure")) if texts else {}
        if not set(measured) <= set(MEASURES):
            raise fields.error("texts", f"holds other measures than {', '.join(MEASURES)}")

        def number_counts(part: Fields) -> NumberCounts:
            return NumberCounts.from_fields(part, rows=held, block_rows=block_rows)

        column = cls(
            family=family,
            rows=held,
            null=fields.whole("null", most=held),
            block_missing=fields.counts("block_missing", block_rows.size, most=rows),
            retyped=fields.numbered("retyped", most=held),
            unparsed=fields.whole("unparsed", most=held),
            identifier=fields.flag("identifier"),
            numbers=number_counts(numbers) if numbers else None,
            categories=CategoryCounts.from_fields(categories, rows=held, block_rows=block_rows) if categories else None,
            texts={name: number_counts(part) for name, part in measured.items()} if measured else None,
            vectors=VectorCounts.from_fields(vectors, rows=held, block_rows=block_rows) if vectors else None,
        )
        parts = (column.numbers, column.categories, column.texts, column.vectors)
        kinds = {name for name, part in zip(_PARTS, parts, strict=True) if part is not None}
        if kinds not in ([set()] if column.identifier else _PARTS_OF[family]):
            of = "an identifier" if column.identifier else family.value
            raise fields.error("family", f"is {of}, and {', '.join(sorted(kinds)) or 'nothing'} is counted of it")
        if column.identifier and family is not Family.TEXT:
            raise fields.error("identifier", f"is true, and a column of {family.value} is none")
        if (column.block_missing > block_rows).any():
            raise fields.error("block_missing", "holds more rows than 'block_rows'")
        for counts in (*column.measures.values(), column.categories, column.vectors):
            if counts is not None and (counts.rows > column.values or (counts.rows > 0) != (column.values > 0)):
                raise fields.error(
                    "rows",
                    f"leaves {column.values:,} values besides the null and odd ones, and {counts.rows:,} are counted",
                )
        if column.values < 0:
            raise fields.error("rows", f"is {held:,}, and more are null or odd")
        return column


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """
    The rows of a data set by the values of one column.

    :param column: its name.
    :param family: number, boolean or text.
    :param profiles: one per value (a number without needless digits, ``true`` or ``false``), the most frequent of the
        reference first; under ``None`` the rows with any other value, or without one.
    """

    column: str
    family: Family
    profiles: Mapping[str | None, DataProfile]

    @property
    def values(self) -> tuple[str, ...]:
        """The values that have a profile of their own."""
        return tuple(value for value in self.profiles if value is not None)

    def each(self, change: Callable[[DataProfile], DataProfile]) -> Segments:
        """Return the segments with every profile changed."""
        return replace(self, profiles={value: change(profile) for value, profile in self.profiles.items()})

    def same_layout(self, other: Segments | None) -> bool:
        """Return whether both are of the same column, with the same values."""
        return other is not None and (self.column, self.family, list(self.profiles)) == (
            other.column,
            other.family,
            list(other.profiles),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        profiles = [{"value": value, "profile": profile.to_dict()} for value, profile in self.profiles.items()]
        return {"column": self.column, "family": self.family.value, "profiles": profiles}


@dataclass(frozen=True, slots=True, eq=False)
class DataProfile:
    """
    A data set as counts. Two profiles are equal when their JSON is.

    :param rows: number of rows.
    :param columns: the columns that are judged, by name.
    :param timestamp: name of the event-time column, which is not judged itself; ``None`` without one.
    :param excluded: further columns that are known and not judged (label, entity, row number).
    :param extra: columns that the layout does not know, with their family.
    :param start: event time of the earliest row, ISO 8601 in UTC, or ``None``.
    :param end: event time of the latest row.
    :param block: length of a time block; ``None`` when time blocks are not counted.
    :param origin: event time at which block 0 begins, ISO 8601.
    :param blocks: numbers of the time blocks that hold rows, ascending; the order of every ``blocks`` array.
    :param block_rows: rows per time block.
    :param sampled_of: how many rows there were, when only *rows* of them were read; else ``None``.
    :param segments: the same rows once more, by the values of one column, on coarser bins; ``None`` when not asked.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]
    timestamp: str | None = None
    excluded: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    start: str | None = None
    end: str | None = None
    block: timedelta | None = None
    origin: str | None = None
    blocks: tuple[int, ...] = ()
    block_rows: tuple[int, ...] = ()
    sampled_of: int | None = None
    segments: Segments | None = None
    schema_version: int = SCHEMA_VERSION

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataProfile) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def without_counts(self, *, blocks: bool = True) -> DataProfile:
        """Return the layout: the same columns and bins, all counts zero. ``blocks=False`` drops time blocks too."""
        return DataProfile(
            rows=0,
            columns={name: column.empty() for name, column in self.columns.items()},
            timestamp=self.timestamp,
            excluded=self.excluded,
            block=self.block if blocks else None,
            origin=self.origin if blocks else None,
            segments=self.segments.each(lambda part: part.without_counts(blocks=blocks)) if self.segments else None,
        )

    def merge(self, other: DataProfile) -> DataProfile:
        """
        Return the profile of the rows of both. Associative and commutative.

        :raises ConfigError: the layouts differ, so their counts mean different things.
        """
        self._require_same_layout(other)
        blocks = tuple(sorted({*self.blocks, *other.blocks}))
        spread = Spread(self.blocks, other.blocks, blocks)
        rows = spread(np.asarray(self.block_rows, dtype=np.int64), np.asarray(other.block_rows, dtype=np.int64))
        return replace(
            self,
            rows=self.rows + other.rows,
            columns={name: column.merge(other.columns[name], spread) for name, column in self.columns.items()},
            extra=dict(sorted({**other.extra, **self.extra}.items())),
            start=min((side.start for side in (self, other) if side.start), key=_instant, default=None),
            end=max((side.end for side in (self, other) if side.end), key=_instant, default=None),
            blocks=blocks,
            block_rows=tuple(rows.tolist()),
            sampled_of=self._there + other._there if self.sampled_of or other.sampled_of else None,
            segments=_merged(self.segments, other.segments),
        )

    @property
    def _there(self) -> int:
        return self.rows if self.sampled_of is None else self.sampled_of

    def _require_same_layout(self, other: DataProfile) -> None:
        if list(self.columns) != list(other.columns):
            ours, theirs = set(self.columns), set(other.columns)
            names = sorted(ours ^ theirs) or list(self.columns)
            raise ConfigError(
                f"Profiles with different columns cannot be merged; they differ in {', '.join(map(repr, names[:5]))}. "
                "Count both with the layout of one reference."
            )
        if (self.block, self.origin) != (other.block, other.origin):
            raise ConfigError(
                f"Profiles with different time blocks cannot be merged: {self.block} from {self.origin} and "
                f"{other.block} from {other.origin}. Count both with the layout of one reference."
            )
        if (self.segments or other.segments) and not (self.segments and self.segments.same_layout(other.segments)):
            raise ConfigError(
                "Profiles with different segments cannot be merged. Count both with the layout of one reference."
            )
        for name, column in self.columns.items():
            if not column.same_layout(other.columns[name]):
                raise ConfigError(
                    f"Column {name!r} has different bins in the two profiles. "
                    "Count both with the layout of one reference."
                )

    def full_blocks(self) -> Counts:
        """
        Return the positions, shape ``(k,)``, in `blocks` of the blocks that the data covers in full.

        A block at either end of the data counts when at most 5 % of it lacks, or one mean gap between rows, or one day,
        hour or minute when the data begins and ends on whole ones; a block with under a tenth of the median block's
        rows is a gap in the data and does not count.
        """
        if self.block is None or self.origin is None or self.start is None or self.end is None or not self.blocks:
            return np.zeros(0, dtype=np.int64)
        length = self.block.total_seconds()
        first = (_instant(self.start) - _instant(self.origin)).total_seconds()
        last = (_instant(self.end) - _instant(self.origin)).total_seconds()
        begin = _instant(self.start).timestamp()
        steps = (step for step in _STEPS if step <= length and begin % step == 0 == (last - first) % step)
        slack = max(BLOCK_TOLERANCE * length, (last - first) / max(self.rows - 1, 1) * 1.01, next(steps, 0))
        begins = np.asarray(self.blocks, dtype=np.float64) * length
        covered = (begins + slack >= first) & (begins + length - slack <= last)
        rows = np.asarray(self.block_rows)
        return np.flatnonzero(covered & (rows >= MIN_BLOCK_SHARE * np.median(rows))).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `to_json` writes them."""
        return {
            "schema": self.schema_version,
            "rows": self.rows,
            "timestamp": self.timestamp,
            "excluded": list(self.excluded),
            "extra": dict(self.extra),
            "start": self.start,
            "end": self.end,
            "block_seconds": self.block.total_seconds() if self.block else None,
            "origin": self.origin,
            "blocks": list(self.blocks),
            "block_rows": list(self.block_rows),
            "sampled_of": self.sampled_of,
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
            "segments": self.segments.to_dict() if self.segments else None,
        }

    def to_json(self) -> str:
        """Return the profile as JSON (RFC 8259: no NaN, no infinity)."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "") -> DataProfile:
        """
        Return the profile that `to_json` wrote. All of it is checked here, once, so that it may come from anywhere.

        :param source: where *text* came from, for messages.
        :raises DataError: no JSON, a schema newer than this package reads, or a field that lacks, is of another form or
            does not fit the others.
        """
        profile = f"The profile {source!r}" if source else "The profile"
        if len(text) > MOST_JSON:
            raise DataError(
                f"{profile} is {len(text) >> 20:,} MiB long, and no more than {MOST_JSON >> 20:,} are read. "
                "Make it anew without its largest columns (exclude)."
            )
        try:
            text = text if isinstance(text, str) else text.decode()
            values = json.loads(text, parse_constant=_refuse_constant)
            if "\\ud" in text or "\\uD" in text:  # half a character may be among these, which no file can hold
                json.dumps(values, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{profile} is no JSON ({str(error)[:200]}). Make it anew from its data.") from error
        version = values.get("schema") if isinstance(values, dict) else None
        if type(version) is not int:
            raise DataError(f"{profile} is no data profile: it has no 'schema' number. Make it anew from its data.")
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{profile} has schema {str(version)[:20]}; this version of airflow-provider-mlops reads up to "
                f"{SCHEMA_VERSION}. Upgrade the package, or make the profile anew from its data."
            )
        try:
            fields = Fields(values)
            fields.whole("schema", least=1)
            return cls._from_fields(fields, MOST_ROWS)
        except DataError as error:
            raise DataError(f"{profile} is damaged: {error} Make it anew from its data.") from error

    @classmethod
    def _from_fields(cls, fields: Fields, most: int, whole: DataProfile | None = None) -> DataProfile:
        """Return what `to_dict` wrote, with at most *most* rows; *whole* is what it is a segment of."""
        rows = fields.whole("rows", most=most)
        blocks = fields.counts("blocks", None, least=-_MOST_BLOCKS, most=_MOST_BLOCKS)
        block_rows = fields.counts("block_rows", blocks.size, least=1, most=max(rows, 1))
        start, end, block, origin = *map(fields.moment, ("start", "end")), _block(fields), fields.moment("origin")
        if not (blocks[1:] > blocks[:-1]).all():
            raise fields.error("blocks", "do not ascend")
        if int(block_rows.sum()) > rows:
            raise fields.error("block_rows", f"hold more than the {rows:,} rows of 'rows'")
        if (start is None) != (end is None) or (start and end and start > end):
            raise fields.error("start", "and 'end' do not fit: the earliest row and the latest, or neither")
        if (block is None) != (origin is None) or (block is None and blocks.size):
            raise fields.error("block_seconds", "and 'origin' do not fit: both, or neither and no 'blocks'")
        profile = cls(
            rows=rows,
            columns={
                name: ColumnProfile.from_fields(column, rows=rows, block_rows=block_rows)
                for name, column in fields.object("columns", at=fields.at).objects("column")
            },
            timestamp=fields.optional_text("timestamp"),
            excluded=fields.texts("excluded"),
            extra=fields.named("extra"),
            start=fields.optional_text("start"),
            end=fields.optional_text("end"),
            block=block,
            origin=fields.optional_text("origin"),
            blocks=tuple(blocks.tolist()),
            block_rows=tuple(block_rows.tolist()),
            sampled_of=fields.optional_whole("sampled_of", least=rows),
        )
        segments = fields.optional("segments")
        if whole is None:
            return replace(profile, segments=_segments(segments, profile) if segments else None)
        if segments is not None:
            raise fields.error("segments", "stand in a segment, which has none")
        if strange := [name for name in profile.columns if name not in whole.columns]:
            raise fields.error("columns", f"hold {strange[0]!r}, which the whole does not have")
        return profile


class ProfileBuilder:
    """
    Counts arrow record batches on the bins of a layout, in one pass. Needs numpy and pyarrow only.

    Columns that a batch lacks are counted as lacking; columns that the layout does not know are noted as extra. When
    the layout has time blocks and a batch has the timestamp column, the same counts are kept per block.

    >>> import pyarrow as pa
    >>> from airflow_provider_mlops.drift.layout import choose_layout
    >>> layout = choose_layout(pa.record_batch({"x": [1.0, 2.0, 3.0]}))
    >>> builder = ProfileBuilder(layout)
    >>> builder.add(pa.record_batch({"x": [2.0, None]}))
    >>> builder.profile().columns["x"].missing
    1
    """

    def __init__(self, layout: DataProfile) -> None:
        self._layout = layout.without_counts()
        scratch = Scratch()
        self._columns = {name: _ColumnCounter(column, scratch) for name, column in self._layout.columns.items()}
        self._known = {*layout.columns, *layout.excluded, layout.timestamp}
        self._extra: dict[str, str] = {}
        self._rows = 0
        self._block_rows: dict[int, int] = {}
        self._first: int | None = None  # microseconds since 1970
        self._last: int | None = None
        segments = self._layout.segments
        parts = segments.profiles if segments else {}
        self._segments = {
            value: ProfileBuilder(replace(part, timestamp=layout.timestamp)) for value, part in parts.items()
        }

    def add(self, batch: pa.RecordBatch, *, typed: bool = True) -> None:
        """
        Count *batch*.

        :param typed: ``False`` when text may stand for any type, as in CSV: it is then read as the layout's type.
        :raises DataError: two columns of one name, or a timestamp column that holds no time.
        """
        names = set(batch.schema.names)
        if len(names) < len(batch.schema.names):
            double = next(name for name, times in Counter(batch.schema.names).items() if times > 1)
            raise DataError(f"Column {double!r} occurs twice. Rename one of them.")
        for name in names - self._known:
            self._extra[name] = family_of(batch.schema.field(name).type).value
        self._rows += batch.num_rows
        for block, part in self._parts(batch):
            if block is not None:
                self._block_rows[block] = self._block_rows.get(block, 0) + part.num_rows
            for name, counter in self._columns.items():
                if name in names:
                    counter.add(part.column(name), block, typed=typed)
        segments = self._layout.segments
        if segments is not None and segments.column in names:
            for value, part in cut(batch, segments.column, segments.family, segments.values, typed=typed):
                if value in self._segments:
                    self._segments[value].add(part, typed=typed)

    def _parts(self, batch: pa.RecordBatch) -> Iterator[tuple[int | None, pa.RecordBatch]]:
        """Yield the batch cut by time block; rows without a time are in block ``None``."""
        timestamp = self._layout.timestamp
        if timestamp is None or batch.num_rows == 0 or timestamp not in batch.schema.names:
            yield None, batch
            return
        times, valid = microseconds(batch.column(timestamp), name=timestamp, calendar=True)
        if valid.any():
            first, last = int(times[valid].min()), int(times[valid].max())
            self._first = first if self._first is None else min(self._first, first)
            self._last = last if self._last is None else max(self._last, last)
        if self._layout.block is None or self._layout.origin is None:
            yield None, batch
            return
        length = self._layout.block // timedelta(microseconds=1)
        blocks = (times - _to_microseconds(self._layout.origin)) // length
        if valid.all() and blocks.min() == blocks.max():
            yield int(blocks[0]), batch
            return
        for block in np.unique(blocks[valid]).tolist():
            yield block, batch.take(np.flatnonzero(valid & (blocks == block)))
        if not valid.all():
            yield None, batch.take(np.flatnonzero(~valid))

    def profile(self) -> DataProfile:
        """Return what was counted so far. The builder can go on."""
        blocks = sorted(self._block_rows)
        return replace(
            self._layout,
            rows=self._rows,
            columns={name: counter.result(blocks) for name, counter in self._columns.items()},
            extra=dict(sorted(self._extra.items())),
            start=None if self._first is None else _from_microseconds(self._first),
            end=None if self._last is None else _from_microseconds(self._last),
            blocks=tuple(blocks),
            block_rows=tuple(self._block_rows[block] for block in blocks),
            segments=replace(
                self._layout.segments,
                profiles={value: replace(part.profile(), extra={}) for value, part in self._segments.items()},
            )
            if self._layout.segments
            else None,
        )


def cut(
    batch: pa.RecordBatch, column: str, family: Family, values: Sequence[str], *, typed: bool = True
) -> Iterator[tuple[str | None, pa.RecordBatch]]:
    """
    Yield the rows of *batch* by the value of *column*, all that is none of *values* under ``None``.

    :param values: as in `Segments.profiles`.
    :param typed: ``False`` when text may stand for any type, as in CSV.
    """
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    array = plain(batch.column(column))
    if family_of(array.type) is Family.TEXT and family is not Family.TEXT and not typed:
        array = parse_text(array, family)
    if family_of(array.type) is not family:
        yield None, batch
        return
    if family is Family.NUMBER:
        known = pa.array([float(value) for value in values], pa.float64())
    else:
        known = pa.array(values, pa.large_string())
    found = pc.index_in(array.cast(known.type, safe=False), value_set=known)
    place = found.fill_null(len(values)).to_numpy(zero_copy_only=False)
    for number in np.unique(place).tolist():
        yield values[number] if number < len(values) else None, batch.take(np.flatnonzero(place == number))


def _merged(left: Segments | None, right: Segments | None) -> Segments | None:
    if left is None or right is None:
        return None
    return replace(left, profiles={value: part.merge(right.profiles[value]) for value, part in left.profiles.items()})


class _ColumnCounter:
    """Counts one column: what is null, of another family, unreadable, and the values."""

    def __init__(self, layout: ColumnProfile, scratch: Scratch) -> None:
        self._layout = layout
        self._rows = self._null = self._unparsed = 0
        self._retyped: dict[str, int] = {}
        self._block_missing: dict[int, int] = {}
        self._numbers = None if layout.numbers is None else NumberCounter(layout.numbers, scratch)
        self._categories = None if layout.categories is None else CategoryCounter(layout.categories)
        self._texts = None if layout.texts is None else TextCounter(layout.texts)
        self._vectors = None if layout.vectors is None else VectorCounter(layout.vectors)
        counters = (self._numbers, self._categories, self._texts, self._vectors)
        self._counters = [counter for counter in counters if counter is not None]

    def add(self, array: pa.Array, block: int | None, *, typed: bool) -> None:
        array = plain(array)
        self._rows += len(array)
        self._null += array.null_count
        missing = array.null_count
        family = family_of(array.type)
        if family is Family.VECTOR and self._layout.family is Family.OTHER:
            family = Family.OTHER  # as profiles of the first form say
        if array.null_count == len(array):
            pass  # nulls alone have no type of their own
        elif family is self._layout.family:
            for counter in self._counters:
                missing = counter.add(array, block)
        elif family is Family.TEXT and not typed and self._counters:
            parsed = parse_text(array, self._layout.family)
            self._unparsed += parsed.null_count - array.null_count
            missing += self._counters[0].add(parsed.drop_null(), block)
        else:
            self._retyped[family.value] = self._retyped.get(family.value, 0) + len(array) - array.null_count
        if block is not None:
            self._block_missing[block] = self._block_missing.get(block, 0) + missing

    def result(self, blocks: Sequence[int]) -> ColumnProfile:
        return replace(
            self._layout,
            rows=self._rows,
            null=self._null,
            block_missing=np.array([self._block_missing.get(block, 0) for block in blocks], dtype=np.int64),
            retyped=dict(sorted(self._retyped.items())),
            unparsed=self._unparsed + (self._vectors.odd if self._vectors else 0),
            numbers=self._numbers.result(blocks) if self._numbers else None,
            categories=self._categories.result(blocks) if self._categories else None,
            texts=self._texts.result(blocks) if self._texts else None,
            vectors=self._vectors.result(blocks) if self._vectors else None,
        )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _family(fields: Fields) -> Family:
    name = fields.text("family")
    if name not in set(Family):
        raise fields.error("family", f"is none of {', '.join(Family)}")
    return Family(name)


def _block(fields: Fields) -> timedelta | None:
    seconds = fields.optional_number("block_seconds")
    if seconds is None:
        return None
    if not 1e-6 <= seconds <= _MOST_SECONDS:
        raise fields.error("block_seconds", f"is no length from a microsecond to {_MOST_SECONDS:,} seconds")
    return timedelta(seconds=seconds)


def _segments(fields: Fields, whole: DataProfile) -> Segments:
    """Return what `Segments.to_dict` wrote. :raises DataError: as `DataProfile.from_json`."""
    family, profiles, left = _family(fields), {}, whole.rows
    if family not in (Family.NUMBER, Family.BOOLEAN, Family.TEXT):
        raise fields.error("family", f"is {family.value}, and segments are of numbers, booleans or texts")
    for part in fields.listed("profiles"):
        value = part.optional_text("value")
        if value in profiles:
            raise part.error("value", "occurs twice")
        if family is Family.NUMBER and value is not None and not _finite(value):
            raise part.error("value", "is no number, as the segments are")
        at = f"segment {value!r}"
        profiles[value] = DataProfile._from_fields(part.object("profile", at=at), left, whole)  # noqa: SLF001 - its form
        left -= profiles[value].rows
    return Segments(fields.text("column"), family, profiles)


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _to_microseconds(text: str) -> int:
    return (_instant(text) - _EPOCH) // timedelta(microseconds=1)


def _from_microseconds(value: int) -> str:
    return (_EPOCH + timedelta(microseconds=value)).isoformat()
