"""What a model's journal says about its aliases: who holds the lease, what is half done, what was champion. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.journal import kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_mlops.journal import Entry

__all__ = ["Lease", "Move", "Pending", "PromotionState", "state"]


@dataclass(frozen=True, slots=True)
class Lease:
    """
    The right to move the model's aliases. It ends at *until*, by a record, or by a lease with a higher *token*.

    :param length: how long it was when it was taken, by its holder's clock.
    """

    owner: str
    token: int
    until: datetime
    length: timedelta


@dataclass(frozen=True, slots=True)
class Pending:
    """A move that was announced and neither done nor abandoned: its writer is at work, or died."""

    alias: str
    version: str
    previous: str | None
    token: int
    rollback: bool
    owner: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """A move that was done. *adopted*: done from outside, and accepted. *owner*: who announced it."""

    alias: str
    version: str | None
    previous: str | None
    rollback: bool
    adopted: bool
    owner: str | None


@dataclass(frozen=True, slots=True)
class PromotionState:
    """
    The fold of a model's journal.

    :param sequence: the last entry that was folded.
    :param token: the highest fencing token so far; 0 before the first lease.
    :param moves: oldest first.
    :param registered: by version, the sequence of its first ``model.registered``.
    :param runs: by version, the run that made it, from the first record that says so.
    """

    sequence: int = 0
    token: int = 0
    lease: Lease | None = None
    pending: Pending | None = None
    moves: tuple[Move, ...] = ()
    registered: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)

    def last_move(self, alias: str) -> Move | None:
        """Return the newest move of *alias*; ``None`` when the journal does not know the alias."""
        return next((move for move in reversed(self.moves) if move.alias == alias), None)

    def champion(self, alias: str) -> str | None:
        """Return the version that *alias* points at according to the journal."""
        last = self.last_move(alias)
        return last.version if last else None

    def rolled_back(self, alias: str) -> frozenset[str]:
        """Return the versions that *alias* was rolled back from and that were not promoted again since."""
        versions: set[str] = set()
        for move in self.moves:
            if move.alias != alias:
                continue
            if move.rollback and move.previous is not None:
                versions.add(move.previous)
            elif move.version is not None:
                versions.discard(move.version)
        return frozenset(versions)

    def healthy(self, alias: str) -> list[str]:
        """Return the versions that *alias* pointed at and was not rolled back from, the newest move first."""
        visited = [v for move in self.moves if move.alias == alias for v in (move.previous, move.version)]
        bad = self.rolled_back(alias)
        return list(
            dict.fromkeys(version for version in reversed(visited) if version is not None and version not in bad)
        )

    def is_older(self, version: str, than: str) -> bool:
        """
        Return whether *version* was made before the version *than*.

        The order of registration in the journal decides; where one of the two is not there, the registry's own numbers.
        Where neither helps, the answer is no.
        """
        if version in self.registered and than in self.registered:
            return self.registered[version] < self.registered[than]
        if version.isdecimal() and than.isdecimal():
            return int(version) < int(than)
        return False


def state(entries: Iterable[Entry]) -> PromotionState:
    """
    Fold a model's *entries*, oldest first.

    :raises DataError: an entry lacks what its kind must carry.
    """
    folded, sequence = PromotionState(), 0
    for entry in entries:
        sequence = entry.sequence
        try:
            folded = _fold(folded, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Entry {entry.sequence} of {entry.stream} cannot be read as {entry.record.kind!r}: {error!r}."
            ) from error
    return replace(folded, sequence=sequence)


def _fold(old: PromotionState, entry: Entry) -> PromotionState:
    payload = entry.record.payload
    match entry.record.kind:
        case kinds.MODEL_REGISTERED:
            order = {payload["version"]: entry.sequence, **old.registered}
            return replace(old, registered=order, runs=_runs(old, payload))
        case kinds.PROMOTION_LEASED:
            until = datetime.fromisoformat(payload["until"])
            lease = Lease(payload["owner"], payload["token"], until, until - entry.record.at)
            return replace(old, lease=lease, token=max(old.token, lease.token))
        case kinds.PROMOTION_PENDING:
            names = ("alias", "version", "previous", "token", "rollback")
            owner = old.lease.owner if old.lease else None
            pending = Pending(**{name: payload[name] for name in names}, owner=owner)
            return replace(old, pending=pending, runs=_runs(old, payload))
        case kinds.PROMOTION_DONE:
            announced = old.pending if old.pending and old.pending.token == payload["token"] else None
            names = ("alias", "version", "previous", "rollback", "adopted")
            owner = announced.owner if announced else None
            move = Move(**{name: payload[name] for name in names}, owner=owner)
            moved = replace(old, moves=(*old.moves, move), runs=_runs(old, payload))
            return moved if move.adopted else _ended(moved, payload)
        case kinds.PROMOTION_ABANDONED:
            return _ended(old, payload)
        case _:
            return old


def _runs(old: PromotionState, payload: Mapping[str, Any]) -> Mapping[str, str]:
    version, run_id = payload["version"], payload.get("run_id")
    return old.runs if run_id is None else {version: run_id, **old.runs}


def _ended(old: PromotionState, payload: Mapping[str, Any]) -> PromotionState:
    # A lease of another token goes on: its holder ended what an earlier one had left half done.
    token = payload["token"]
    return replace(
        old,
        lease=None if old.lease and old.lease.token == token else old.lease,
        pending=None if old.pending and old.pending.token == token else old.pending,
    )
