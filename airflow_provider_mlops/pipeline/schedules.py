"""Cron lines, looked at before Airflow does. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from airflow_provider_mlops.errors import ConfigError, did_you_mean

__all__ = ["check_schedule", "times_per_30_days"]

_PRESETS = ("@once", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_ITEM = re.compile(r"(\*|[0-9]{1,3}|[A-Za-z]{3})(?:-([0-9]{1,3}|[A-Za-z]{3}))?(?:/([0-9]{1,3}))?")
_DAY_FIELDS = (31, 7)
_SPECIAL = re.compile(r"[#?lL]")


def check_schedule(text: str) -> str:
    """
    Return *text* when it is a preset or a cron line of five fields.

    :raises ConfigError: it is not; the message names the field.
    """
    if text.startswith("@"):
        if text not in _PRESETS:
            raise ConfigError(f"{text!r} is no preset.{did_you_mean(text, _PRESETS)} Presets: {', '.join(_PRESETS)}.")
        return text
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(
            f"{text!r} is no cron line: it has {len(fields)} fields, not 5 (minute, hour, day of month, month, day of "
            'week). Write for example "0 6 * * MON" or "@daily".'
        )
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_item(item, low, high, names) for item in field.split(",")):
            raise ConfigError(f"{text!r} is no cron line: {field!r} is no {name} ({low}..{high}).")
    return text


def times_per_30_days(schedule: str) -> float:
    """Return how often *schedule*, a valid one, comes round in 30 days on average; 0: never (February 30)."""
    # It comes with Airflow, without which the core can be imported.
    from croniter import CroniterBadDateError, croniter  # noqa: PLC0415

    begin, ticks = datetime(2024, 1, 1, tzinfo=UTC), 40
    line = {"@once": "@yearly", "@quarterly": "0 0 1 */3 *"}.get(schedule, schedule)
    times = croniter(line, begin)
    try:
        for _ in range(ticks):
            last: datetime = times.get_next(datetime)
    except CroniterBadDateError:
        return 0.0
    return ticks * (timedelta(days=30) / (last - begin))


def _is_item(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    if high in _DAY_FIELDS and _SPECIAL.search(item):
        return True  # "last Friday" and its kin have many spellings; Airflow judges them
    match = _ITEM.fullmatch(item)
    if match is None or (match[1] == "*" and match[2]) or match[3] == "0":
        return False
    return all(part in (None, "*") or _is_value(part, low, high, names) for part in (match[1], match[2]))


def _is_value(text: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    return low <= int(text) <= high if text.isdigit() else text.lower() in names
