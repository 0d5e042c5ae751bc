"""What the hooks need of a log."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Log"]


class Log(Protocol):
    """Airflow's task logger and Python's own both have this."""

    def info(self, event: str, /, *args: Any) -> Any:
        """Write a line."""

    def warning(self, event: str, /, *args: Any) -> Any:
        """Write a line that wants to be noticed."""
