"""An alias moves once, for one winner, on evidence; and whoever dies on the way is made good."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    GateRefused,
    NotFoundError,
    PromotionConflictError,
    ServiceError,
)
from airflow_provider_mlops.journal import Record, append_next, kinds, payloads, verify
from airflow_provider_mlops.promotion.anchor import anchor
from airflow_provider_mlops.promotion.protocol import PromotionRequest, promote, rollback
from airflow_provider_mlops.promotion.state import state
from fakes.journal import MemoryJournal
from fakes.registry import MemoryRegistry

STREAM = "model/churn"
PASSED = {"verdict": "passed", "digest": "sha256:aa"}


class Clock:
    def __init__(self):
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(milliseconds=1)
        return self.now


class World:
    """A journal, a registry with five versions of one model, and a clock."""

    def __init__(self):
        self.journal, self.registry, self.clock = MemoryJournal(), MemoryRegistry(), Clock()
        for number in range(1, 6):
            self.registry.create_version("churn", run_id=f"run{number}", source="models:/m", tags={})

    def promote(self, version, expected, **changes):
        fields = {"actor": "dag/run/task", "owner": "attempt", "gate": PASSED, **changes}
        request = PromotionRequest(model="churn", version=version, expected_champion=expected, **fields)
        return promote(request, journal=self.journal, registry=self.registry, clock=self.clock)

    def rollback(self, away_from=None, **changes):
        return rollback(
            "churn",
            away_from=away_from,
            **{"actor": "me", "owner": "attempt", **changes},
            journal=self.journal,
            registry=self.registry,
            clock=self.clock,
        )

    def write(self, kind, **payload):
        return append_next(self.journal, STREAM, Record(kind, self.clock(), "me", payload))

    def gate(self, version, verdict="passed", champion=None, digest="sha256:aa", model_uri=None, **numbers):
        self.write(
            kinds.GATE_DECIDED,
            **payloads.gate_decided(
                verdict=verdict,
                reason="worse" if verdict != "passed" else "better",
                sentence="AUC fell by 0.02.",
                digest=digest,
                run_id=f"run{version}",
                champion=champion,
                numbers=numbers,
                model_uri=model_uri,
            ),
        )

    def cycle(self, version, champion, *, registered=True, **numbers):
        """Judge a version, register it and promote it."""
        self.gate(version, champion=champion, **numbers)
        if registered:
            told = payloads.model_registered(version=version, run_id=f"run{version}", source="models:/m")
            self.write(kinds.MODEL_REGISTERED, **told)
        self.promote(version, champion)

    @property
    def anchor(self):
        return anchor(self.journal.read(STREAM))

    @property
    def alias(self):
        return self.registry.version_of("churn", alias="champion")

    @property
    def state(self):
        return state(self.journal.read(STREAM))

    def kinds(self):
        return [entry.record.kind for entry in self.journal.read(STREAM)]

    def is_at_rest(self):
        folded = self.state
        is_free = folded.lease is None or folded.lease.until <= self.clock.now
        return is_free and folded.pending is None and folded.champion("champion") == self.alias


@pytest.fixture
def world():
    return World()


def test_the_first_promotion_takes_the_lease_announces_moves_and_records(world):
    done = world.promote("1", None)
    assert (done.version, done.previous, done.token, done.changed) == ("1", None, 1, True)
    assert done.sentence == "churn@champion was promoted from no version to version 1."
    assert world.kinds() == [kinds.PROMOTION_LEASED, kinds.PROMOTION_PENDING, kinds.PROMOTION_DONE]
    assert world.alias == "1"
    assert world.is_at_rest()


def test_asking_twice_is_asking_once(world):
    world.promote("1", None)
    again = world.promote("1", None, owner="another attempt")
    assert (again.version, again.previous, again.changed) == ("1", None, False)
    assert len(world.kinds()) == 3


def test_each_promotion_has_a_higher_token(world):
    assert [world.promote(str(n), str(n - 1) if n > 1 else None).token for n in range(1, 5)] == [1, 2, 3, 4]


def test_whoever_was_judged_against_another_champion_loses(world):
    world.promote("1", None)
    world.promote("3", "1")
    with pytest.raises(PromotionConflictError, match="is version 3, not 1 as this decision expected"):
        world.promote("4", "1")
    assert world.alias == "3"
    assert world.is_at_rest()


def test_a_holder_keeps_the_others_out_until_its_lease_ends(world):
    world.write(
        kinds.PROMOTION_LEASED,
        **payloads.promotion_leased(owner="slow", token=1, until=world.clock.now + timedelta(minutes=2)),
    )
    with pytest.raises(PromotionConflictError, match="slow is moving the aliases of churn, until 2026-03-01T00:02"):
        world.promote("1", None)
    world.clock.now += timedelta(minutes=2)
    assert world.promote("1", None).token == 2


def test_a_lease_that_a_wrong_clock_wrote_keeps_nobody_out(world):
    ahead = world.clock.now + timedelta(days=3650)
    leased = payloads.promotion_leased(owner="ahead", token=1, until=ahead + timedelta(minutes=2))
    append_next(world.journal, STREAM, Record(kinds.PROMOTION_LEASED, ahead, "me", leased))
    assert world.promote("1", None).token == 2
    assert world.is_at_rest()


def test_a_lease_that_was_meant_to_be_long_binds_also_who_asks_for_short_ones(world):
    until = world.clock.now + timedelta(hours=1)
    world.write(kinds.PROMOTION_LEASED, **payloads.promotion_leased(owner="slow", token=1, until=until))
    with pytest.raises(PromotionConflictError, match="slow is moving the aliases of churn"):
        world.promote("1", None)


def test_whoever_is_overtaken_records_nothing_and_its_late_write_is_found_as_a_foreign_change(world):
    world.promote("1", None)
    registry = world.registry

    class Slow:
        """Stands still before its write, while another, by whose clock the lease cannot be, moves the alias."""

        def __getattr__(self, name):
            return getattr(registry, name)

        def set_alias(self, model, *, alias, version):
            world.promote("3", "1", owner="other")
            registry.set_alias(model, alias=alias, version=version)

    request = PromotionRequest(model="churn", version="2", expected_champion="1", actor="a", owner="ahead", gate=PASSED)
    now = world.clock.now
    ahead = lambda: now + timedelta(days=1)  # noqa: E731
    with pytest.raises(PromotionConflictError, match="ahead lost its lease on churn"):
        promote(request, journal=world.journal, registry=Slow(), clock=ahead)
    assert (world.alias, world.state.champion("champion")) == ("2", "3")
    with pytest.raises(PromotionConflictError, match="moved from outside"):
        world.promote("4", "3")
    assert world.promote("4", "3", on_foreign_change="restore").version == "4"


class Elsewhere(World):
    """The same journal in another environment, whose MLflow gave the same numbers to other runs."""

    def __init__(self, world):
        super().__init__()
        self.journal, self.clock, self.registry = world.journal, world.clock, MemoryRegistry()
        for number in range(1, 6):
            self.registry.create_version("churn", run_id=f"other{number}", source="models:/m", tags={})


OTHER_REGISTRY = "is run other{0} in this registry, but run run{0} in the journal.*journal_conn_id"


def promoted_twice(world):
    for version in ("1", "2", "3"):
        world.write(
            kinds.MODEL_REGISTERED, **payloads.model_registered(version=version, run_id=f"run{version}", source="s")
        )
    world.promote("1", None)
    world.promote("2", "1")


@pytest.mark.parametrize("on_foreign_change", ["fail", "adopt", "restore"])
@pytest.mark.parametrize("alias", [None, "1", "2", "3"])
def test_no_alias_of_another_registry_moves_to_or_from_what_this_journal_judged(world, alias, on_foreign_change):
    promoted_twice(world)
    other = Elsewhere(world)
    if alias is not None:
        other.registry.set_alias("churn", alias="champion", version=alias)
    for act in (
        lambda: other.rollback(on_foreign_change=on_foreign_change),
        lambda: other.rollback("2", on_foreign_change=on_foreign_change),
        lambda: other.promote("2", alias, on_foreign_change=on_foreign_change),
        lambda: other.promote("1", alias, allow_downgrade=True, on_foreign_change=on_foreign_change),
    ):
        with pytest.raises(PromotionConflictError):
            act()
        assert other.alias == alias
    assert world.state.champion("champion") == "2"


@pytest.mark.parametrize("act", ["fail", "restore", "promote"])
def test_another_registry_s_version_is_refused_by_both_its_runs(world, act):
    promoted_twice(world)
    other = Elsewhere(world)
    other.registry.set_alias("churn", alias="champion", version="3" if act == "restore" else "2")
    move = (lambda: other.promote("2", "1")) if act == "promote" else lambda: other.rollback(on_foreign_change=act)
    with pytest.raises(PromotionConflictError, match=OTHER_REGISTRY.format(3 if act == "restore" else 2)):
        move()


def test_a_move_that_another_registry_s_alias_seems_to_have_done_is_not_finished(world):
    world.promote("1", None)
    leased = payloads.promotion_leased(owner="attempt", token=2, until=world.clock.now + timedelta(minutes=2))
    world.write(kinds.PROMOTION_LEASED, **leased)
    announced = payloads.promotion_pending(
        alias="champion", version="2", previous="1", token=2, gate_digest=None, rollback=False, run_id="run2"
    )
    world.write(kinds.PROMOTION_PENDING, **announced)
    other = Elsewhere(world)
    other.registry.set_alias("churn", alias="champion", version="2")
    with pytest.raises(PromotionConflictError, match=OTHER_REGISTRY.format(2)):
        other.promote("3", "2")
    assert world.state.champion("champion") == "1"


def test_a_version_that_the_journal_never_met_may_still_be_adopted(world):
    promoted_twice(world)
    world.registry.set_alias("churn", alias="champion", version="4")
    assert world.promote("5", "4", on_foreign_change="adopt").version == "5"
    assert world.state.runs["4"] == "run4"


@pytest.mark.parametrize("key", ["verdict", "reason", "sentence", "digest", "champion"])
def test_a_gate_decision_that_lacks_a_word_is_named(world, key):
    world.gate("1")
    payload = {**world.journal.read(STREAM)[-1].record.payload}
    del payload[key]
    world.write(kinds.GATE_DECIDED, **payload)
    with pytest.raises(DataError, match=f"Entry 2 of model/churn, the gate's decision on .*, does not say {key}"):
        world.promote("1", None)


def test_going_back_on_purpose_is_an_override_in_the_journal(world):
    world.promote("3", None)
    world.promote("2", "3", allow_downgrade=True)
    used = [e.record.payload for e in world.journal.read(STREAM) if e.record.kind == kinds.OVERRIDE_USED]
    assert used == [
        {
            "what": "order: version 2 is older than the champion, version 3.",
            "why": "allow_downgrade=True",
            "version": "2",
            "run_id": None,
        }
    ]
    world.promote("4", "2", allow_downgrade=True)
    assert world.kinds().count(kinds.OVERRIDE_USED) == 1


@pytest.mark.parametrize("moves", [True, False], ids=["late", "does nothing"])
def test_a_registry_that_still_reads_the_old_version_leaves_a_state_that_the_retry_mends(world, moves):
    world.promote("1", None)

    class Stale:
        def __getattr__(self, name):
            return getattr(world.registry, name)

        def set_alias(self, model, *, alias, version):
            if moves:
                world.registry.set_alias(model, alias=alias, version=version)

        def version_of(self, model, *, alias):
            return "1"

    request = PromotionRequest(model="churn", version="2", expected_champion="1", actor="a", owner="o", gate=PASSED)
    with pytest.raises(ServiceError, match="was set to 2 but still reads 1"):
        promote(request, journal=world.journal, registry=Stale(), clock=world.clock)
    assert world.promote("2", "1", owner="o").changed
    assert world.alias == "2"
    assert world.is_at_rest()


def test_the_same_owner_takes_its_own_lease_over_at_once(world):
    until = world.clock.now + timedelta(minutes=2)
    world.write(kinds.PROMOTION_LEASED, **payloads.promotion_leased(owner="attempt", token=1, until=until))
    assert world.promote("1", None).token == 2


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it."""


