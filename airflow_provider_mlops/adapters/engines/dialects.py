"""How the SQL of one database differs from another's, as far as counting needs it. Text in, text out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from airflow_provider_mlops.drift.counts import Family
from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DIALECTS", "Dialect", "TimeKind", "dialect_of", "family_of_name", "time_kind"]

TimeKind = Literal["instant", "naive", "date"]
"""A time with a zone, a time without one (then UTC), or a day."""

_ODD_CHARACTER = re.compile(r"['\\\x00-\x1f\x7f]")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_NAME_PART = re.compile(r'"(?:[^"]|"")+"|`[^`]+`|[^."`]+')
_SURE_DIGITS = 15  # decimals of so many digits, and powers of ten up to 22, every database reads exactly
_SURE_POWER = 22


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    One database's words.

    :param name: as SQLAlchemy calls the dialect.
    :param quote: the character around identifiers, doubled inside.
    :param double: type of a 64-bit floating-point number.
    :param integer: type of a 64-bit integer.
    :param text: type of text.
    :param exact_text: text of the column ``{0}``, compared code point by code point.
    :param character: function from a code point to a character.
    :param is_nan: whether the number ``{0}`` is NaN; ``None`` where NaN does not exist.
    :param infinity: positive infinity.
    :param random: a random number, 0 to 1, new in every row.
    :param microseconds: microseconds since 1970 of the column ``{0}``, by kind of time.
    :param instants: literal of the instant ``{0}`` (ISO 8601 with a blank), by kind; none: times are compared as
        microseconds.
    :param begin: what opens a transaction that cannot write, or the nearest to it that there is; ``{0}`` is the time
        limit in milliseconds, ``{1}`` in seconds.
    :param end: what closes it again; nothing where the connection's own rollback does.
    :param bucket: number of edges below the number ``{0}``, where there is a function for it: ``{1}`` is the count of
        edges, ``{2}`` the negated edges, ascending, with commas.
    :param removes: whether ``TRANSLATE(text, characters, '')`` removes characters; where not, each is replaced by
        nothing.
    :param modulo: remainder of the whole numbers ``{0}`` and ``{1}``.
    :param files: the files at the quoted path ``{0}`` as a table; ``None`` where only tables can be read.
    :param exact_decimals: whether every decimal literal becomes the nearest double.
    :param folds_up: whether names without quotes are upper case.
    :param plain_timestamps_have_zones: whether the type ``TIMESTAMP`` is an instant.
    """

    name: str
    microseconds: Mapping[TimeKind, str]
    random: str
    infinity: str
    is_nan: str | None
    quote: str = '"'
    double: str = "DOUBLE PRECISION"
    integer: str = "BIGINT"
    text: str = "VARCHAR"
    exact_text: str = "CAST({0} AS VARCHAR)"
    character: str = "CHR"
    instants: Mapping[TimeKind, str] | None = None
    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    bucket: str | None = None
    removes: bool = True
    modulo: str = "MOD({0}, {1})"
    files: str | None = None
    exact_decimals: bool = True
    folds_up: bool = False
    plain_timestamps_have_zones: bool = False

    def identifier(self, name: str) -> str:
        """Return *name* quoted. :raises DataError: a name that this database could not hold."""
        if "\x00" in name or (self.quote == "`" and "\\" in name):
            raise DataError(f"{name!r} cannot be the name of a column or table in {self.name}. Rename it.")
        return f"{self.quote}{name.replace(self.quote, self.quote * 2)}{self.quote}"

    def table(self, name: str) -> str:
        """Return ``schema.name`` with each part quoted. :raises ConfigError: no such name can be."""
        return ".".join(map(self.identifier, self.parts(name)))

    def parts(self, name: str) -> list[str]:
        """Return the parts of ``schema.name`` as the database stores them. :raises ConfigError: no such name can be."""
        parts = _NAME_PART.findall(name)
        if not parts or ".".join(parts) != name:
            raise ConfigError(
                f"data: {name!r} is no name of a table. Write name or schema.name; a part with a dot in double quotes."
            )
        bare = [part[1:-1].replace('""', '"') if part[0] in '"`' else part for part in parts]
        if not self.folds_up:
            return bare
        return [inner.upper() if self._is_folded(part) else inner for part, inner in zip(parts, bare, strict=True)]

    @staticmethod
    def _is_folded(part: str) -> bool:
        return _PLAIN_NAME.fullmatch(part) is not None and part == part.lower()

    def number(self, value: float) -> str:
        """Return the literal of a finite double, read back exactly."""
        text = repr(float(value))
        mantissa, _, exponent = text.partition("e")
        digits = mantissa.replace("-", "").replace(".", "").lstrip("0")
        if not self.exact_decimals and (len(digits) > _SURE_DIGITS or abs(int(exponent or 0)) > _SURE_POWER):
            return _binary(value)
        return text if exponent else f"{text}E0"

    def string(self, value: str) -> str:
        """Return the literal of *value*. Characters that databases read in several ways are given by their number."""
        parts: list[str] = []
        start = 0
        for match in _ODD_CHARACTER.finditer(value):
            if match.start() > start:
                parts.append(f"'{value[start : match.start()]}'")
            parts.append(f"{self.character}({ord(match[0])})")
            start = match.end()
        if start < len(value) or not parts:
            parts.append(f"'{value[start:]}'")
        return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"

    def holds(self, text: str, characters: str) -> str:
        """Return how many of *characters* the expression *text* holds, each as often as it occurs."""
        if self.removes:
            return f"(LENGTH({text}) - LENGTH(TRANSLATE({text}, {self.string(characters)}, '')))"
        each = " - ".join(f"LENGTH(REPLACE({text}, {self.string(character)}, ''))" for character in characters)
        return f"({len(characters)} * LENGTH({text}) - {each})"

    def instant(self, value: datetime, kind: TimeKind, column: str) -> tuple[str, str]:
        """Return the two sides of a comparison of the quoted *column* with the aware instant *value*."""
        if self.instants is None:
            micros = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            return self.microseconds[kind].format(column), str(micros)
        value = value.astimezone(UTC)
        if kind == "date":  # a day is its midnight: the next one decides
            midnight = value.replace(hour=0, minute=0, second=0, microsecond=0)
            last = datetime.max.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
            day = midnight if midnight == value else min(midnight, last - timedelta(days=1)) + timedelta(days=1)
            return column, self.instants["date"].format(day.date().isoformat())
        return column, self.instants[kind].format(value.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0"))


def _binary(value: float) -> str:
    """Return a double as a whole number times powers of two: products that no reader of decimals can spoil."""
    mantissa, exponent = math.frexp(value)
    whole, exponent = int(mantissa * 2**53), exponent - 53
    text = f"CAST({whole} AS REAL)"
    while exponent:
        step = max(-60, min(60, exponent))
        text += f" * {2**step}.0" if step > 0 else f" / {2**-step}.0"
        exponent -= step
    return f"({text})"


_ZONED: Mapping[TimeKind, str] = {
    "instant": "TIMESTAMPTZ '{0}+00:00'",
    "naive": "TIMESTAMP '{0}'",
    "date": "DATE '{0}'",
}


def _alike(template: str) -> dict[TimeKind, str]:
    return {"instant": template, "naive": template, "date": template}


_SQLITE_MICROSECONDS = (
    "CASE WHEN TYPEOF({0}) IN ('integer', 'real') THEN CAST(ROUND({0} * 1000000.0) AS INTEGER) ELSE "
    "CAST(STRFTIME('%s', SUBSTR({0}, 1, 19) || CASE WHEN LENGTH({0}) > 19 AND SUBSTR({0}, -6, 1) IN ('+', '-') "
    "THEN SUBSTR({0}, -6) ELSE '' END) AS INTEGER) * 1000000 + CASE WHEN SUBSTR({0}, 20, 1) = '.' "
    "THEN CAST(ROUND(CAST('0' || SUBSTR({0}, 20) AS REAL) * 1000000.0) AS INTEGER) ELSE 0 END END"
)

_SPARK = Dialect(
    name="spark",
    microseconds=_alike("UNIX_MICROS(CAST({0} AS TIMESTAMP))"),
    random="RAND(0)",
    infinity="CAST('Infinity' AS DOUBLE)",
    is_nan="ISNAN({0})",
    quote="`",
    double="DOUBLE",
    text="STRING",
    exact_text="CAST({0} AS STRING)",
    character="CHAR",
    instants={"instant": "TIMESTAMP '{0}+00:00'", "naive": "TIMESTAMP_NTZ '{0}'", "date": "DATE '{0}'"},
    files="parquet.{0}",
    plain_timestamps_have_zones=True,
)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="postgresql",
            microseconds=_alike("CAST(EXTRACT(EPOCH FROM {0}) * 1000000 AS BIGINT)"),
            random="RANDOM()",
            infinity="CAST('Infinity' AS DOUBLE PRECISION)",
            is_nan="{0} = CAST('NaN' AS DOUBLE PRECISION)",
            text="TEXT",
            exact_text='CAST({0} AS TEXT) COLLATE "C"',
            instants=_ZONED,
            begin=(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                "SET LOCAL statement_timeout = {0}",
                "SET LOCAL TIME ZONE 'UTC'",
                "SET LOCAL jit = off",  # compiling a statement of thousands of branches takes longer than running it
                "SELECT SETSEED(0)",
            ),
            bucket="{1} - WIDTH_BUCKET(-({0}), CAST('{{{2}}}' AS DOUBLE PRECISION[]))",
        ),
        Dialect(
            name="duckdb",
            microseconds={
                "instant": "EPOCH_US({0})",
                "naive": "EPOCH_US({0})",
                "date": "EPOCH_US(CAST({0} AS TIMESTAMP))",
            },
            random="RANDOM()",
            infinity="CAST('Infinity' AS DOUBLE)",
            is_nan="ISNAN({0})",
            double="DOUBLE",
            instants=_ZONED,
            begin=("BEGIN TRANSACTION READ ONLY", "SELECT SETSEED(0)"),
            end=("ROLLBACK",),
        ),
        Dialect(
            name="sqlite",
            microseconds=_alike(_SQLITE_MICROSECONDS),
            random="(RANDOM() / 18446744073709551616.0 + 0.5)",
            infinity="9E999",
            is_nan=None,
            double="REAL",
            integer="INTEGER",
            text="TEXT",
            exact_text="CAST({0} AS TEXT) COLLATE BINARY",
            character="CHAR",
            begin=("PRAGMA query_only = 1", "BEGIN"),
            end=("ROLLBACK", "PRAGMA query_only = 0"),
            removes=False,
            modulo="({0} % {1})",
            exact_decimals=False,
        ),
        Dialect(
            name="bigquery",
            microseconds=_alike("UNIX_MICROS(CAST({0} AS TIMESTAMP))"),
            random="RAND()",
            infinity="CAST('inf' AS FLOAT64)",
            is_nan="IS_NAN({0})",
            quote="`",
            double="FLOAT64",
            integer="INT64",
            text="STRING",
            exact_text="CAST({0} AS STRING)",
            instants={"instant": "TIMESTAMP '{0}+00:00'", "naive": "DATETIME '{0}'", "date": "DATE '{0}'"},
            plain_timestamps_have_zones=True,
        ),
        Dialect(
            name="snowflake",
            microseconds=_alike("DATE_PART(EPOCH_MICROSECOND, {0})"),
            random="UNIFORM(0E0, 1E0, RANDOM(0))",
            infinity="CAST('inf' AS FLOAT)",
            is_nan="{0} = CAST('NaN' AS FLOAT)",
            double="FLOAT",
            instants={
                "instant": "CAST('{0}+00:00' AS TIMESTAMP_TZ)",
                "naive": "CAST('{0}' AS TIMESTAMP_NTZ)",
                "date": "CAST('{0}' AS DATE)",
            },
            begin=("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = {1}, TIMEZONE = 'UTC'",),
            folds_up=True,
        ),
        _SPARK,
        replace(
            _SPARK,
            name="databricks",
            files=None,
            begin=("SET TIME ZONE 'UTC'", "SET STATEMENT_TIMEOUT = {1}"),
        ),
        Dialect(
            name="trino",
            microseconds={
                "instant": "CAST(ROUND(TO_UNIXTIME({0}) * 1E6) AS BIGINT)",
                "naive": "CAST(ROUND(TO_UNIXTIME(WITH_TIMEZONE({0}, 'UTC')) * 1E6) AS BIGINT)",
                "date": "CAST(ROUND(TO_UNIXTIME(WITH_TIMEZONE(CAST({0} AS TIMESTAMP), 'UTC')) * 1E6) AS BIGINT)",
            },
            random="RANDOM()",
            infinity="INFINITY()",
            is_nan="IS_NAN({0})",
            double="DOUBLE",
            instants={"instant": "TIMESTAMP '{0} UTC'", "naive": "TIMESTAMP '{0}'", "date": "DATE '{0}'"},
            begin=("SET SESSION query_max_run_time = '{1}s'",),
        ),
        Dialect(
            name="redshift",
            microseconds=_alike("DATEDIFF(microsecond, TIMESTAMP '1970-01-01 00:00:00', {0})"),
            random="RANDOM()",
            infinity="CAST('Infinity' AS DOUBLE PRECISION)",
            is_nan="{0} = CAST('NaN' AS DOUBLE PRECISION)",
            instants=_ZONED,
            begin=("SET statement_timeout TO {0}", "SET timezone TO 'UTC'", "SET TRANSACTION READ ONLY"),
        ),
    )
}


