"""
How an alias moves: by compare-and-swap through the journal.

1. take the lease (an append with an expected sequence: one winner); 2. end what an earlier holder left half done;
3. the alias must be what the journal says and what the caller expects; 4. append PENDING; 5. set the alias; 6. read it
back; 7. append DONE, which also ends the lease. A process that dies at any line is made good by the next call: a
PENDING whose alias has moved is finished, one whose alias has not is abandoned, and an alias that is neither was moved
from outside. Every append checks the lease's fencing token, so a holder that slept past its lease records nothing.
A registry without compare-and-swap leaves one gap: a holder that stalls between the last check and the alias's own
write, for longer than its lease, still moves the alias; the next call finds that and treats it as a foreign change.

A version's number means something in one registry only. So the journal keeps the run that made it, and nothing moves to
or from a version that is another run in the registry than in the journal: that is another registry, or a rebuilt one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    GateRefused,
    MlopsError,
    NotFoundError,
    PromotionConflictError,
    ServiceError,
)
from airflow_provider_mlops.journal import Record, append_decided, kinds, model_stream, payloads, read_intact
from airflow_provider_mlops.journal.narrative import tell
from airflow_provider_mlops.promotion.state import PromotionState, state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_mlops.journal import Entry, Journal
    from airflow_provider_mlops.promotion.registry import ModelVersion, Registry

    _Choice = tuple[str, list[tuple[str, str]]]  # the version to move to, and what that overrides: what, and why

__all__ = ["ForeignChange", "Promotion", "PromotionRequest", "check_run", "promote", "refusal", "rollback"]

ForeignChange = Literal["fail", "adopt", "restore"]
"""What to do when the alias was moved from outside: refuse; accept it as the champion; or set it back first."""

_LEASE = timedelta(minutes=2)
_SKEW = timedelta(minutes=10)  # a lease that ends later than it could by this much was written by a wrong clock
_OF_A_DECISION = ("verdict", "reason", "sentence", "digest", "champion")


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """
    The wish to point a model's alias at one of its versions.

    :param expected_champion: version that the alias points at now and that the candidate was judged against;
        ``None`` when there is none.
    :param gate: the gate's evidence, ``{"verdict": "passed", "digest": ...}``; where the journal holds a decision on
        the version, that one counts and this must agree with it.
    :param actor: who asks, as the journal shows it.
    :param owner: holder of the lease. The same owner takes its own lease over at once; any other waits for its end.
    :param allow_downgrade: allow a version older than the champion, or one that was rolled back from; journaled.
    :param on_foreign_change: what to do when the alias was moved from outside.
    :param unsafe_override: promote without a gate that passed, for this reason; journaled.
    """

    model: str
    version: str
    expected_champion: str | None
    actor: str
    owner: str
    gate: Mapping[str, Any] = field(default_factory=dict)
    alias: str = "champion"
    allow_downgrade: bool = False
    on_foreign_change: ForeignChange = "fail"
    unsafe_override: str | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """
    How a promotion or a rollback ended.

    :param version: version that the alias points at now.
    :param previous: version that it pointed at before; ``None`` when there was none or it is not known.
    :param token: fencing token of the move; 0 when nothing was moved.
    :param changed: whether this call moved the alias, or finished a move that was half done.
    """

    model: str
    alias: str
    version: str
    previous: str | None
    token: int
    changed: bool
    sentence: str


def promote(
    request: PromotionRequest,
    *,
    journal: Journal,
    registry: Registry,
    clock: Callable[[], datetime],
    lease: timedelta = _LEASE,
) -> Promotion:
    """
    Point the alias at the requested version, or say why not. Asking twice is asking once.

    :param clock: the time now, aware.
    :param lease: how long others wait for a holder that died; longer than the registry ever takes to answer.
    :raises GateRefused: no gate decision that passed, and no override.
    :raises PromotionConflictError: somebody else is promoting; the alias is not at *expected_champion*; it was moved
        from outside; the version is older than the champion; or the registry is not the one of this journal.
    :raises NotFoundError: the version does not exist.
    :raises DataError: the journal was changed from outside, or its gate decision lacks what it must say.
    """
    if request.unsafe_override is not None and not request.unsafe_override.strip():
        raise ConfigError("unsafe_override must say why, in words that a reader of the journal will understand.")
    candidate = registry.version(request.model, request.version)
    entries = read_intact(journal, model_stream(request.model))
    folded = state(entries)
    check_run(folded, candidate)
    now = registry.version_of(request.model, alias=request.alias)
    if folded.pending is None and now == folded.champion(request.alias) == request.version:
        return _unchanged(request.model, request.alias, request.version, folded)
    digest, objection = _judge(request, entries, candidate)
    gate_override = [(f"gate: {objection}", request.unsafe_override)] if objection and request.unsafe_override else []

    def choose(now: PromotionState) -> _Choice:
        return request.version, [*gate_override, *_check_order(request, now)]

    turn = _Turn(
        journal=journal,
        registry=registry,
        clock=clock,
        model=request.model,
        alias=request.alias,
        actor=request.actor,
        owner=request.owner,
        on_foreign_change=request.on_foreign_change,
        entries=entries,
    )
    return turn.run(
        lease,
        wanted=request.version,
        expected=request.expected_champion,
        choose=choose,
        gate_digest=digest,
    )


def rollback(
    model: str,
    *,
    away_from: str | None = None,
    to: str | None = None,
    actor: str,
    owner: str,
    journal: Journal,
    registry: Registry,
    clock: Callable[[], datetime],
    alias: str = "champion",
    on_foreign_change: ForeignChange = "fail",
    why: str | None = None,
    lease: timedelta = _LEASE,
) -> Promotion:
    """
    Point *alias* back at the last healthy version: the newest that it pointed at and was not rolled back from.

    Asking twice is asking once: nothing happens when the alias does not point at *away_from* any more or, without
    *away_from*, when the last move was this same owner's rollback.

    :param away_from: the version that is to leave; ``None`` is the one that the alias points at.
    :param to: another healthy version; ``None`` takes the last.
    :param why: the reason, in words; journalled.
    :raises PromotionConflictError: somebody else is promoting, the alias was moved from outside, no such version, or
        the registry is not the one of this journal.
    :raises DataError: the journal was changed from outside.
    """
    entries = read_intact(journal, model_stream(model))
    folded = state(entries)
    now, last, pending = registry.version_of(model, alias=alias), folded.last_move(alias), folded.pending
    if now is not None:
        check_run(folded, registry.version(model, now))
    if pending is None and last is not None and now is not None and now == last.version:
        was_ours = away_from is None and last.rollback and last.owner == owner
        if was_ours or away_from not in (None, now):
            return _unchanged(model, alias, now, folded)
    if away_from is None:
        was_ours = pending is not None and pending.alias == alias and pending.rollback and pending.owner == owner
        away_from = pending.previous if pending is not None and was_ours else now
    if away_from is None:
        raise PromotionConflictError(f"{model}@{alias} points at no version, so there is nothing to roll back from.")
    leaving = away_from

    def choose(now: PromotionState) -> _Choice:
        healthy = [version for version in now.healthy(alias) if version != leaving]
        if to is not None and to not in healthy:
            raise PromotionConflictError(
                f"{model}@{alias} cannot be rolled back to version {to}: it was never the {alias}, or was itself "
                f"rolled back from. Healthy: {', '.join(healthy) or 'none'}. Promote any other."
            )
        if not healthy:
            raise PromotionConflictError(
                f"{model}@{alias} has no healthy version before {leaving} to roll back to. Promote another version."
            )
        return to or healthy[0], []

    turn = _Turn(
        journal=journal,
        registry=registry,
        clock=clock,
        model=model,
        alias=alias,
        actor=actor,
        owner=owner,
        on_foreign_change=on_foreign_change,
        entries=entries,
    )
    return turn.run(lease, wanted=None, expected=leaving, choose=choose, gate_digest=None, why=why)


def check_run(known: PromotionState, version: ModelVersion) -> None:
    """
    Check that *version* is the run that the journal *known* has for this number, if it has any.

    :raises PromotionConflictError: it is another: the registry is not the one that the journal was written with.
    """
    recorded = known.runs.get(version.version)
    if recorded not in (None, version.run_id):
        raise PromotionConflictError(
            f"{version.model} version {version.version} is run {version.run_id} in this registry, but run {recorded} "
            "in the journal: the journal was written with another MLflow, or with this one before it was rebuilt. "
            "Nothing is moved. Give each MLflow a journal of its own ([mlops] journal_conn_id), or train and register "
            "under another model name."
        )


def refusal(entries: Sequence[Entry], candidate: ModelVersion, alias: str = "champion") -> str | None:
    """
    Return what speaks against letting a version serve that *alias* does not point at, in words.

    That is what the gate, or a person, has said last. ``None``: nobody said anything, or it was behind *alias* before
    and not rolled back from.
    """
    decisions = _decisions(entries, candidate)
    if not decisions or candidate.version in state(entries).healthy(alias):
        return None
    return _said_against(decisions[-1], entries, candidate)


def _unchanged(model: str, alias: str, version: str, folded: PromotionState) -> Promotion:
    last = folded.last_move(alias)
    previous = last.previous if last and last.version == version else None
    return Promotion(model, alias, version, previous, 0, False, f"{model}@{alias} is version {version} already.")


def _judge(
    request: PromotionRequest, entries: Sequence[Entry], candidate: ModelVersion
) -> tuple[str | None, str | None]:
    """Return the digest of the gate decision and what speaks against promoting on it (only when it is overridden)."""
    what = f"{request.model} version {request.version}"
    decisions = _decisions(entries, candidate)
    recorded = decisions[-1].record.payload if decisions else None
    if recorded is not None and (lacks := [key for key in _OF_A_DECISION if key not in recorded]):
        raise DataError(
            f"Entry {decisions[-1].sequence} of {decisions[-1].stream}, the gate's decision on {what}, does not say "
            f"{', '.join(lacks)}: another release or a hand wrote it. Evaluate the version again."
        )
    claimed, digest = request.gate.get("verdict"), request.gate.get("digest")
    objection = None
    if recorded is None:
        if claimed != "passed":
            objection = f"no gate decision that passed was given (verdict: {claimed!r}), and the journal holds none."
    elif said := _said_against(decisions[-1], entries, candidate):
        objection = said
    elif claimed not in (None, "passed") or digest not in (None, recorded["digest"]):
        objection = (
            f"the evidence given (verdict {claimed!r}, digest {digest!r}) is not the journal's last decision on it "
            f"(passed, digest {recorded['digest']!r})."
        )
    elif _is_other_model(recorded.get("model_uri"), candidate.source):
        objection = (
            f"the gate judged another model of its run, {recorded['model_uri']}; this one is {candidate.source}."
        )
    elif recorded["champion"] != request.expected_champion:
        objection = f"it was judged against champion {recorded['champion']}, not {request.expected_champion}."
        if request.unsafe_override is None:
            raise PromotionConflictError(f"{what} is not promoted: {objection} Evaluate it again.")
    if objection is not None and request.unsafe_override is None:
        raise GateRefused(
            f"{what} is not promoted: {objection} Evaluate it again, or say why it shall be promoted all the same with "
            "unsafe_override, which is journaled."
        )
    return (recorded["digest"] if recorded else digest), objection


def _is_other_model(judged: str | None, source: str) -> bool:
    """Return whether both are logged models, and not the same: a path says nothing of which model it is."""
    return judged != source and all((uri or "").startswith("models:/m-") for uri in (judged, source))


def _decisions(entries: Sequence[Entry], candidate: ModelVersion) -> list[Entry]:
    """Return the gate's decisions on a version, or on the run that made it."""
    found = [entry for entry in entries if entry.record.kind == kinds.GATE_DECIDED]
    return [
        entry
        for entry in found
        if entry.record.payload.get("version") == candidate.version
        or (candidate.run_id is not None and entry.record.payload.get("run_id") == candidate.run_id)
    ]