class Mortal:
    """A port that ends the process at the n-th call of a verb that writes, before or after the write."""

    def __init__(self, port, countdown):
        self._port, self._countdown = port, countdown

    def __getattr__(self, name):
        verb = getattr(self._port, name)
        if name not in ("append", "set_alias", "delete_alias"):
            return verb

        def write(*arguments, **named):
            if next(self._countdown) == 0:
                raise Killed
            done = verb(*arguments, **named)
            if next(self._countdown) == 0:
                raise Killed
            return done

        return write


def killed_at(world, step, act):
    """Run *act* and end it at *step*. Return whether it lived to the end."""
    countdown = itertools.count(step, -1)
    journal, registry = world.journal, world.registry
    world.journal, world.registry = Mortal(journal, countdown), Mortal(registry, countdown)
    try:
        act()
    except Killed:
        return False
    finally:
        world.journal, world.registry = journal, registry
    return True


@pytest.mark.parametrize("owner", ["attempt", "next attempt"])
@pytest.mark.parametrize("step", range(9))
def test_a_promotion_killed_at_any_step_is_made_good_by_the_next(step, owner):
    world = World()
    world.promote("1", None)
    lived = killed_at(world, step, lambda: world.promote("2", "1"))
    assert lived == (step >= 8)  # lease, pending, alias, done: before and after each
    world.clock.now += timedelta(minutes=3)
    done = world.promote("2", "1", owner=owner)
    assert (done.version, world.alias) == ("2", "2")
    assert done.previous == "1"
    assert world.is_at_rest()
    assert [move.version for move in world.state.moves] == ["1", "2"]
    assert verify(world.journal.read(STREAM)) == []


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("second", range(9))
def test_a_recovery_that_is_killed_too_is_made_good(first, second):
    world = World()
    world.promote("1", None)
    killed_at(world, first, lambda: world.promote("2", "1"))
    world.clock.now += timedelta(minutes=3)
    killed_at(world, second, lambda: world.promote("2", "1"))
    world.clock.now += timedelta(minutes=3)
    assert world.promote("2", "1").previous == "1"
    assert world.is_at_rest()
    assert [move.version for move in world.state.moves] == ["1", "2"]


