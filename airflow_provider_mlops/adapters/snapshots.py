"""Freeze a training set and the newest rows that judge the model into a folder that never changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from airflow_provider_mlops.adapters.files import scan, schema
from airflow_provider_mlops.adapters.folders import building, put_in_place, sync
from airflow_provider_mlops.adapters.row_hash import row_hashes
from airflow_provider_mlops.data import DataRef, DataVersion, Window
from airflow_provider_mlops.drift.counting import microseconds
from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Snapshot", "SnapshotStore", "moment", "verify"]

_MARKER = "_complete.json"
_PART = "part-0.parquet"
_GROUP_ROWS = 65_536
_MOST_TIMES = 65_536  # how finely the time of a share is found: one bucket per event time, or coarser ones
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    Two frozen, disjoint sets of rows.

    :param train: the rows to train on.
    :param evaluation: the rows to judge by; with a timestamp all of them are newer than those of *train*.
    :param digest: ``sha256:`` and 64 hexadecimal digits of both contents.
    :param unlabeled: rows of the two windows that were left out because their label is null or NaN.
    :param untimed: rows of the source that were left out because their timestamp is null.
    """

    train: DataVersion
    evaluation: DataVersion
    digest: str
    unlabeled: int = 0
    untimed: int = 0


class SnapshotStore:
    """
    Frozen data below *root*: ``root/data/DIGEST/{train,evaluation}/part-0.parquet`` and ``_complete.json``.

    A snapshot is built in a hidden folder beside its final place and renamed into it, so it is there wholly or not at
    all. Freezing the same rows again finds the same folder. Of two processes that freeze the same rows at once, one
    puts its copy in place and the other uses it. What a killed process left behind goes with the next freeze.

    :param root: folder on a local or shared file system, made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "data"

    def freeze(
        self,
        ref: DataRef,
        *,
        as_of: datetime | None = None,
        train_on: timedelta | None = None,
        hold_out: timedelta | float = 0.2,
        label_delay: timedelta | None = None,
    ) -> Snapshot:
        """
        Read *ref* twice, in memory that does not grow with it, and return the frozen copy.

        *With a timestamp column* the rows are split by time. The end is the newest event time that is not after
        *as_of*, less *label_delay*, and not after the newest label. A duration *hold_out* evaluates on
        ``[end - hold_out, end]``; a share takes the newest share of the labeled rows, rounded up to whole event times.
        Training gets the *train_on* before that, or everything before.

        *Without one* each row goes to evaluation with probability *hold_out*, decided by a hash of its columns other
        than the label (of the entity alone where there is one). So a row keeps its side in the next snapshot, and
        neither copies of a row nor rows of one entity are on both sides. Adding or renaming a column deals anew.

        The digest is that of the Parquet files. It changes with the rows, their order, the columns' names, order and
        types, and with the version of pyarrow, whose name is in each file; not with how the source was cut into files.

        :param as_of: newest event time to read; naive is UTC. ``None`` reads all.
        :param train_on: how far training reaches back, needs a timestamp.
        :param hold_out: how much to evaluate on: a duration (needs a timestamp) or a share, ``0 < share < 1``.
        :param label_delay: age at which a label is final, needs a timestamp and a label.
        :raises ConfigError: the arguments contradict each other, or the folder cannot be written.
        :raises DataError: the source cannot be read, a side has no row, or training has a single label.
        :raises ServiceError: the disk is full or fails.
        """
        _check_arguments(ref, as_of=as_of, train_on=train_on, hold_out=hold_out, label_delay=label_delay)
        columns = _columns(ref)
        split: _Split
        if ref.timestamp is None and not isinstance(hold_out, timedelta):
            split = _HashSplit.of(ref, columns, hold_out)
        else:
            split = _TimeSplit.of(
                ref,
                columns,
                as_of=as_of,
                train_on=train_on,
                hold_out=hold_out,
                label_delay=label_delay or timedelta(),
            )
        with building(self._folder) as folder:
            snapshot = _write(folder, ref, columns, split)
            final = self._folder / snapshot.digest.removeprefix("sha256:")
            put_in_place(folder, final)
        if not (final / _MARKER).is_file():
            raise DataError(
                f"The snapshot {final} lacks its {_MARKER}: something removed it. Remove the folder and run again."
            )
        os.utime(final)  # used now: what is old may be cleaned away
        return Snapshot(
            train=_moved(snapshot.train, final / "train"),
            evaluation=_moved(snapshot.evaluation, final / "evaluation"),
            digest=snapshot.digest,
            unlabeled=snapshot.unlabeled,
            untimed=split.untimed,
        )


def verify(version: DataVersion) -> None:
    """:raises DataError: what lies at *version*'s place is not what was frozen there."""
    file = Path(version.uri) / _PART
    try:
        found = _file_digest(file)
    except OSError as error:
        raise DataError(
            f"The frozen data {file} cannot be read: {error.strerror}. Freeze it again with SnapshotDataOperator."
        ) from error
    if found != version.digest:
        raise DataError(
            f"The frozen data {file} was changed: its digest is {found}, and {version.digest} was frozen. "
            "Remove the snapshot's folder and freeze it again; find out who writes there."
        )