def _said_against(decision: Entry, entries: Sequence[Entry], candidate: ModelVersion) -> str | None:
    """Return what the gate in its last *decision*, or a person since then, has said against a version."""
    told = decision.record.payload
    if told["verdict"] != "passed":
        return f"the gate said {told['verdict']} ({told['reason']}). {told['sentence']}"
    answers = [
        entry.record
        for entry in entries
        if entry.sequence > decision.sequence
        and entry.record.kind == kinds.APPROVAL_ANSWERED
        and entry.record.payload.get("version") == candidate.version
    ]
    if answers and answers[-1].payload.get("approved") is not True:
        return f"a person said no to it: {tell(answers[-1])}"
    return None


def _check_order(request: PromotionRequest, now: PromotionState) -> list[tuple[str, str]]:
    """Refuse a step back; return what *allow_downgrade* allows, for the journal."""
    what = f"{request.model} version {request.version}"
    champion = now.champion(request.alias) or request.expected_champion
    if request.version in now.rolled_back(request.alias):
        objection = "was rolled back from"
        advice = f", so it does not become the {request.alias} again. Train a new one, or pass allow_downgrade=True."
    elif champion is not None and now.is_older(request.version, champion):
        objection = f"is older than the {request.alias}, version {champion}"
        advice = (
            ": this looks like an old run that was cleared. Pass allow_downgrade=True to go back on purpose, or roll "
            "back."
        )
    else:
        return []
    if not request.allow_downgrade:
        raise PromotionConflictError(f"{what} {objection}{advice}")
    return [(f"order: version {request.version} {objection}.", "allow_downgrade=True")]


