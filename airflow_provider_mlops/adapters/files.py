"""
Rows of Parquet, CSV and Arrow files as arrow record batches, in bounded memory.

A path may be a file, a folder (files that begin with ``.`` or ``_`` are not data), a glob, or any of these as an
fsspec URL (``s3://``, ``gs://``, ``memory://``). Whatever cannot be read is a `DataError` that names the file, the
column where there is one, and the next step.
"""

from __future__ import annotations

import functools
import glob as globs
import math
import operator
import socket
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from airflow_provider_mlops.data import Window

    _Bounds = tuple[tuple[Callable[[Any, Any], Any], pa.Scalar], ...]

__all__ = [
    "column_names",
    "count_rows",
    "file_format",
    "fitted",
    "inside",
    "plain_schema",
    "require_columns",
    "scan",
    "schema",
    "time_bounds",
]

_SEPARATORS = (";", "\t", "|")  # of files that call themselves CSV
_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}
_WITH_HOST = {
    "http",
    "https",
    "ftp",
    "ftps",
    "sftp",
    "ssh",
    "smb",
    "hdfs",
    "webhdfs",
}  # elsewhere a bucket stands there
_COMPRESSED = {".gz", ".bz2", ".zst"}
_BUFFER = 65_536  # bytes of a column of a local Parquet file that are read at once
_DICTIONARY = 4 * 2**20  # bytes that the dictionary of a row group's text may take; most writers stop at 1 MiB
_BATCH = 64 * 2**20  # bytes that a batch of a Parquet file takes, about


@dataclass(frozen=True, slots=True)
class _Source:
    """Files of one format on one file system."""

    path: str  # as the user wrote it
    filesystem: Any
    files: tuple[str, ...]
    format: str


def schema(path: str) -> pa.Schema:
    """
    Return names and types of the columns of *path*.

    CSV has no types: the narrowest of int64, double, bool, date, timestamp and string that fits every value of the
    column is taken; the whole file is read for that.

    :raises DataError: nothing there, a file that cannot be read, files whose columns do not fit together, or two
        columns of one name.
    """
    source = _resolve(path)
    return _csv_schema(source, {}) if source.format == "csv" else _dataset_schema(source)


def column_names(path: str) -> list[str]:
    """Return the names of the columns of *path*. :raises DataError: as `schema`."""
    source = _resolve(path)
    if source.format != "csv":
        return list(_dataset_schema(source).names)
    return list(dict.fromkeys(name for file in source.files for name in _csv_names(source, file)))


def file_format(path: str) -> str:
    """Return ``parquet``, ``csv`` or ``ipc``. :raises DataError: nothing there, or files of several formats."""
    return _resolve(path).format