@pytest.mark.parametrize("step", range(8))
def test_another_candidate_ends_what_was_half_done_before_it_is_judged(step):
    world = World()
    world.promote("1", None)
    killed_at(world, step, lambda: world.promote("2", "1"))
    world.clock.now += timedelta(minutes=3)
    if world.alias == "1":
        assert world.promote("3", "1", owner="other").previous == "1"
    else:
        with pytest.raises(PromotionConflictError, match="is version 2, not 1"):
            world.promote("3", "1", owner="other")
    assert world.is_at_rest()


@pytest.mark.parametrize("step", range(9))
def test_a_rollback_killed_at_any_step_goes_back_one_version_and_no_further(step):
    world = World()
    for number in (1, 2, 3):
        world.promote(str(number), str(number - 1) if number > 1 else None)
    killed_at(world, step, lambda: world.rollback("3"))
    world.clock.now += timedelta(minutes=3)
    world.rollback("3")
    assert world.alias == "2"
    assert world.is_at_rest()


def test_a_holder_that_slept_past_its_lease_records_nothing(world):
    world.promote("1", None)

    class Sleepy:
        def __getattr__(self, name):
            return getattr(world.registry, name)

        def set_alias(self, model, *, alias, version):
            world.clock.now += timedelta(minutes=5)
            world.promote("3", "1", owner="awake")
            world.registry.set_alias(model, alias=alias, version=version)

    request = PromotionRequest(
        model="churn", version="2", expected_champion="1", actor="me", owner="sleepy", gate=PASSED
    )
    with pytest.raises(PromotionConflictError, match=r"sleepy lost its lease on churn \(token 2\)"):
        promote(request, journal=world.journal, registry=Sleepy(), clock=world.clock)
    assert [move.version for move in world.state.moves] == ["1", "3"]
    with pytest.raises(PromotionConflictError, match="moved from outside"):
        world.promote("4", "3")  # the late write is found, not built upon