@dataclass(kw_only=True)
class _Turn:
    """One holder's turn at a model's alias, from the lease to its end."""

    journal: Journal
    registry: Registry
    clock: Callable[[], datetime]
    model: str
    alias: str
    actor: str
    owner: str
    on_foreign_change: ForeignChange
    entries: list[Entry]
    token: int = 0

    def __post_init__(self) -> None:
        if self.on_foreign_change not in get_args(ForeignChange):
            raise ConfigError(f"on_foreign_change must be fail, adopt or restore, got {self.on_foreign_change!r}.")
        self.stream = model_stream(self.model)

    def run(
        self,
        lease: timedelta,
        *,
        wanted: str | None,
        expected: str | None,
        choose: Callable[[PromotionState], _Choice],
        gate_digest: str | None,
        why: str | None = None,
    ) -> Promotion:
        """Move the alias from *expected* to what *choose* says. *wanted* is that version, ``None`` for a rollback."""
        until = self._take(lease)
        try:
            finished = self._settle()
            now = self.registry.version_of(self.model, alias=self.alias)
            if now is not None and (now == wanted if wanted is not None else now != expected):
                return self._nothing_to_do(now, finished=finished)
            if now != expected:
                raise PromotionConflictError(
                    f"{self.model}@{self.alias} is version {now}, not {expected} as this decision expected: somebody "
                    "else was first. Evaluate the candidate against the new champion."
                )
            version, overrides = choose(self._state())
            run_id = self._checked(version)
        except MlopsError as error:
            with suppress(MlopsError):  # what stopped this turn is what the caller is to read
                self._release(wanted, type(error).__name__, str(error))
            raise
        for what, reason in overrides:
            why = why or reason
            self._append(kinds.OVERRIDE_USED, payloads.override_used(what=what, why=reason, version=version))
        move: dict[str, Any] = {
            "alias": self.alias,
            "version": version,
            "previous": now,
            "token": self.token,
            "rollback": wanted is None,
        }
        announced = payloads.promotion_pending(**move, gate_digest=gate_digest, sentence=why, run_id=run_id)
        self._append(kinds.PROMOTION_PENDING, announced)
        self._check_held(until)
        self.registry.set_alias(self.model, alias=self.alias, version=version)
        seen = self.registry.version_of(self.model, alias=self.alias)
        if seen == now:  # the announcement stays, so that the next call can tell whether the alias moved
            raise ServiceError(
                f"{self.model}@{self.alias} was set to {version} but still reads {now or 'no version'}: the registry "
                "answers late, or did nothing. Try again: that finishes the move."
            )
        if seen != version:
            message = f"{self.model}@{self.alias} was set to {version} but reads {seen}: it was moved from outside."
            self._release(version, "moved_from_outside", message)
            raise PromotionConflictError(message)
        self._append(kinds.PROMOTION_DONE, payloads.promotion_done(**move))
        verb = "rolled back" if wanted is None else "promoted"
        sentence = f"{self.model}@{self.alias} was {verb} from {now or 'no version'} to version {version}."
        return Promotion(self.model, self.alias, version, now, self.token, True, sentence)

    def _take(self, lease: timedelta) -> datetime:
        def lease_it(entries: list[Entry]) -> tuple[Record, tuple[int, datetime]]:
            folded, now = state(entries), self.clock()
            held = folded.lease
            # A clock that ran ahead must not keep everybody out for as long as it did. The token keeps its holder from
            # recording anything; it does not stop a write to the registry that is on its way (docs/security.md).
            is_held = held is not None and now < held.until <= now + held.length + _SKEW
            if held is not None and held.owner != self.owner and is_held:
                raise PromotionConflictError(
                    f"{held.owner} is moving the aliases of {self.model}, until {held.until.isoformat()} at the "
                    "latest. Try again after that."
                )
            token, until = folded.token + 1, now + lease
            payload = payloads.promotion_leased(owner=self.owner, token=token, until=until)
            return self._record(kinds.PROMOTION_LEASED, payload), (token, until)

        self.token, until = append_decided(self.journal, self.stream, self.entries, lease_it)
        return until

    def _settle(self) -> bool:
        """End what an earlier holder left, and what came from outside. Return whether a half-done move was finished."""
        pending = self._state().pending
        finished = False
        if pending is not None:
            if self.registry.version_of(self.model, alias=pending.alias) == pending.version:
                self._checked(pending.version)
                move = {name: getattr(pending, name) for name in ("alias", "version", "previous", "token", "rollback")}
                self._append(kinds.PROMOTION_DONE, payloads.promotion_done(**move))
                finished = pending.alias == self.alias
            else:
                self._append(
                    kinds.PROMOTION_ABANDONED,
                    payloads.promotion_abandoned(
                        alias=pending.alias,
                        version=pending.version,
                        token=pending.token,
                        reason="interrupted",
                        sentence="Its writer ended before the alias was moved.",
                    ),
                )
        last = self._state().last_move(self.alias)
        now = self.registry.version_of(self.model, alias=self.alias)
        run_id = None if now is None else self._checked(now)
        if last is not None and now != last.version:
            self._resolve_foreign_change(last.version, now, run_id)
        return finished

    def _resolve_foreign_change(self, recorded: str | None, now: str | None, run_id: str | None) -> None:
        if recorded is not None:
            with suppress(NotFoundError):  # deleted since, which may well be what is to be adopted
                self._checked(recorded)
        if self.on_foreign_change == "adopt":
            adopted = payloads.promotion_done(
                alias=self.alias,
                version=now,
                previous=recorded,
                token=self.token,
                rollback=False,
                adopted=True,
                run_id=run_id,
            )
            self._append(kinds.PROMOTION_DONE, adopted)
        elif self.on_foreign_change == "fail":
            raise PromotionConflictError(
                f"{self.model}@{self.alias} is version {now}, but the journal's last move made it {recorded}: it was "
                "moved from outside. Move it back, or say on_foreign_change adopt to accept that, restore to set it "
                "back first. Pipeline file: promote: {on_foreign_change: adopt}."
            )
        elif recorded is None:
            self.registry.delete_alias(self.model, alias=self.alias)
        else:
            self.registry.set_alias(self.model, alias=self.alias, version=recorded)

    def _checked(self, version: str) -> str | None:
        """Return the run that made *version*, once it is known to be the one that the journal means."""
        found = self.registry.version(self.model, version)
        check_run(self._state(), found)
        return found.run_id

    def _nothing_to_do(self, now: str, *, finished: bool) -> Promotion:
        folded = self._state()
        self._release(now, "nothing_to_do", f"{self.alias} is version {now}.")
        unchanged = _unchanged(self.model, self.alias, now, folded)
        if not finished:
            return unchanged
        sentence = f"{self.model}@{self.alias} is version {now}: a move that was half done was finished."
        return Promotion(self.model, self.alias, now, unchanged.previous, self.token, True, sentence)

    def _release(self, version: str | None, reason: str, sentence: str) -> None:
        payload = payloads.promotion_abandoned(
            alias=self.alias, version=version or "", token=self.token, reason=reason, sentence=sentence
        )
        self._append(kinds.PROMOTION_ABANDONED, payload)

    def _append(self, kind: str, payload: dict[str, Any]) -> None:
        def while_held(entries: list[Entry]) -> tuple[Record, None]:
            self._check_token(state(entries))
            return self._record(kind, payload), None

        append_decided(self.journal, self.stream, self.entries, while_held)

    def _check_held(self, until: datetime) -> None:
        self._check_token(self._state())
        if self.clock() >= until:
            raise PromotionConflictError(
                f"{self.owner} took longer than its lease on {self.model} ({until.isoformat()}) and stops before the "
                "alias is moved. Try again; give a longer lease when the registry is slow."
            )

    def _check_token(self, folded: PromotionState) -> None:
        if folded.lease is None or folded.lease.token != self.token:
            holder = folded.lease.owner if folded.lease else "nobody"
            raise PromotionConflictError(
                f"{self.owner} lost its lease on {self.model} (token {self.token}); {holder} holds it now. Try again."
            )

    def _state(self) -> PromotionState:
        self.entries += self.journal.read(self.stream, after=len(self.entries))
        return state(self.entries)

    def _record(self, kind: str, payload: dict[str, Any]) -> Record:
        return Record(kind, self.clock(), self.actor, payload)