# -- what is asked for --


def _check_arguments(
    ref: DataRef,
    *,
    as_of: datetime | None,
    train_on: timedelta | None,
    hold_out: timedelta | float,
    label_delay: timedelta | None,
) -> None:
    if ref.timestamp is None:
        for name, given in (("as_of", as_of), ("train_on", train_on), ("label_delay", label_delay)):
            if given is not None:
                raise ConfigError(f"data: {name} {given} needs a timestamp column. Set data.timestamp.")
        if isinstance(hold_out, timedelta):
            raise ConfigError(
                f"data: hold_out {hold_out} is a duration and needs a timestamp column. "
                'Set data.timestamp, or hold out a share: "20%".'
            )
    if label_delay is not None and ref.label is None:
        raise ConfigError(f"data: label_delay {label_delay} needs a label column. Set data.label.")
    for name, value in (("train_on", train_on), ("hold_out", hold_out), ("label_delay", label_delay)):
        if isinstance(value, timedelta) and value <= timedelta():
            raise ConfigError(f"data: {name} must be longer than nothing, got {value}.")
    if not isinstance(hold_out, timedelta) and not 0 < hold_out < 1:
        raise ConfigError(f"data: as a share, hold_out must be between 0 and 1, got {hold_out!r}.")


def _columns(ref: DataRef) -> dict[str, pa.DataType]:
    """Return names and types of the columns to freeze, in the source's order."""
    found = schema(ref.path)
    names = list(found.names)
    wanted = {"label": ref.label, "timestamp": ref.timestamp, "entity": ref.entity}
    wanted |= {f"columns[{index}]": name for index, name in enumerate(ref.columns or ())}
    for key, name in wanted.items():
        if name is not None and name not in names:
            raise DataError(
                f"data.{key}: {ref.path} has no column {name!r}.{did_you_mean(name, names)} "
                f"It has {len(names)}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
            )
    return {field.name: field.type for field in found if ref.columns is None or field.name in wanted.values()}


# -- which row goes where --


