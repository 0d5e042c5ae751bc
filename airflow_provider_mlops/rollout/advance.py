"""
One look at a rollout: where it stands, what is seen, what time it is; where it stands then, and what is wanted.

Pure, one function per phase. What is wanted follows from the new state alone (`wanted`) and is said in full at every
look, so a crash between writing the state and acting on it is mended by the next look. ::

    starting --ready--> progressing 10 % --passed--> progressing 30 % ... --passed--> baking --> settling --> promoted
       |                     |                                            |              |
       v                     v                                            v              v
     failed              rolled_back                                 rolled_back    rolled_back (failed without stable)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import RolloutFailedError
from airflow_provider_mlops.rollout.analysis import FindingVerdict, ceiling, judge
from airflow_provider_mlops.rollout.plan import IfInconclusive, Strategy
from airflow_provider_mlops.rollout.state import RolloutPhase, RolloutState
from airflow_provider_mlops.rollout.target import Action, Role

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_mlops.rollout.plan import RolloutPlan
    from airflow_provider_mlops.rollout.target import Arm, Observation

__all__ = ["advance", "join", "wanted"]

_CRASHES = 3  # this many ends by itself are a crash loop
_BLIND_LOOKS = 4  # a metric that cannot be read is not a bad metric, for so many looks


def join(
    state: RolloutState | None, *, name: str, version: str, model: str, request: str, now: datetime
) -> RolloutState:
    """
    Return the rollout that *request* is about: the one it began earlier, or a new one that replaces what is there.

    :param state: what the target holds, or ``None``.
    :raises RolloutFailedError: a later request has replaced this one.
    """
    if state is not None and state.request == request:
        return state
    if state is not None and request in state.superseded:
        raise RolloutFailedError(
            f"The rollout of {name!r} to version {version!r} was replaced by a later one, to version "
            f"{state.version!r} ({state.phase.value}). Start a new rollout if version {version!r} is wanted after all."
        )
    serving = None if state is None else state.serving
    begun = RolloutState(
        name=name,
        request=request,
        version=version,
        model=model,
        stable_version=None if serving is None else serving[0],
        stable_model=None if serving is None else serving[1],
        phase=RolloutPhase.STARTING,
        started_at=now,
        step_started_at=now,
        reason="started",
        sentence=f"Version {version} starts.",
        superseded=() if state is None else state.supersede(),
    )
    if serving is not None and serving[0] == version:
        return begun.moved(
            RolloutPhase.PROMOTED,
            now,
            reason="already_serving",
            sentence=f"Version {version} serves already.",
            weight=100,
            stable_version=None,
            stable_model=None,
        )
    return begun


def advance(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime
) -> tuple[RolloutState, tuple[Action, ...]]:
    """
    Return the state after one look, and everything that is to serve then.

    :param now: wall clock, aware. A clock that goes backwards only makes the rollout wait longer.
    """
    if not state.phase.is_final:
        state = _step(plan, replace(state, looks=state.looks + 1), observation, now)
    return state, wanted(plan, state)


def wanted(plan: RolloutPlan, state: RolloutState) -> tuple[Action, ...]:
    """Return everything that is to serve in *state*: a pure consequence, the same however often it is asked."""
    new = (state.version, state.model)
    old = None if state.stable_version is None or state.stable_model is None else state.serving
    if state.phase is RolloutPhase.IDLE:
        return ()
    if state.phase is RolloutPhase.PROMOTED:
        return (Action(*new, 100, Role.STABLE),)
    if state.phase in {RolloutPhase.ROLLED_BACK, RolloutPhase.FAILED}:
        return () if old is None else (Action(*old, 100, Role.STABLE),)
    if state.phase is RolloutPhase.SETTLING:
        kept = old is not None and plan.strategy is not Strategy.ROLLING
        return (
            Action(*new, 100, Role.STABLE),
            *([Action(*old, 0, Role.PREVIOUS)] if kept and old is not None else []),
        )
    stable = () if old is None else (Action(*old, 100 - state.weight, Role.STABLE),)
    return (*stable, Action(*new, state.weight, Role.CANDIDATE))


def _step(plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime) -> RolloutState:
    if now - state.started_at > plan.total_timeout:
        return _give_up(
            state, now, reason="total_timeout", sentence=f"The rollout was not over after {plan.total_timeout}."
        )
    if observation.error is not None:
        return _blind(plan, replace(state, blind_looks=state.blind_looks + 1), observation.error, now)
    arm = observation.arms.get(state.version)
    if arm is not None and arm.restarts >= _CRASHES:
        text = f"The new version ended by itself {arm.restarts} times."
        return _give_up(state, now, reason="crash_loop", sentence=text)
    state = replace(state, blind_looks=0)
    if state.phase is RolloutPhase.STARTING:
        return _starting(plan, state, observation, now)
    return _serving(plan, state, observation, now)


def _serving(plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime) -> RolloutState:
    arm = observation.arms.get(state.version)
    if arm is None or not arm.ready:
        return _unready(plan, state, now)
    state = replace(state, unready_since=None)
    if arm.percent != state.weight:
        return _not_applied(plan, state, arm, now)
    if state.phase is RolloutPhase.SETTLING:
        return _settling(plan, state, observation, now)
    return _compared(plan, state, observation, now)


def _starting(plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime) -> RolloutState:
    arm = observation.arms.get(state.version)
    if arm is None or not arm.ready:
        if now - state.step_started_at > plan.start_timeout:
            text = f"The new version was not ready after {plan.start_timeout}. Its log says why."
            return _give_up(state, now, reason="start_timeout", sentence=text)
        return state
    stable = observation.arms.get(state.stable_version or "")
    if state.stable_version is None or plan.strategy is not Strategy.CANARY:
        return _switch(state, now, reason="ready", sentence="The new version is ready and gets all traffic.")
    if stable is None or not stable.ready:
        if now - state.step_started_at <= plan.start_timeout:
            return state  # without the stable version the canary would get everything
        text = "The stable version is not ready; the new one is, and gets all traffic."
        return _switch(state, now, reason="stable_down", sentence=text)
    weight = plan.weights_percent[0]
    # Frozen now, while the stable version is alone: the canary cannot move the line it is measured by.
    tally = state.tally.next_step().freeze(stable.counts)
    return state.moved(
        RolloutPhase.PROGRESSING,
        now,
        reason="ready",
        sentence=f"The new version is ready and gets {weight} %.",
        step=0,
        weight=weight,
        tally=tally,
    )


def _compared(plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime) -> RolloutState:
    """Look at a canary that has its share, in a step or in the bake after the last."""
    stable = observation.arms.get(state.stable_version or "")
    counts = None if stable is None else stable.counts
    tally = state.tally.freeze(counts)
    tally = tally.look(observation.counter, observation.arms[state.version].counts, counts)
    finding, tally = judge(plan, tally)
    state = replace(state, tally=tally)
    if finding.verdict is FindingVerdict.UNHEALTHY:
        return _give_up(state, now, reason=finding.reason, sentence=finding.sentence)
    if state.phase is RolloutPhase.BAKING:
        if now - state.step_started_at < plan.bake:
            return state
        return _switch(state, now, reason="baked", sentence="The new version stayed healthy and gets all traffic.")
    if finding.verdict is FindingVerdict.HEALTHY:
        return _next(plan, state, now, reason=finding.reason, sentence=finding.sentence)
    if now - state.step_started_at > plan.step_timeout:
        return _inconclusive(plan, state, now, finding.sentence)
    return state


def _settling(plan: RolloutPlan, state: RolloutState, observation: Observation, now: datetime) -> RolloutState:
    tally = state.tally.look(observation.counter, observation.arms[state.version].counts, None)
    state = replace(state, tally=tally)
    if (stop := ceiling(plan, tally)) is not None:
        return _give_up(state, now, reason=stop[0], sentence=stop[1])
    if now - state.step_started_at < plan.bake:
        return state
    return state.moved(
        RolloutPhase.PROMOTED, now, reason="promoted", sentence=f"Version {state.version} serves everything."
    )


def _unready(plan: RolloutPlan, state: RolloutState, now: datetime) -> RolloutState:
    warm = state.phase is RolloutPhase.SETTLING and state.stable_version and plan.strategy is not Strategy.ROLLING
    since = state.unready_since or now
    # Elsewhere a server may start anew in peace: without it the stable version answers, or nothing else could sooner.
    if warm or now - since > plan.start_timeout:
        return _give_up(state, now, reason="readiness_lost", sentence="The new version is no longer ready.")
    return replace(state, unready_since=since)


def _not_applied(plan: RolloutPlan, state: RolloutState, arm: Arm, now: datetime) -> RolloutState:
    if now - state.step_started_at > plan.step_timeout:
        text = f"The target still gives the new version {arm.percent:g} % instead of {state.weight} %."
        return _inconclusive(plan, state, now, text)
    return state


def _blind(plan: RolloutPlan, state: RolloutState, error: str, now: datetime) -> RolloutState:
    text = f"The target could not be read {state.blind_looks} times in a row: {error}"
    if state.phase is RolloutPhase.STARTING:
        if now - state.step_started_at > plan.start_timeout:
            return _give_up(state, now, reason="start_timeout", sentence=text)
        return state
    if state.blind_looks <= _BLIND_LOOKS or plan.if_inconclusive is IfInconclusive.HOLD:
        return state
    # To promote what cannot be seen is nobody's wish: "promote" is about tests that stay undecided.
    return _give_up(state, now, reason="blind", sentence=text)


def _inconclusive(plan: RolloutPlan, state: RolloutState, now: datetime, sentence: str) -> RolloutState:
    if plan.if_inconclusive is IfInconclusive.HOLD:
        return replace(state, reason="held", sentence=f"The time of this step is up; it is held. {sentence}")
    if plan.if_inconclusive is IfInconclusive.PROMOTE and state.phase is RolloutPhase.PROGRESSING:
        return _next(plan, state, now, reason="inconclusive", sentence=f"The time of this step is up. {sentence}")
    return _give_up(state, now, reason="inconclusive", sentence=f"The time of this step is up. {sentence}")


def _next(plan: RolloutPlan, state: RolloutState, now: datetime, *, reason: str, sentence: str) -> RolloutState:
    step = state.step + 1
    if step >= len(plan.weights_percent):
        return state.moved(RolloutPhase.BAKING, now, reason=reason, sentence=sentence)
    weight = plan.weights_percent[step]
    return state.moved(RolloutPhase.PROGRESSING, now, reason=reason, sentence=sentence, step=step, weight=weight)


def _switch(state: RolloutState, now: datetime, *, reason: str, sentence: str) -> RolloutState:
    return state.moved(RolloutPhase.SETTLING, now, reason=reason, sentence=sentence, weight=100)


def _give_up(state: RolloutState, now: datetime, *, reason: str, sentence: str) -> RolloutState:
    never_served = state.phase is RolloutPhase.STARTING or state.stable_version is None
    phase = RolloutPhase.FAILED if never_served else RolloutPhase.ROLLED_BACK
    # The evidence is kept as it was: it is what the sentence speaks of.
    return state.moved(phase, now, reason=reason, sentence=sentence, weight=0, tally=state.tally)