def test_a_registry_slower_than_the_lease_stops_before_the_alias_moves(world):
    class Slow:
        def __getattr__(self, name):
            world.clock.now += timedelta(minutes=5)
            return getattr(world.registry, name)

    request = PromotionRequest(model="churn", version="1", expected_champion=None, actor="a", owner="o", gate=PASSED)
    with pytest.raises(PromotionConflictError, match="took longer than its lease"):
        promote(request, journal=world.journal, registry=Slow(), clock=world.clock)
    assert world.alias is None


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
def test_a_registry_that_fails_at_the_alias_leaves_a_state_that_the_retry_mends(world, after):
    class Failing:
        def __getattr__(self, name):
            return getattr(world.registry, name)

        def set_alias(self, model, *, alias, version):
            if after:
                world.registry.set_alias(model, alias=alias, version=version)
            raise ServiceError("MLflow answered 500.")

    request = PromotionRequest(model="churn", version="1", expected_champion=None, actor="a", owner="o", gate=PASSED)
    with pytest.raises(ServiceError, match="500"):
        promote(request, journal=world.journal, registry=Failing(), clock=world.clock)
    assert world.promote("1", None, owner="o").version == "1"
    assert world.is_at_rest()


def test_a_registry_that_fails_before_anything_was_announced_gives_the_lease_back(world):
    calls = itertools.count()

    class Failing:
        def __getattr__(self, name):
            return getattr(world.registry, name)

        def version_of(self, model, *, alias):
            if next(calls) > 0:
                raise ServiceError("MLflow answered a page of HTML.")
            return world.registry.version_of(model, alias=alias)

    request = PromotionRequest(model="churn", version="1", expected_champion=None, actor="a", owner="o", gate=PASSED)
    with pytest.raises(ServiceError, match="HTML"):
        promote(request, journal=world.journal, registry=Failing(), clock=world.clock)
    assert world.kinds() == [kinds.PROMOTION_LEASED, kinds.PROMOTION_ABANDONED]
    assert world.promote("1", None, owner="another").changed