class _Split(Protocol):
    """Decides by the row alone, so that rows can be read in any chunks."""

    @property
    def untimed(self) -> int:
        """Return the number of rows without an event time."""

    def window(self) -> Window | None:
        """Return the event times outside of which no row belongs to a side."""

    def sides(self, batch: pa.RecordBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which rows belong to training and which to evaluation, each of shape ``(rows,)``."""

    def describe(self, side: str) -> str:
        """Return words for the rows of *side*, to be used in an error."""


@dataclass(frozen=True, slots=True)
class _HashSplit:
    share: float
    columns: tuple[str, ...]
    entity: str | None
    untimed: int = 0

    @classmethod
    def of(cls, ref: DataRef, columns: Iterable[str], share: float) -> _HashSplit:
        features = tuple(name for name in columns if name != ref.label)
        return cls(share=share, columns=features or tuple(columns), entity=ref.entity)

    def window(self) -> None:
        return None

    def sides(self, batch: pa.RecordBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        hashes = row_hashes(batch, self.columns)
        if self.entity is not None:
            known = batch.column(self.entity).is_valid().to_numpy(zero_copy_only=False)
            hashes = np.where(known, row_hashes(batch, [self.entity]), hashes)
        evaluation = hashes < np.uint64(int(self.share * 2.0**64))
        return ~evaluation, evaluation

    def describe(self, side: str) -> str:
        share = 1 - self.share if side == "train" else self.share
        kept = f"all rows with the same {self.entity!r} on one side" if self.entity else "equal rows on one side"
        return f"a share of {share:.3g} dealt by hash, {kept}"


@dataclass(frozen=True, slots=True)
class _TimeSplit:
    """Event times in microseconds since 1970, UTC: training is ``first <= t < boundary``, then up to and with *end*."""

    timestamp: str
    first: int | None
    boundary: int
    end: int
    untimed: int

    @classmethod
    def of(
        cls,
        ref: DataRef,
        columns: Mapping[str, pa.DataType],
        *,
        as_of: datetime | None,
        train_on: timedelta | None,
        hold_out: timedelta | float,
        label_delay: timedelta,
    ) -> _TimeSplit:
        timestamp = ref.timestamp or ""
        limit = None if as_of is None else _microseconds(as_of)
        newest: int | None = None
        times = _TimeCounts()
        rows = untimed = 0
        read = list(dict.fromkeys(filter(None, (timestamp, ref.label))))
        for batch in scan(ref.path, columns=read, types=columns):
            values, known = microseconds(batch.column(timestamp), name=timestamp)
            rows += len(values)
            untimed += int((~known).sum())
            if limit is not None:
                known = known & (values <= limit)
            if known.any():
                newest = max(int(values[known].max()), newest if newest is not None else -(2**63))
                times.add(values[known & _labeled(batch, ref.label)])
        if newest is None:
            until = f" at or before {as_of.isoformat()}" if as_of else ""
            raise DataError(
                f"None of the {rows:,} rows of {ref.path} has an event time in {timestamp!r}{until}. "
                "Choose a later as_of, or look at the column."
            )
        if times.newest is None:
            raise DataError(
                f"None of the {rows:,} rows of {ref.path} up to {moment(newest).isoformat()} has a label in "
                f"{ref.label!r}. Wait for labels, or look at the column."
            )
        end = min(newest - label_delay // _MICROSECOND, times.newest)
        boundary = (
            end - hold_out // _MICROSECOND if isinstance(hold_out, timedelta) else times.start_of_newest(hold_out, end)
        )
        first = None if train_on is None else boundary - train_on // _MICROSECOND
        return cls(timestamp=timestamp, first=first, boundary=boundary, end=end, untimed=untimed)

    def window(self) -> Window:
        # One microsecond more: a window is open at its end and the last row belongs to it.
        return Window(None if self.first is None else moment(self.first), moment(self.end + 1))

    def sides(self, batch: pa.RecordBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        times, known = microseconds(batch.column(self.timestamp), name=self.timestamp)
        train = known & (times < self.boundary)
        if self.first is not None:
            train &= times >= self.first
        return train, known & (times >= self.boundary) & (times <= self.end)

    def describe(self, side: str) -> str:
        start, end = moment(self.boundary).isoformat(), moment(self.end).isoformat()
        if side == "evaluation":
            return f"{self.timestamp} from {start} to {end}"
        first = "the first row" if self.first is None else moment(self.first).isoformat()
        return f"{self.timestamp} from {first} to before {start}"


class _TimeCounts:
    """Rows per event time, in buckets whose width doubles whenever there are too many: bounded, and in any order."""

    def __init__(self) -> None:
        self.newest: int | None = None
        self._shift = 0  # a bucket is 2**shift microseconds wide
        self._counts: Counter[int] = Counter()

    def add(self, times: NDArray[np.int64]) -> None:
        if not len(times):
            return
        self.newest = max(int(times.max()), self.newest if self.newest is not None else -(2**63))
        buckets, counts = np.unique(times >> self._shift, return_counts=True)
        self._counts.update(dict(zip(buckets.tolist(), counts.tolist(), strict=True)))
        while len(self._counts) > _MOST_TIMES:
            self._shift += 1
            wider: Counter[int] = Counter()
            for bucket, count in self._counts.items():
                wider[bucket >> 1] += count
            self._counts = wider

    def start_of_newest(self, share: float, end: int) -> int:
        """Return the latest bucket's start so that at least *share* of the rows up to *end* are not before it."""
        buckets = sorted((bucket for bucket in self._counts if bucket << self._shift <= end), reverse=True)
        needed = share * sum(self._counts[bucket] for bucket in buckets)
        reached = 0
        for bucket in buckets:
            reached += self._counts[bucket]
            if reached >= needed:
                return bucket << self._shift
        return end


def _labeled(batch: pa.RecordBatch, label: str | None) -> NDArray[np.bool_]:
    """Return which rows have a label: neither null nor NaN."""
    if label is None:
        return np.ones(batch.num_rows, dtype=bool)
    missing: NDArray[np.bool_] = batch.column(label).is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    return ~missing


def _microseconds(moment: datetime) -> int:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return the time; what a datetime cannot hold becomes the first or the last one that it can."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if microseconds > 0 else datetime.min.replace(tzinfo=UTC)


# -- writing --


class _Side:
    """One Parquet file, written in row groups of fixed size whatever the chunks that come in."""

    def __init__(self, folder: Path, timestamp: str | None) -> None:
        self.folder = folder
        self.rows = 0
        self._timestamp = timestamp
        self._span: tuple[int, int] | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._writer: Any = None
        folder.mkdir()

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self.rows += batch.num_rows
        if self._timestamp is not None:
            times, _ = microseconds(batch.column(self._timestamp), name=self._timestamp)
            first, last = self._span or (int(times[0]), int(times[0]))
            self._span = min(first, int(times.min())), max(last, int(times.max()))
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        while self._waiting_rows >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        if self._waiting_rows:
            self._write_group()
        if self._writer is not None:
            self._writer.close()
            sync(self.folder / _PART)
            sync(self.folder)

    def version(self) -> DataVersion:
        """Return the version of a closed side that has rows."""
        start, end = (None, None) if self._span is None else (moment(time).isoformat() for time in self._span)
        digest = _file_digest(self.folder / _PART)
        return DataVersion(uri=str(self.folder), digest=digest, rows=self.rows, start=start, end=end)

    def _write_group(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_batches(self._waiting)
        group, rest = table.slice(0, _GROUP_ROWS).combine_chunks(), table.slice(_GROUP_ROWS)
        if self._writer is None:
            # The options are written out because the bytes, and so the digest, depend on them.
            self._writer = parquet.ParquetWriter(
                self.folder / _PART,
                group.schema,
                version="2.6",
                compression="snappy",
                use_dictionary=True,
                write_statistics=True,
                data_page_version="1.0",
                data_page_size=1 << 20,
            )
        self._writer.write_table(group, row_group_size=_GROUP_ROWS)
        self._waiting, self._waiting_rows = rest.to_batches(), rest.num_rows


def _write(folder: Path, ref: DataRef, columns: Mapping[str, pa.DataType], split: _Split) -> Snapshot:
    """Write both sides and the marker below *folder*, and return what is there."""
    import pyarrow as pa

    sides = {name: _Side(folder / name, ref.timestamp) for name in ("train", "evaluation")}
    rows = unlabeled = 0
    label: Any = None
    varied = ref.label is None
    try:
        rows_of_window = scan(
            ref.path, columns=list(columns), types=columns, timestamp=ref.timestamp, window=split.window()
        )
        for batch in map(_plain, rows_of_window):
            rows += batch.num_rows
            labeled = _labeled(batch, ref.label)
            for name, chosen in zip(sides, split.sides(batch), strict=True):
                unlabeled += int((chosen & ~labeled).sum())
                taken = batch.filter(pa.array(chosen & labeled))
                sides[name].add(taken)
                if name == "train" and not varied:
                    values = taken.column(ref.label).unique().to_pylist()
                    label = values[0] if label is None and values else label
                    varied = any(value != label for value in values)
        for side in sides.values():
            side.close()
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"{ref.path} has a column that Parquet cannot hold: {error}. Leave it out of columns."
        ) from error
    for name, side in sides.items():
        if not side.rows:
            raise DataError(
                f"No labeled row of {ref.path} is left for {name} ({split.describe(name)}): {rows:,} rows were read, "
                f"{unlabeled:,} of them have no label. Change train_on, hold_out or label_delay, or bring more data."
            )
    if not varied:
        raise DataError(
            f"All {sides['train'].rows:,} training rows of {ref.path} ({split.describe('train')}) have the label "
            f"{ref.label} = {label!r}; there is nothing to learn. Train on a longer span, or look at the label."
        )
    train, evaluation = (side.version() for side in sides.values())
    digest = "sha256:" + hashlib.sha256(f"train {train.digest}\nevaluation {evaluation.digest}\n".encode()).hexdigest()
    content = {"digest": digest} | {
        name: {"digest": version.digest, "rows": version.rows, "start": version.start, "end": version.end}
        for name, version in (("train", train), ("evaluation", evaluation))
    }
    marker = folder / _MARKER
    marker.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sync(marker)
    sync(folder)
    return Snapshot(train, evaluation, digest, unlabeled)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return *batch* without metadata and dictionaries, which differ between files with equal rows."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in batch.schema
    ]
    columns = [column.cast(field.type) for column, field in zip(batch.columns, fields, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _moved(version: DataVersion, folder: Path) -> DataVersion:
    return DataVersion(str(folder), version.digest, version.rows, version.start, version.end)


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