def dialect_of(name: str) -> Dialect:
    """Return the dialect of that name, as SQLAlchemy writes it. :raises ConfigError: one that is not spoken here."""
    key = {"postgres": "postgresql"}.get(name, name)
    if key not in DIALECTS:
        raise ConfigError(
            f"Data in {name!r} cannot be counted where it lies.{did_you_mean(name, DIALECTS)} "
            f"Known: {', '.join(DIALECTS)}. Export the data to Parquet, and name its path."
        )
    return DIALECTS[key]


_WORD = re.compile(r"[A-Z_]+")
_NUMBERS = {"FLOAT", "DOUBLE", "REAL", "NUMERIC", "DECIMAL", "DEC", "FIXED", "NUMBER", "BIGNUMERIC", "BIGDECIMAL"}
_NUMBERS |= {
    "INT",
    "TINYINT",
    "SMALLINT",
    "MEDIUMINT",
    "BIGINT",
    "HUGEINT",
    "INTEGER",
    "BYTEINT",
    "LONG",
    "SHORT",
    "BYTE",
    "UINTEGER",
    "UTINYINT",
    "USMALLINT",
    "UBIGINT",
    "UHUGEINT",
}
_TEXTS = {"STRING", "TEXT", "CLOB", "ENUM", "UUID", "NAME", "CITEXT"}


def family_of_name(type_name: str) -> Family:
    """Return the family of a type by its name, as drivers and catalogs write it: ``varchar(20)``, ``TIMESTAMP``."""
    name = type_name.upper()
    match = _WORD.match(name)
    word = match[0] if match else ""
    if name.endswith("[]") or word.startswith("_") or word == "INTERVAL":
        return Family.OTHER
    if word.startswith("BOOL"):
        return Family.BOOLEAN
    if word.startswith(("DATE", "TIME")):
        return Family.TIME
    if word in _TEXTS or "CHAR" in word:
        return Family.TEXT
    return Family.NUMBER if word in _NUMBERS else Family.OTHER


def time_kind(type_name: str, dialect: Dialect) -> TimeKind | None:
    """Return which kind of time a type holds; ``None`` for a time of day and for no time at all."""
    name = type_name.upper()
    if name.startswith("DATETIME") or "NTZ" in name:
        return "naive"
    if name.startswith("TIMESTAMP"):
        zoned = dialect.plain_timestamps_have_zones or "TZ" in name or ("ZONE" in name and "WITHOUT" not in name)
        return "instant" if zoned else "naive"
    return "date" if name.startswith("DATE") else None