def test_an_alias_moved_from_outside_stops_the_promotion(world):
    world.promote("1", None)
    world.registry.set_alias("churn", alias="champion", version="4")
    with pytest.raises(
        PromotionConflictError,
        match=r"is version 4, but the journal's last move made it 1.*promote: {on_foreign_change: adopt}",
    ):
        world.promote("5", "4")
    assert world.alias == "4"
    assert world.state.lease is None


@pytest.mark.parametrize("outside", ["4", None], ids=["moved", "deleted"])
def test_a_foreign_change_is_adopted_or_restored_when_asked(world, outside):
    def interfere():
        if outside is None:
            world.registry.delete_alias("churn", alias="champion")
        else:
            world.registry.set_alias("churn", alias="champion", version=outside)

    world.promote("1", None)
    interfere()
    assert world.promote("5", outside, on_foreign_change="adopt").previous == outside
    assert world.is_at_rest()
    assert [move.adopted for move in world.state.moves] == [False, True, False]
    interfere()
    with pytest.raises(PromotionConflictError, match="is version 5, not 4"):
        world.promote("3", "4", on_foreign_change="restore", allow_downgrade=True)
    assert world.alias == "5"


def test_an_alias_that_was_deleted_and_adopted_can_be_deleted_again(world):
    world.promote("1", None)
    world.registry.delete_alias("churn", alias="champion")
    with pytest.raises(PromotionConflictError, match="is version None, not 9"):
        world.promote("2", "9", on_foreign_change="adopt")
    world.registry.set_alias("churn", alias="champion", version="4")
    assert world.promote("2", None, on_foreign_change="restore", allow_downgrade=True).previous is None


def test_a_champion_from_before_the_journal_is_taken_as_it_is(world):
    world.registry.set_alias("churn", alias="champion", version="1")
    assert world.promote("2", "1").previous == "1"
    assert world.rollback("2").version == "1"


def test_an_alias_that_is_moved_while_we_move_it_is_noticed_by_reading_back(world):
    class Contested:
        def __getattr__(self, name):
            return getattr(world.registry, name)

        def set_alias(self, model, *, alias, version):
            world.registry.set_alias(model, alias=alias, version="5")

    request = PromotionRequest(model="churn", version="1", expected_champion=None, actor="a", owner="o", gate=PASSED)
    with pytest.raises(PromotionConflictError, match="was set to 1 but reads 5"):
        promote(request, journal=world.journal, registry=Contested(), clock=world.clock)
    assert world.state.lease is None


def test_an_old_run_that_is_cleared_moves_nothing_back(world):
    world.promote("1", None)
    world.promote("3", "1")
    with pytest.raises(PromotionConflictError, match="version 2 is older than the champion, version 3"):
        world.promote("2", "3")
    assert world.alias == "3"
    assert world.promote("2", "3", allow_downgrade=True).version == "2"