def scan(
    path: str,
    *,
    columns: Sequence[str] | None = None,
    timestamp: str | None = None,
    window: Window | None = None,
    batch_rows: int = 65_536,
    types: Mapping[str, pa.DataType] | None = None,
    dictionaries: bool = False,
    most_rows: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """
    Yield the rows of *path* in the files' order, files sorted by name.

    :param columns: the columns to read, in this order; ``None`` reads all.
    :param timestamp: column with the event time, any arrow timestamp or date type; times without a zone are UTC.
    :param window: yield only rows whose *timestamp* lies in it; Parquet row groups outside are not read. A row
        without a time lies in no window.
    :param batch_rows: most rows of a batch. Of Parquet files with wide rows it has fewer, to take about 64 MiB.
    :param types: types of CSV columns, in place of looking at all their values; other files bring their own.
    :param dictionaries: leave text that Parquet holds as dictionaries in that form, which is faster to count; text of
        very many values is spelled out.
    :param most_rows: of Parquet that has more rows, read about so many: whole row groups, one at random out of each
        of equal shares of them in order of time and files. Seeded: the same files give the same rows.
    :raises ConfigError: a window without a timestamp column.
    :raises DataError: as `schema`; a column that is not there; a timestamp column that holds no time.
    """
    if window is not None:
        window.check(timestamp)
    source = _resolve(path)
    wanted = None if columns is None else list(dict.fromkeys(columns))
    if source.format == "csv":
        yield from _scan_csv(source, wanted, timestamp, window, batch_rows=batch_rows, types=types or {})
    else:
        yield from _scan_arrow(
            source, wanted, timestamp, window, batch_rows, dictionaries=dictionaries, most_rows=most_rows
        )


def count_rows(path: str, *, timestamp: str | None = None, window: Window | None = None) -> int:
    """
    Return how many rows of Parquet or Arrow files lie in *window*; reads footers, and times at the window's ends.

    :raises ConfigError: the files are CSV, whose rows nobody has counted.
    :raises DataError: as `scan`.
    """
    source = _resolve(path)
    if source.format == "csv":
        raise ConfigError(f"{path!r} is CSV: its rows are known when all of it has been read. Use Parquet.")
    found = _dataset_schema(source)
    condition = _condition(timestamp, time_bounds(found, timestamp, window, path))
    with _reading(path):
        return int(_dataset(source, found).count_rows(filter=condition))


def _resolve(path: str) -> _Source:
    """Return the data files that *path* means, sorted."""
    from pyarrow import fs

    if "://" in path:
        files, filesystem = _remote_files(path)
    else:
        files, filesystem = _local_files(path), fs.LocalFileSystem()
    formats = {name: _format_of(name) for name in files}
    known = {kind for kind in formats.values() if kind}
    if len(files) == 1 and not known:
        known = {_sniff(files[0], filesystem, path)}
    elif known:
        files = [name for name in files if formats[name]]
    if not known:
        raise DataError(f"{path!r} holds no Parquet, CSV or Arrow file. Files that begin with '.' or '_' are ignored.")
    if len(known) > 1:
        raise DataError(f"{path!r} holds files of several formats: {', '.join(sorted(known))}. Name one with a glob.")
    return _Source(path, filesystem, tuple(sorted(files)), known.pop())


def _local_files(path: str) -> list[str]:
    if any(char in path for char in "*?[") and not Path(path).exists():
        found = [name for name in globs.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207 - absolute patterns
        found = [name for name in found if _is_data(Path(name).name)]
        if not found:
            raise DataError(f"No file matches {path!r}. Files that begin with '.' or '_' are ignored.")
        return found
    here = Path(path)
    if here.is_file():
        return [path]
    if here.is_dir():
        inside = (file.relative_to(here) for file in here.rglob("*") if file.is_file())
        return [str(here / name) for name in inside if all(map(_is_data, name.parts))]
    try:
        near = [file.name for file in here.parent.iterdir()]
    except OSError:
        near = []
    step = "Check the path of the data." if here.is_absolute() else f"It was looked for in {Path.cwd()}."
    raise DataError(f"{path!r} is no file and no folder.{did_you_mean(here.name, near)} {step}")


def _remote_files(path: str) -> tuple[list[str], Any]:
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except OSError as error:  # some connect at once
        unknown = _unknown_host(path) or f"{str(error)[:200]}. Check the URL and its credentials."
        raise DataError(f"{path!r} cannot be opened: {unknown}") from error
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{path!r} cannot be opened: {str(error)[:200]}. Install the fsspec package of that protocol, such as s3fs."
        ) from error
    try:
        if any(char in inner for char in "*?["):
            found = [name for name in filesystem.glob(inner) if _is_data(PurePosixPath(name).name)]
        elif filesystem.isfile(inner):
            found = [inner]
        else:
            base = inner.rstrip("/")
            found = [
                name
                for name in filesystem.find(base)
                if all(map(_is_data, PurePosixPath(name[len(base) :].lstrip("/")).parts))
            ]
    except OSError as error:
        unknown = _unknown_host(path) or f"{str(error)[:200]}. Check the URL and its credentials."
        raise DataError(f"{path!r} cannot be listed: {unknown}") from error
    if not found:
        if unknown := _unknown_host(path):  # what the protocols that ask a web server take for "no such file"
            raise DataError(f"{path!r} cannot be listed: {unknown}")
        raise DataError(f"Nothing was found at {path!r}. Check the URL; files that begin with '.' or '_' are ignored.")
    return found, PyFileSystem(FSSpecHandler(filesystem))


def _unknown_host(path: str) -> str:
    """Return what to say when the host that *path* names has no address here; empty when it has, or there is none."""
    address = urlsplit(path)
    if address.scheme not in _WITH_HOST or not address.hostname:
        return ""
    try:
        socket.getaddrinfo(address.hostname, None)
    except socket.gaierror:
        return (
            f"the host {address.hostname!r} is not known here. Check its spelling, and whether this machine reaches "
            "the name server and the network of that host."
        )
    return ""


def _is_data(name: str) -> bool:
    return not name.startswith((".", "_"))


def _format_of(name: str) -> str | None:
    pure = PurePosixPath(name.lower())
    suffix = PurePosixPath(pure.stem).suffix if pure.suffix in _COMPRESSED else pure.suffix
    return _FORMATS.get(suffix)


def _sniff(name: str, filesystem: Any, path: str) -> str:
    with _reading(name), filesystem.open_input_file(name) as file:
        magic = file.read(6)
    if magic[:4] == b"PAR1":
        return "parquet"
    if magic == b"ARROW1":
        return "ipc"
    raise DataError(f"{path!r} is no Parquet or Arrow file, and its name does not end in .csv. Rename or convert it.")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what arrow and the file system raise into our error, with the file's name."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())[:256]
        raise DataError(f"{name!r} cannot be read: {text}. Check the file, or write it again.") from error


def _refuse_duplicates(names: Sequence[str], file: str) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(f"{file!r} has two columns named {name!r}. Rename one of them.")


def require_columns(columns: Sequence[str], names: Sequence[str], path: str) -> None:
    """Raise `DataError` for one of *columns* that is none of *names*, the columns of *path*."""
    known = set(names)
    for column in columns:
        if column not in known:
            raise DataError(
                f"Column {column!r} is not in {path!r}.{did_you_mean(column, names)} "
                f"It has {len(names)} columns: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}."
            )


# Parquet and Arrow files


def _dataset_schema(source: _Source) -> pa.Schema:
    import pyarrow as pa

    unified: pa.Schema | None = None
    for name in source.files:
        found = _file_schema(source, name)
        try:
            unified = found if unified is None else pa.unify_schemas([unified, found], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise DataError(_misfit(unified, found, source.files[0], name)) from error
    if unified is None:
        raise DataError(f"{source.path!r} holds no data files.")
    return unified


def _file_schema(source: _Source, name: str) -> pa.Schema:
    import pyarrow as pa

    with _reading(name), source.filesystem.open_input_file(name) as opened:
        if source.format == "parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(opened) as file:
                found = file.schema_arrow
        else:
            with pa.ipc.open_file(opened) as file:
                found = file.schema
    _refuse_duplicates(found.names, name)
    return plain_schema(found)


def plain_schema(found: pa.Schema) -> pa.Schema:
    """Return *found* with types whose rows arrow can take and filter."""
    import pyarrow as pa

    return pa.schema([_plain_field(field) for field in found])


def _plain_type(type_: pa.DataType) -> pa.DataType:
    """Return *type_* without run ends and views of text and bytes, of which arrow takes no rows, at any depth."""
    import pyarrow as pa

    types = pa.types
    if types.is_run_end_encoded(type_):
        type_ = type_.value_type
    if types.is_list(type_):
        return pa.list_(_plain_field(type_.value_field))
    if types.is_large_list(type_):
        return pa.large_list(_plain_field(type_.value_field))
    if types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field), type_.list_size)
    if types.is_struct(type_):
        return pa.struct([_plain_field(type_.field(place)) for place in range(type_.num_fields)])
    if types.is_map(type_):
        return pa.map_(_plain_field(type_.key_field), _plain_field(type_.item_field), type_.keys_sorted)
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(type_, type_)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain_type(field.type))


