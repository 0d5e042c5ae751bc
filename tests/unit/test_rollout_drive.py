"""The loop: it converges wherever it is killed, and asking twice is asking once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_mlops.errors import ConflictError, RolloutFailedError, ServiceError
from airflow_provider_mlops.rollout import RolloutPhase, RolloutPlan, drive
from fakes.target import MemoryTarget

PLAN = RolloutPlan(weights_percent=(10, 50), min_requests_per_step=200, bake=timedelta(seconds=30))
ROLLING = RolloutPlan(strategy="rolling", bake=timedelta(0))


class World:
    """A clock, and traffic that flows while one sleeps."""

    def __init__(self, target, per_second=100):
        self.now = datetime(2025, 3, 1, tzinfo=UTC)
        self.target = target
        self.per_second = per_second
        self.asked = 0
        self.lost = 0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += timedelta(seconds=seconds)
        for _ in range(int(seconds * self.per_second)):
            version, _failed = self.target.ask("churn", client=self.asked % 97)
            self.asked += 1
            self.lost += version is None

    def drive(self, version, plan=PLAN, request=None, target=None, **kwargs):
        return drive(
            target or self.target,
            "churn",
            plan,
            version=version,
            model=f"/m/{version}",
            request=request or f"run-{version}",
            clock=self.clock,
            sleep=self.sleep,
            **kwargs,
        )


def world(answer=lambda version, number: (False, 10), **kwargs):
    target = MemoryTarget(answer, **kwargs)
    made = World(target)
    assert made.drive("1", ROLLING).phase is RolloutPhase.PROMOTED
    made.lost = 0
    return made


def test_a_healthy_version_goes_all_the_way():
    w = world()
    steps = []
    assert w.drive("2", on_step=lambda state: steps.append((state.phase.value, state.weight))).version == "2"
    assert steps == [
        ("starting", 0),
        ("progressing", 10),
        ("progressing", 50),
        ("baking", 50),
        ("settling", 100),
        ("promoted", 100),
    ]
    assert w.lost == 0
    assert list(w.target.observe("churn").arms) == ["2"]


def test_a_faulty_version_is_rolled_back_and_the_stable_one_never_stops():
    w = world(lambda version, number: (version == "2" and number % 3 == 0, 10))
    final = w.drive("2")
    assert (final.phase, final.reason) == (RolloutPhase.ROLLED_BACK, "error_ceiling")
    assert w.lost == 0
    assert list(w.target.observe("churn").arms) == ["1"]


def test_a_first_version_needs_no_canary_steps():
    w = World(MemoryTarget())
    steps = []
    w.drive("1", on_step=lambda state: steps.append(state.phase.value))
    assert steps == ["starting", "settling", "promoted"]


def test_a_version_that_never_starts_fails_without_traffic():
    w = world(starts=lambda version: version == "1")
    final = w.drive("2")
    assert (final.phase, final.reason) == (RolloutPhase.FAILED, "start_timeout")
    assert w.lost == 0


def test_asking_again_after_the_end_changes_nothing():
    w = world()
    final = w.drive("2")
    asked = w.asked
    assert w.drive("2", on_step=lambda state: pytest.fail("nothing changed")) == final
    assert w.asked == asked


def test_a_later_request_replaces_the_running_one():
    w = world()

    def interrupt(state):
        if state.step == 1 and state.phase is RolloutPhase.PROGRESSING:
            assert w.drive("3", ROLLING).phase is RolloutPhase.PROMOTED

    with pytest.raises(RolloutFailedError, match=r"was replaced while it was progressing.*now about version '3'"):
        w.drive("2", on_step=interrupt)
    with pytest.raises(RolloutFailedError, match="was replaced by a later one, to version '3'"):  # nor by a retry
        w.drive("2", on_step=lambda state: pytest.fail("must not begin"))


class Killed(BaseException):
    """What a kill -9 looks like from inside: no handler of ours may catch it."""


class Mortal:
    """Passes calls on and dies before or after the call number *at*."""

    def __init__(self, target, at, before):
        self.target, self.at, self.before, self.calls = target, at, before, 0

    def __getattr__(self, method):
        call = getattr(self.target, method)

        def mortal(*args):
            self.calls += 1
            if self.calls == self.at and self.before:
                raise Killed
            result = call(*args)
            if self.calls == self.at:
                raise Killed
            return result

        return mortal


def _calls():
    w = world()
    counter = Mortal(w.target, 0, before=True)
    w.drive("2", target=counter)
    return counter.calls


@pytest.mark.parametrize("before", [True, False], ids=["before the call", "after the call"])
@pytest.mark.parametrize("faulty", [False, True], ids=["healthy", "faulty"])
def test_killed_at_any_call_and_asked_again_it_ends_the_same(before, faulty):
    expected = "1" if faulty else "2"
    for at in range(1, _calls() + 1):
        w = world(lambda version, number: (faulty and version == "2" and number % 3 == 0, 10))
        try:
            final = w.drive("2", target=Mortal(w.target, at, before))
        except Killed:
            w.sleep(7)
            final = w.drive("2")
        assert final.phase is (RolloutPhase.ROLLED_BACK if faulty else RolloutPhase.PROMOTED), at
        assert list(w.target.observe("churn").arms) == [expected], at
        assert w.lost == 0, at


def test_killed_at_every_third_call_it_still_ends():
    w = world()
    for _ in range(200):
        try:
            final = w.drive("2", target=Mortal(w.target, 5, before=False))
            break
        except Killed:
            w.sleep(5)
    assert final.phase is RolloutPhase.PROMOTED


class Flaky:
    """Fails calls of one method for a while."""

    def __init__(self, target, method, times, error):
        self.target, self.method, self.left, self.error = target, method, times, error

    def __getattr__(self, method):
        if method == self.method and self.left > 0:
            self.left -= 1
            return self._fail
        return getattr(self.target, method)

    def _fail(self, *_args):
        raise self.error("not now")


@pytest.mark.parametrize("method", ["observe", "act"])
def test_a_short_failure_of_the_target_is_survived(method):
    w = world()
    final = w.drive("2", target=Flaky(w.target, method, 3, ServiceError))
    assert final.phase is RolloutPhase.PROMOTED


def test_of_two_drivers_the_loser_reads_again():
    w = world()
    final = w.drive("2", target=Flaky(w.target, "write_state", 3, ConflictError))
    assert final.phase is RolloutPhase.PROMOTED


def test_what_the_final_state_wants_and_cannot_be_had_is_an_error():
    w = world()
    w.drive("2")
    with pytest.raises(ServiceError, match="not now"):
        w.drive("2", target=Flaky(w.target, "act", 1, ServiceError))


class Late:
    """Deals traffic as it was asked to *delay* ago."""

    def __init__(self, world, delay):
        self.world, self.target, self.delay, self.asked = world, world.target, delay, []

    def __getattr__(self, method):
        return getattr(self.target, method)

    def act(self, name, actions):
        self.asked.append((self.world.now, actions))

    def observe(self, name):
        while self.asked and self.world.now - self.asked[0][0] >= self.delay:
            self.target.act(name, self.asked.pop(0)[1])
        return self.target.observe(name)


@pytest.mark.parametrize("faulty", [False, True], ids=["healthy", "faulty"])
def test_it_returns_when_traffic_is_dealt_as_the_final_state_says(faulty):
    w = world(lambda version, number: (faulty and version == "2" and number % 3 == 0, 10))
    final = w.drive("2", target=Late(w, timedelta(seconds=3)))
    assert final.phase is (RolloutPhase.ROLLED_BACK if faulty else RolloutPhase.PROMOTED)
    assert w.target.ask("churn")[0] == ("1" if faulty else "2")


def test_short_steps_do_not_make_it_impatient_with_the_target():
    w = world()
    plan = replace(PLAN, step_timeout=timedelta(seconds=1))
    final = w.drive("2", plan, target=Late(w, timedelta(seconds=30)))
    assert final.phase is RolloutPhase.ROLLED_BACK
    assert w.target.ask("churn")[0] == "1"


def test_a_target_that_never_deals_traffic_as_the_final_state_says_is_an_error():
    w = world()
    w.drive("2")
    w.target.act("churn", ())
    deaf = Late(w, timedelta(days=9))
    with pytest.raises(ServiceError, match=r"to version '2' is promoted, .*still gives other shares. Call again"):
        w.drive("2", target=deaf)


def test_a_final_state_that_is_replaced_meanwhile_is_not_waited_for():
    w = world()
    deaf = Late(w, timedelta(days=9))

    def replaced(seconds):
        w.sleep(seconds)
        w.drive("4", ROLLING)

    w.drive("2")
    w.target.act("churn", ())
    final = drive(
        deaf, "churn", PLAN, version="2", model="/m/2", request="again", clock=w.clock, sleep=replaced
    )  # fmt: skip
    assert final.reason == "already_serving"