def test_the_order_of_registration_in_the_journal_comes_before_the_numbers(world):
    for version in ("3", "2"):
        world.write(
            kinds.MODEL_REGISTERED, **payloads.model_registered(version=version, run_id=f"run{version}", source="s")
        )
    world.promote("3", None)
    assert world.promote("2", "3").version == "2"
    with pytest.raises(PromotionConflictError, match="version 3 is older"):
        world.promote("3", "2")


def test_a_version_that_was_rolled_back_from_does_not_come_again_by_itself(world):
    world.promote("1", None)
    world.promote("2", "1")
    world.rollback("2")
    with pytest.raises(PromotionConflictError, match="version 2 was rolled back from"):
        world.promote("2", "1")
    assert world.promote("2", "1", allow_downgrade=True).version == "2"
    assert world.rollback("2").version == "1"


GATES = [
    ("nothing", None, {}, GateRefused, r"no gate decision that passed was given \(verdict: None\)"),
    ("refused, not journalled", None, {"verdict": "refused"}, GateRefused, "verdict: 'refused'"),
    ("refused", {"verdict": "refused"}, PASSED, GateRefused, r"the gate said refused \(worse\). AUC fell"),
    ("underpowered", {"verdict": "underpowered"}, PASSED, GateRefused, "the gate said underpowered"),
    ("other digest", {}, {"verdict": "passed", "digest": "sha256:bb"}, GateRefused, "sha256:bb.*not the journal's"),
    ("claims refusal", {}, {"verdict": "refused"}, GateRefused, "not the journal's last decision"),
    ("other champion", {"champion": "7"}, PASSED, PromotionConflictError, "judged against champion 7, not None"),
]


@pytest.mark.parametrize(
    ("recorded", "gate", "error", "says"), [row[1:] for row in GATES], ids=[row[0] for row in GATES]
)
def test_without_a_gate_that_passed_nothing_moves_but_by_a_journalled_override(world, recorded, gate, error, says):
    if recorded is not None:
        world.gate("2", **recorded)
    before = len(world.kinds())
    with pytest.raises(error, match=says):
        world.promote("2", None, gate=gate)
    assert world.alias is None
    assert len(world.kinds()) == before
    world.promote("2", None, gate=gate, unsafe_override="the old one leaks data")
    assert world.alias == "2"
    (used,) = [entry.record for entry in world.journal.read(STREAM) if entry.record.kind == kinds.OVERRIDE_USED]
    assert used.payload["why"] == "the old one leaks data"
    assert used.payload["what"].startswith("gate: ")


def test_the_last_decision_on_a_run_counts(world):
    world.gate("2", "refused")
    world.gate("2", "passed")
    assert world.promote("2", None).version == "2"
    world.gate("3", "passed", champion="2")
    world.gate("3", "refused", champion="2")
    with pytest.raises(GateRefused, match="the gate said refused"):
        world.promote("3", "2")


def test_a_decision_on_another_model_of_the_same_run_promotes_nothing(world):
    world.registry.create_version("churn", run_id="run6", source="models:/m-bad", tags={})
    world.gate("6", model_uri="models:/m-good")
    with pytest.raises(GateRefused, match="judged another model of its run, models:/m-good; this one is"):
        world.promote("6", None, gate={})
    world.gate("6", model_uri="models:/m-bad")
    assert world.promote("6", None, gate={}).changed


def answered(world, version, option):
    told = payloads.approval_answered(
        version=version,
        approved=option == "Approve",
        chosen=[option],
        responded_by={"id": "3", "name": "ann"},
        at=None,
        gate_digest=None,
    )
    world.write(kinds.APPROVAL_ANSWERED, **told)


def test_what_a_person_rejected_is_promoted_only_by_another_yes_decision_or_override(world):
    world.gate("1")
    answered(world, "1", "Reject")
    with pytest.raises(GateRefused, match=r"a person said no to it: .*rejected by ann \(id 3\)"):
        world.promote("1", None, gate={})
    assert world.alias is None
    answered(world, "1", "Approve")
    assert world.promote("1", None, gate={}).changed
    world.gate("2", champion="1")
    answered(world, "2", "Reject")
    assert world.promote("2", "1", gate={}, unsafe_override="ann is on holiday").changed
    assert world.kinds().count(kinds.OVERRIDE_USED) == 1
    world.gate("3", champion="2")
    answered(world, "3", "Reject")
    world.gate("3", champion="2")  # judged anew: the answer was about the decision before
    assert world.promote("3", "2", gate={}).changed


