"""The loop around `advance`: read, look, decide, write, act. The only part that touches a target."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConflictError, RolloutFailedError, ServiceError
from airflow_provider_mlops.rollout.advance import advance, join
from airflow_provider_mlops.rollout.target import Observation

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_provider_mlops.rollout.plan import RolloutPlan
    from airflow_provider_mlops.rollout.state import RolloutState
    from airflow_provider_mlops.rollout.target import Action, Target

__all__ = ["drive"]

_SHORTLY = 0.2  # seconds between two looks at traffic that is about to be dealt otherwise
_DEALT = timedelta(minutes=1)  # a target may take to deal it so, however short the steps of the plan are


def drive(
    target: Target,
    name: str,
    plan: RolloutPlan,
    *,
    version: str,
    model: str,
    request: str,
    clock: Callable[[], datetime],
    sleep: Callable[[float], object],
    poll: timedelta = timedelta(seconds=5),
    on_step: Callable[[RolloutState], object] = lambda _state: None,
) -> RolloutState:
    """
    Bring *version* of *name* to the end of its rollout, whatever that is, and return the final state once traffic is
    dealt like that.

    It may be killed anywhere and called again with the same *request*: it goes on where the target says the rollout
    stands. The state is written before it is acted upon, so of two drivers only the one that wrote acts, and a crash
    in between is mended at the next look, since every look says in full what is wanted.

    :param model: where the version's files are, as the target understands it.
    :param request: who asks, for example the identity of a task and its run. Another request replaces the rollout that
        is under way; the one replaced ends with an error.
    :param clock: returns the time, aware.
    :param sleep: waits so many seconds.
    :param poll: time between two looks.
    :param on_step: called after each change of phase or step that this call has written, with the new state. A crash
        may swallow the last call.
    :raises RolloutFailedError: a later request has replaced this one.
    :raises ServiceError: the target could not be asked for what the final state wants, or did not do it within the
        plan's *step_timeout*, a minute at least; call again.
    """
    trouble: str | None = None
    joined: RolloutState | None = None
    while True:
        stored, token = target.read_state(name)
        if joined is not None and (stored is None or stored.request != request):
            whom = "nothing" if stored is None else f"version {stored.version!r}"
            raise RolloutFailedError(
                f"The rollout of {name!r} to version {version!r} was replaced while it was {joined.phase.value}: "
                f"the target is now about {whom}."
            )
        before = join(stored, name=name, version=version, model=model, request=request, now=clock())
        after, actions = advance(plan, before, _look(target, name, trouble), clock())
        trouble = None
        if after != stored:
            try:
                target.write_state(name, after, token)
            except ConflictError:
                sleep(poll.total_seconds())
                continue
        joined = after
        try:
            target.act(name, actions)
        except ServiceError as error:
            if after.phase.is_final:
                raise
            trouble = str(error)
        if stored is None or (after.request, after.phase, after.step) != (stored.request, stored.phase, stored.step):
            on_step(after)
        if after.phase.is_final:
            until = clock() + max(plan.step_timeout, _DEALT)
            _await_shares(target, after, actions, until=until, clock=clock, sleep=sleep, poll=poll)
            return after
        sleep(poll.total_seconds())


def _await_shares(
    target: Target,
    final: RolloutState,
    actions: tuple[Action, ...],
    *,
    until: datetime,
    clock: Callable[[], datetime],
    sleep: Callable[[float], object],
    poll: timedelta,
) -> None:
    """Return when traffic is dealt as *actions* want, so that who reads the final state finds it true."""
    shares = {action.version: action.percent for action in actions}
    while True:
        seen = _look(target, final.name, None)
        if seen.error is None and {version: arm.percent for version, arm in seen.arms.items()} == shares:
            return
        if target.read_state(final.name)[0] != final:
            return  # a later request has taken over
        if clock() >= until:
            raise ServiceError(
                f"The rollout of {final.name!r} to version {final.version!r} is {final.phase.value}, but the target "
                f"does not deal traffic like that: {seen.error or 'it still gives other shares'}. Call again."
            )
        sleep(min(poll.total_seconds(), _SHORTLY))


def _look(target: Target, name: str, trouble: str | None) -> Observation:
    if trouble is not None:
        return Observation(arms={}, error=trouble)
    try:
        return target.observe(name)
    except ServiceError as error:
        return Observation(arms={}, error=str(error))