def _misfit(unified: pa.Schema, found: pa.Schema, first: str, name: str) -> str:
    import pyarrow as pa

    for field in found:
        position = unified.get_field_index(field.name)
        if position >= 0:
            pair = [pa.schema([unified.field(position)]), pa.schema([field])]
            try:
                pa.unify_schemas(pair, promote_options="permissive")
            except (pa.ArrowTypeError, pa.ArrowInvalid):
                return (
                    f"Column {field.name!r} is {field.type} in {name!r} and {unified.field(position).type} in "
                    f"{first!r} or a file after it. Convert one of them, or read them apart with a glob."
                )
    return f"The columns of {name!r} do not fit those of {first!r}. Read them apart with a glob."


def _scan_arrow(
    source: _Source,
    columns: Sequence[str] | None,
    timestamp: str | None,
    window: Window | None,
    batch_rows: int,
    *,
    dictionaries: bool,
    most_rows: int | None,
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    found = _dataset_schema(source)
    names = found.names if columns is None else list(columns)
    require_columns(names, found.names, source.path)
    bounds = time_bounds(found, timestamp, window, source.path)
    read = [*names, timestamp] if bounds and timestamp is not None and timestamp not in names else names
    chosen = None
    if source.format == "parquet" and (bounds or most_rows is not None):
        chosen = _row_groups(source, found, timestamp, bounds, most_rows)
    text: list[str] = []
    if dictionaries and source.format == "parquet":
        text = _coded(source, [field.name for field in found if field.type in _text_types()])
        for name in text:
            position = found.get_field_index(name)
            found = found.set(position, pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    for number, file in enumerate(source.files):
        if source.format == "ipc":
            batches = _ipc_batches(source, file, read, batch_rows)
        else:
            groups = None if chosen is None else chosen.get(number, [])
            batches = _parquet_batches(source, file, read, batch_rows, text=text, groups=groups)
        with _reading(file):
            for batch in batches:
                part = fitted(batch, found, read)
                if bounds:
                    mask = inside(part.column(timestamp), bounds)
                    part = part if mask.true_count == len(mask) else part.filter(mask)
                if part.num_rows:
                    yield part.select(names)


def _parquet_batches(
    source: _Source, name: str, columns: Sequence[str], rows: int, *, text: Sequence[str], groups: Sequence[int] | None
) -> Iterator[pa.RecordBatch]:
    """
    Yield those of *columns* that the file has, in bounded memory however large its row groups are.

    Of a local file no more than a small buffer per column is read ahead, and nothing is decoded ahead: a dataset's
    scanner decodes whole row groups. Over a network one row group at a time is fetched whole.
    """
    from pyarrow import fs, parquet

    local = isinstance(source.filesystem, fs.LocalFileSystem)
    with source.filesystem.open_input_file(name) as opened:
        metadata = parquet.read_metadata(opened)
        types = {field.name: field.type for field in metadata.schema.to_arrow_schema()}
        there = [column for column in columns if column in types]
        groups = range(metadata.num_row_groups) if groups is None else groups
        if not groups:
            return
        rows = _rows_of_a_batch(metadata, groups, there, rows)
        with parquet.ParquetFile(
            opened,
            metadata=metadata,
            read_dictionary=[column for column in there if column in text and types[column] in _text_types()],
            buffer_size=_BUFFER if local else 0,
            pre_buffer=not local,
        ) as file:
            for part in [list(groups)] if local else [[group] for group in groups]:
                yield from file.iter_batches(rows, row_groups=part, columns=there, use_threads=False)


def _rows_of_a_batch(metadata: Any, groups: Sequence[int], columns: Sequence[str], most: int) -> int:
    """Return how many rows of *columns* a batch may hold, at most *most*: fewer where rows are wide."""
    group = metadata.row_group(groups[0])
    size: int = group.total_byte_size
    if size * most > _BATCH * group.num_rows:  # look closer, at the columns that are read
        roots = set(columns)
        chunks = (group.column(number) for number in range(group.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if _roots(chunk.path_in_schema) & roots)
    return most if size == 0 or group.num_rows == 0 else max(1, min(most, _BATCH * int(group.num_rows) // size))


def _roots(path: str) -> set[str]:
    """Return the columns that a path into a schema may lead into; the name of a column may hold dots."""
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def _coded(source: _Source, text: Sequence[str]) -> list[str]:
    """
    Return the columns of *text* that the first file holds as dictionaries, judged by the size of its first row group.

    A writer falls back to spelling values out when a dictionary grows large. Read as a dictionary nevertheless, such a
    column would come with all values so far in every batch.
    """
    from pyarrow import parquet

    with _reading(source.files[0]), source.filesystem.open_input_file(source.files[0]) as opened:
        metadata = parquet.read_metadata(opened)
    if not metadata.num_row_groups:
        return list(text)
    group = metadata.row_group(0)
    chunks = (group.column(number) for number in range(group.num_columns))
    spelled = {
        chunk.path_in_schema for chunk in chunks if chunk.total_uncompressed_size > _DICTIONARY + 4 * chunk.num_values
    }
    return [name for name in text if name not in spelled]


def _text_types() -> tuple[pa.DataType, ...]:
    import pyarrow as pa

    return pa.string(), pa.large_string(), pa.string_view()


def _ipc_batches(source: _Source, name: str, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with source.filesystem.open_input_file(name) as opened, pa.ipc.open_file(opened) as whole:
        positions = [whole.schema.get_field_index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=sorted(place for place in positions if place >= 0))
        with pa.ipc.open_file(opened, options=options) as file:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                batch.validate(full=True)  # has no checksums: offsets that point outside would end the process
                for begin in range(0, batch.num_rows, rows):
                    yield batch.slice(begin, rows)


def fitted(batch: pa.RecordBatch, found: pa.Schema, names: Sequence[str]) -> pa.RecordBatch:
    """Return *batch* with the columns *names* in the types of *found*; what its file lacks is null."""
    import pyarrow as pa

    if not names:
        return batch
    arrays = []
    for name in names:
        position, type_ = batch.schema.get_field_index(name), found.field(name).type
        array = pa.nulls(batch.num_rows, type_) if position < 0 else batch.column(position)
        if pa.types.is_run_end_encoded(array.type):
            import pyarrow.compute as pc

            array = pc.run_end_decode(array)
        arrays.append(array if array.type == type_ else array.cast(type_))
    return pa.RecordBatch.from_arrays(arrays, names=list(names))


def _row_groups(
    source: _Source, found: pa.Schema, timestamp: str | None, bounds: _Bounds, most_rows: int | None
) -> dict[int, list[int]]:
    """Return, by file, the row groups that may hold rows within *bounds*; about *most_rows* of them when given."""
    dataset = _dataset(source, found)
    condition = _condition(timestamp, bounds)
    groups = []
    with _reading(source.path):
        for file, fragment in enumerate(dataset.get_fragments()):
            kept = fragment if condition is None else fragment.subset(filter=condition, schema=found)
            for group in kept.row_groups:
                first = None if most_rows is None else (group.statistics or {}).get(timestamp, {}).get("min")
                groups.append((first is None, _as_number(first), file, group.id, group.num_rows))
    chosen: dict[int, list[int]] = {}
    for _, _, file, number, _ in groups if most_rows is None else _thinned(groups, most_rows):
        chosen.setdefault(file, []).append(number)
    return {file: sorted(numbers) for file, numbers in chosen.items()}


def _thinned(groups: Sequence[tuple[Any, ...]], most_rows: int) -> list[tuple[Any, ...]]:
    """Return so many of *groups* that they hold about *most_rows* rows, spread over time and files."""
    import numpy as np

    wanted = math.ceil(most_rows * len(groups) / max(sum(group[-1] for group in groups), 1))
    if wanted >= len(groups):
        return list(groups)
    ordered = sorted(groups)
    random = np.random.default_rng(0)
    return [ordered[int(random.choice(share))] for share in np.array_split(np.arange(len(groups)), wanted)]


def _as_number(first: Any) -> float:
    """Return a time of a footer as a number that ascends with it."""
    if isinstance(first, datetime):
        return (first if first.tzinfo else first.replace(tzinfo=UTC)).timestamp()
    return float(first.toordinal()) if isinstance(first, date) else 0.0


def _dataset(source: _Source, found: pa.Schema) -> Any:
    """Return the files as a dataset, which knows what a condition says about a row group."""
    import pyarrow.dataset as ds

    format_ = ds.ParquetFileFormat() if source.format == "parquet" else ds.IpcFileFormat()
    return ds.FileSystemDataset.from_paths(
        list(source.files), schema=found, format=format_, filesystem=source.filesystem
    )


def time_bounds(found: pa.Schema, timestamp: str | None, window: Window | None, path: str) -> _Bounds:
    """Return what the times of *window* are compared with, in the type of the column; nothing keeps all rows."""
    if timestamp is None or window is None or (window.start is None and window.end is None):
        return ()
    require_columns([timestamp], found.names, path)
    type_ = found.field(timestamp).type
    return tuple(
        (comparison, _literal(bound, type_, timestamp, path))
        for comparison, bound in ((operator.ge, window.start), (operator.lt, window.end))
        if bound is not None
    )


def _condition(timestamp: str | None, bounds: _Bounds) -> Any:
    """Return *bounds* as a filter of a dataset; ``None`` keeps all."""
    import pyarrow.compute as pc

    parts = [compare(pc.field(timestamp), bound) for compare, bound in bounds]
    return functools.reduce(operator.and_, parts) if parts else None


def inside(times: pa.Array, bounds: _Bounds) -> pa.BooleanArray:
    """Return which of *times* lie within *bounds*; a time that is missing does not."""
    import pyarrow.compute as pc

    compute = {operator.ge: pc.greater_equal, operator.lt: pc.less}
    masks = [compute[compare](times, bound) for compare, bound in bounds]
    return functools.reduce(pc.and_, masks).fill_null(False)


def _literal(bound: datetime, type_: pa.DataType, timestamp: str, path: str) -> pa.Scalar:
    """Return *bound* in the column's own type where that loses nothing, so that row groups can be skipped."""
    import pyarrow as pa

    try:
        bound = bound.replace(tzinfo=UTC) if bound.tzinfo is None else bound.astimezone(UTC)
    except OverflowError as error:
        raise ConfigError(f"The window's end {bound} is outside the years 1 to 9999 of UTC. Take another.") from error
    if pa.types.is_date(type_):
        day = bound.date() if bound.time().isoformat() == "00:00:00" else bound.date() + timedelta(days=1)
        return pa.scalar(min(day, date.max), type_)  # a date is its midnight: the next one decides
    if not pa.types.is_timestamp(type_):
        raise DataError(
            f"The timestamp column {timestamp!r} of {path!r} holds {type_}, which is no time. "
            "Name a column of dates or timestamps, or convert it."
        )
    plain = bound if type_.tz else bound.replace(tzinfo=None)
    try:
        literal = pa.scalar(plain, pa.timestamp("us", tz=type_.tz))
        return literal.cast(type_)
    except pa.ArrowInvalid:
        return literal


# CSV


def _open_csv(source: _Source, name: str, columns: Sequence[str]) -> Any:
    """Return a reader of *columns* as text, empty cells as nulls."""
    import pyarrow as pa
    from pyarrow import csv

    return csv.open_csv(
        source.filesystem.open_input_stream(name, compression="detect"),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=list(columns),
            strings_can_be_null=True,
            include_missing_columns=True,
        ),
    )


def _csv_names(source: _Source, name: str) -> list[str]:
    from pyarrow import csv

    with (
        _reading(name),
        csv.open_csv(source.filesystem.open_input_stream(name, compression="detect")) as reader,
    ):
        names = list(reader.schema.names)
    _refuse_duplicates(names, name)
    other = next((sign for sign in _SEPARATORS if sign in names[0]), None) if len(names) == 1 else None
    if other is not None:
        raise DataError(
            f"{name!r} is separated by {other!r}, and commas are read. Write it anew, with pandas for example: "
            f"pd.read_csv(..., sep={other!r}).to_csv(..., index=False), or to_parquet(...)."
        )
    return names


def _csv_batches(source: _Source, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _reading(name), _open_csv(source, name, columns) as reader:
        yield from reader


def _csv_schema(source: _Source, types: Mapping[str, pa.DataType], columns: Sequence[str] | None = None) -> pa.Schema:
    """Return the narrowest type that fits every value, for the columns that *types* does not name."""
    import pyarrow as pa

    names: dict[str, None] = {}
    for name in source.files:
        names.update(dict.fromkeys(_csv_names(source, name)))
    wanted = list(names) if columns is None else list(columns)
    require_columns(wanted, list(names), source.path)
    untyped = [name for name in wanted if name not in types]
    ladders = {name: _ladder() for name in untyped}
    seen: set[str] = set()
    if untyped:
        for file in source.files:
            for batch in _csv_batches(source, file, untyped):
                for name in untyped:
                    text = batch.column(name)
                    if text.null_count < len(text):
                        seen.add(name)
                        _climb(ladders[name], text)
    inferred = {name: ladders[name][0] if name in seen else pa.null() for name in untyped}
    return pa.schema([(name, types[name] if name in types else inferred[name]) for name in wanted])


def _ladder() -> list[pa.DataType]:
    import pyarrow as pa

    times = [pa.date32(), *(pa.timestamp(unit, tz=zone) for unit in ("us", "ns") for zone in (None, "UTC"))]
    return [pa.int64(), pa.float64(), pa.bool_(), *times, pa.string()]


def _climb(ladder: list[pa.DataType], text: pa.Array) -> None:
    """Drop types from the front of *ladder* until one fits every value of *text*."""
    import pyarrow as pa

    while True:
        try:
            _convert(text, ladder[0])
        except pa.ArrowInvalid:
            del ladder[0]
        else:
            return


def _convert(text: pa.Array, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(type_):
        return pa.nulls(len(text))
    return text if type_ == pa.string() else pc.utf8_trim_whitespace(text).cast(type_)


def _scan_csv(
    source: _Source,
    columns: Sequence[str] | None,
    timestamp: str | None,
    window: Window | None,
    *,
    batch_rows: int,
    types: Mapping[str, pa.DataType],
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    read = columns
    if columns is not None and timestamp is not None and window is not None and timestamp not in columns:
        read = [*columns, timestamp]
    found = _csv_schema(source, types, read)
    bounds = time_bounds(found, timestamp, window, source.path)
    for file in source.files:
        for batch in _csv_batches(source, file, found.names):
            arrays = [_convert_named(batch.column(field.name), field, file) for field in found]
            table = pa.Table.from_arrays(arrays, schema=found)
            table = table.filter(inside(table[timestamp], bounds)) if bounds else table
            for part in table.select(found.names if columns is None else columns).to_batches(max_chunksize=batch_rows):
                if part.num_rows:
                    yield part


def _convert_named(text: pa.Array, field: pa.Field, file: str) -> pa.Array:
    import pyarrow as pa

    try:
        return _convert(text, field.type)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column {field.name!r} of {file!r} cannot be read as {field.type}: {str(error)[:200]}. "
            "Mend the file, or read the column as text."
        ) from error
