"""``mlops clean``: what in the storage folder is old and needed by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

__all__ = ["run"]


def run(arguments: Namespace) -> int:
    """Say what could be removed and what is kept for whom; remove it when told so. Returns 0."""
    from airflow_provider_mlops.hooks.cleaning import clean
    from airflow_provider_mlops.hooks.settings import storage

    items = clean(arguments.older_than, delete=arguments.yes, mlflow_conn_id=arguments.mlflow_conn_id)
    removed = [item for item in items if not item.needed_by]
    kept = [item for item in items if item.needed_by]
    for item in kept:
        print(f"kept     {_size([item.size]):>10}  {item.path.relative_to(storage())}: {item.needed_by}")
    verb = "removed" if arguments.yes else "old"
    for kind in dict.fromkeys(item.kind for item in removed):
        of_kind = [item.size for item in removed if item.kind == kind]
        print(f"{verb:8} {_size(of_kind):>10}  {len(of_kind)} in {kind}")
    total = _size(item.size for item in removed)
    if not removed:
        print(f"Nothing in {storage()} is older than {arguments.older_than} and needed by nobody.")
    elif arguments.yes:
        print(f"{total} were freed in {storage()}.")
    else:
        print(f"{total} in {storage()} can be freed. Nothing was removed: add --yes.")
    return 0


def _size(sizes: Iterable[int]) -> str:
    size = float(sum(sizes))
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