def test_a_decision_of_the_journal_is_evidence_enough(world):
    world.gate("2")
    world.promote("2", None, gate={})
    pending = next(entry.record for entry in world.journal.read(STREAM) if entry.record.kind == kinds.PROMOTION_PENDING)
    assert pending.payload["gate_digest"] == "sha256:aa"


def test_an_override_that_is_not_needed_is_not_journalled(world):
    world.promote("1", None, unsafe_override="just in case")
    assert kinds.OVERRIDE_USED not in world.kinds()


@pytest.mark.parametrize("changes", [{"unsafe_override": "  "}, {"on_foreign_change": "ignore"}])
def test_what_cannot_be_meant_is_a_config_error(world, changes):
    with pytest.raises(ConfigError, match="must"):
        world.promote("1", None, **changes)


def test_an_unknown_version_is_named(world):
    with pytest.raises(NotFoundError, match="Version '9' was not found"):
        world.promote("9", None)


def test_nothing_is_decided_on_a_journal_that_was_edited(world):
    world.promote("1", None)
    entries = world.journal.entries[STREAM]
    record = entries[1].record
    entries[1] = replace(entries[1], record=replace(record, payload={**record.payload, "version": "5"}))
    with pytest.raises(DataError, match="The content of entry 2 does not fit its hash"):
        world.promote("2", "1")


def test_a_record_without_what_its_kind_needs_is_named(world):
    world.write(kinds.PROMOTION_DONE, version="1")
    with pytest.raises(DataError, match=r"Entry 1 of model/churn cannot be read as 'promotion\.done'"):
        world.promote("1", None)


def test_rollback_goes_to_the_last_healthy_version_and_asking_twice_is_asking_once(world):
    for number in (1, 2, 3):
        world.promote(str(number), str(number - 1) if number > 1 else None)
    done = world.rollback("3")
    assert (done.version, done.previous, done.changed) == ("2", "3", True)
    assert done.sentence == "churn@champion was rolled back from 3 to version 2."
    assert not world.rollback("3").changed
    assert world.rollback("2").version == "1"  # 3 was rolled back from, so it is not the last healthy one
    with pytest.raises(PromotionConflictError, match="no healthy version before 1"):
        world.rollback("1")
    assert world.is_at_rest()


def test_rollback_of_whatever_is_champion_is_done_once_per_owner(world):
    for number in (1, 2, 3):
        world.promote(str(number), str(number - 1) if number > 1 else None)
    assert world.rollback(owner="dag run 1").version == "2"
    again = world.rollback(owner="dag run 1")
    assert (again.version, again.previous, again.changed) == ("2", "3", False)
    assert world.rollback(owner="dag run 2").version == "1"


@pytest.mark.parametrize("step", range(9))
def test_rollback_of_whatever_is_champion_killed_at_any_step_goes_back_once(step):
    world = World()
    for number in (1, 2, 3):
        world.promote(str(number), str(number - 1) if number > 1 else None)
    killed_at(world, step, world.rollback)
    done = world.rollback()
    assert (done.version, done.previous, world.alias) == ("2", "3", "2")


def test_without_a_champion_there_is_nothing_to_roll_back(world):
    with pytest.raises(PromotionConflictError, match="points at no version"):
        world.rollback()


def test_rollback_goes_only_to_where_the_alias_has_been(world):
    for number in (1, 2, 4):
        world.promote(str(number), {1: None, 2: "1", 4: "2"}[number])
    with pytest.raises(PromotionConflictError, match=r"cannot be rolled back to version 3.*Healthy: 2, 1"):
        world.rollback("4", to="3")
    assert world.rollback("4", to="1").version == "1"


def test_rollback_of_a_champion_set_by_hand_needs_the_word(world):
    world.promote("1", None)
    world.registry.set_alias("churn", alias="champion", version="4")
    with pytest.raises(PromotionConflictError, match="moved from outside"):
        world.rollback("4")
    assert world.rollback("4", on_foreign_change="adopt").version == "1"


def test_rollback_undoes_a_promotion_that_was_half_done(world):
    world.promote("1", None)
    killed_at(world, 6, lambda: world.promote("2", "1"))  # the alias has moved, DONE is missing
    assert world.alias == "2"
    assert world.rollback("2").version == "1"
    assert [move.version for move in world.state.moves] == ["1", "2", "1"]


def test_aliases_are_moved_apart(world):
    world.promote("1", None)
    world.promote("2", None, alias="eu")
    assert (world.alias, world.registry.version_of("churn", alias="eu")) == ("1", "2")
    assert world.state.champion("eu") == "2"


def test_evidence_written_at_the_same_time_does_not_disturb(world):
    class Busy:
        def __init__(self, journal):
            self.journal = journal

        def __getattr__(self, name):
            return getattr(self.journal, name)

        def append(self, stream, expected, record):
            append_next(self.journal, stream, Record("drift.checked", record.at, "monitor", {}))
            self.append = self.journal.append  # once per turn
            return self.journal.append(stream, expected, record)

    journal, world.journal = world.journal, Busy(world.journal)
    assert world.promote("1", None).version == "1"
    world.journal = journal
    assert world.is_at_rest()


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["promote", "rollback", "outside", "time"]),
        st.sampled_from(["1", "2", "3", "4", "5"]),
        st.integers(0, 12),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["fail", "adopt", "restore"]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(ACTS)
def test_whatever_happens_the_next_calm_call_finds_alias_and_journal_agreeing(acts):
    world = World()
    for act, version, step, owner, policy in acts:
        try:
            if act == "promote":
                killed_at(
                    world,
                    step,
                    lambda v=version, o=owner, p=policy: world.promote(v, world.alias, owner=o, on_foreign_change=p),
                )
            elif act == "rollback":
                killed_at(
                    world,
                    step,
                    lambda v=version, o=owner, p=policy: world.rollback(v, owner=o, on_foreign_change=p),
                )
            elif act == "outside":
                world.registry.set_alias("churn", alias="champion", version=version)
            else:
                world.clock.now += timedelta(minutes=3)
        except PromotionConflictError:
            pass
    world.clock.now += timedelta(minutes=3)
    done = world.promote("5", world.alias, owner="calm", on_foreign_change="adopt", allow_downgrade=True)
    assert done.version == world.alias == "5"
    folded = world.state
    assert folded.pending is None
    assert folded.champion("champion") in ("5", None)  # None: the alias was only ever set from outside
    tokens = [
        entry.record.payload["token"] for entry in world.journal.read(STREAM) if entry.record.kind == "promotion.leased"
    ]
    assert tokens == list(range(1, len(tokens) + 1))


@pytest.mark.parametrize("registered", [True, False])
def test_versions_that_were_only_not_worse_never_become_the_anchor(world, registered):
    world.cycle("1", None, registered=registered)
    assert world.anchor is None  # the champion itself
    world.cycle("2", "1", non_inferiority=True, registered=registered)
    world.cycle("3", "2", non_inferiority=True, registered=registered)
    assert world.anchor == "1"


def test_a_version_that_wins_becomes_the_anchor(world):
    world.cycle("1", None)
    world.cycle("2", "1")
    world.cycle("3", "2", non_inferiority=True)
    assert world.anchor == "2"


@pytest.mark.parametrize("verdict", ["refused", "underpowered"])
def test_a_champion_that_is_judged_again_by_other_rules_has_won_nothing(world, verdict):
    world.cycle("1", None)
    world.cycle("2", "1", non_inferiority=True)
    world.gate("2", verdict, champion="2")  # its old run was cleared, after the rules had changed to superiority
    assert world.anchor == "1"


def test_a_version_that_was_rolled_back_from_is_no_anchor(world):
    world.cycle("1", None)
    world.cycle("2", "1")
    world.rollback("2")
    world.cycle("3", "1", non_inferiority=True)
    assert world.anchor == "1"


def test_a_champion_that_nobody_judged_is_taken_as_it_is(world):
    world.promote("1", None)
    world.cycle("2", "1", non_inferiority=True)
    assert world.anchor == "1"
