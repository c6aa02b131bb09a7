"""The leader's memory: silence becomes few commands, each with its reason; virtual time."""

from __future__ import annotations

import pytest

from conveyor_raft.machines.router import RouterCommand, ServiceHealth
from conveyor_registry import Liveness, LivenessOptions

C = RouterCommand


class Leader:
    """A liveness and its duty loop, with the clock in the test's hand."""

    def __init__(self, world, **options):
        self.world, self.now = world, 0
        self.liveness = Liveness(LivenessOptions(**{"renewal_interval_ms": 0, **options}))
        self.liveness.begin(world.state, 0)

    def at(self, now, *, beat=(), confirm=True):
        """Go to a time, hear from sidecars, do the duty; the kinds of what was recorded."""
        self.now = now
        for sidecar_id in beat:
            self.liveness.beat_sidecar(sidecar_id, now)
        return self.duty(confirm=confirm)

    def duty(self, *, confirm=True, wall_ms=None):
        commands = self.liveness.decide(self.world.state, self.now, wall_ms)
        for command in commands:
            self.world.raft.apply(command)
        if confirm:
            self.liveness.confirm_quorum()
        return self.world.commands(commands)


def register(world, service_id="s", **more):
    world.raft.apply(
        C.RegisterService(service_id=service_id, service_type="Source", endpoint="a:1", **more)
    )


def test_a_silent_service_is_unhealthy_then_removed(world):
    """One lease, and two more; each recorded once, with its reason."""
    register(world)
    leader = Leader(world)
    assert leader.at(29_999) == []
    assert leader.at(30_000) == ["update_service_health"]
    record = world.state.services["s"]
    assert (record.health, record.health_reason) == (
        ServiceHealth.UNHEALTHY,
        "not heard of for 30.0 s, its lease is 30.0 s",
    )
    assert leader.at(89_999) == []
    assert leader.at(90_000) == ["expire_services"]
    assert not world.state.services
    assert leader.at(200_000) == []


def test_who_is_heard_of_again_recovers(world):
    """A beat within the lease keeps it healthy; one after it makes it healthy again."""
    register(world, lease_ms=1_000)
    leader = Leader(world)
    leader.liveness.beat_service("s", 900)
    assert leader.at(1_800) == []
    assert leader.at(1_900) == ["update_service_health"]
    leader.liveness.beat_service("s", 2_000)
    assert leader.at(2_000) == ["update_service_health"]
    assert world.state.services["s"].health is ServiceHealth.HEALTHY
    assert leader.liveness.silent_ms(2_500, service_id="s") == 500


def test_a_sidecars_services_share_its_fate(world):
    """One command for the sidecar; its services need none of their own."""
    world.sidecar("a", "source:src", "sink:out")
    leader = Leader(world)
    assert leader.at(15_000) == ["update_sidecar_health"]
    assert {one.health for one in world.state.services.values()} == {ServiceHealth.UNHEALTHY}
    assert leader.at(20_000, beat="a") == ["update_sidecar_health"]
    assert {one.health for one in world.state.services.values()} == {ServiceHealth.HEALTHY}
    assert leader.at(65_000) == ["expire_sidecars"]
    assert not world.state.services


def test_registering_is_a_sign_of_life(world):
    """Also when it comes between two duties."""
    world.sidecar("a")
    leader = Leader(world)
    assert leader.at(14_000) == []
    world.sidecar("a", boot="b2")
    assert leader.at(15_000) == []
    assert leader.at(29_000) == []
    assert leader.at(30_000) == ["update_sidecar_health"]


def test_a_new_leader_grants_a_full_lease(world):
    """Whoever was silent under the old leader is not expired by the new one at once."""
    world.sidecar("a")
    register(world)
    old = Leader(world)
    old.at(14_999, beat=())
    old.liveness.end()
    assert old.duty() == []
    new = Leader(world)
    assert new.at(14_999) == []
    assert new.at(15_000) == ["update_sidecar_health"]


def test_the_unhealthy_keep_two_leases_under_a_new_leader(world):
    """They have used their first; only a sign of life makes them healthy."""
    world.sidecar("a")
    Leader(world).at(15_000)
    new = Leader(world)
    assert new.at(0) == []
    assert new.at(29_999) == []
    assert new.at(30_000) == ["expire_sidecars"]


def crowd(world, count):
    names = [f"s{number:02}" for number in range(count)]
    for name in names:
        world.sidecar(name)
    return names


def test_a_mass_expiry_is_held_back_and_reported(world):
    """Six of ten at once: more likely the routers cannot hear. Nothing is recorded."""
    names = crowd(world, 10)
    leader = Leader(world)
    leader.at(10_000, beat=names)
    assert leader.at(25_000, beat=names[6:], confirm=False) == []
    held = leader.liveness.held
    assert [one.sidecar_id for one in held] == names[:6]
    assert "6 of 10 sidecars fell silent within one lease" in held[0].reason
    assert held[0].silent_ms == 15_000
    # Without a quorum it is held for ever.
    for now in range(30_000, 120_000, 5_000):
        assert leader.at(now, beat=names[6:], confirm=False) == []


def test_a_confirmed_mass_expiry_is_released_one_lease_later(world):
    """A quorum still follows, and a lease has passed: then it is believed."""
    names = crowd(world, 10)
    leader = Leader(world)
    leader.at(10_000, beat=names)
    leader.at(25_000, beat=names[6:])
    assert leader.at(39_999, beat=names[6:]) == []
    assert leader.at(40_000, beat=names[6:]) == ["update_sidecar_health"] * 6
    assert leader.liveness.held == ()
    assert leader.at(55_000, beat=names[6:]) == ["expire_sidecars"]
    assert len(world.state.sidecars) == 4


def test_a_mass_expiry_dissolves_when_they_are_heard_of(world):
    """A network that comes back has cost nothing."""
    names = crowd(world, 10)
    leader = Leader(world)
    leader.at(15_000)
    assert len(leader.liveness.held) == 10
    assert leader.at(20_000, beat=names) == []
    assert leader.liveness.held == ()
    assert {one.health for one in world.state.sidecars.values()} == {ServiceHealth.HEALTHY}


def test_an_operator_lets_go(world):
    """Who knows that the machines are gone need not wait."""
    crowd(world, 10)
    leader = Leader(world)
    leader.at(15_000, confirm=False)
    leader.liveness.release()
    assert leader.at(16_000, confirm=False) == ["update_sidecar_health"] * 10


@pytest.mark.parametrize(("silent", "total"), [(4, 4), (6, 20)])
def test_few_at_once_are_believed(world, silent, total):
    """Below five, or at most thirty per cent, silence is just silence."""
    names = crowd(world, total)
    leader = Leader(world)
    assert leader.at(15_000, beat=names[silent:]) == ["update_sidecar_health"] * silent


def test_last_heard_times_are_recorded_in_bounded_batches(world):
    """Once per interval, for those who spoke; no revision moves."""
    for number in range(1_002):
        register(world, f"s{number}")
    leader = Leader(world, renewal_interval_ms=10_000)
    for number in range(1_001):
        leader.liveness.beat_service(f"s{number}", 4_000)
    leader.now = 10_000
    revision = world.state.revision
    assert leader.duty(wall_ms=1_800_000_000_000) == ["renew_leases"] * 2
    assert world.state.services["s7"].last_heartbeat_ms == 1_799_999_994_000
    assert world.state.revision == revision
    leader.now = 19_999
    assert leader.duty(wall_ms=1_800_000_010_000) == []


def test_silent_members_leave_their_group(world):
    """Their partitions go to the others in the same entry."""
    for member_id in ("a", "b"):
        world.raft.apply(
            C.JoinGroup(
                group_id="g",
                member_id=member_id,
                service_name="src",
                partition_names=("0", "1", "2"),
            )
        )
    leader = Leader(world)
    leader.liveness.beat_member("g", "b", 20_000)
    assert leader.at(29_999) == []
    assert leader.at(30_000) == ["leave_group", "assign_partitions"]
    (member,) = world.state.groups["g"].members
    assert (member.member_id, member.partitions) == ("b", (0, 1, 2))


def test_heartbeats_of_thousands_cost_no_entry(world):
    """1,000 sidecars and 2,000 services beat for a minute: the log does not grow."""
    names = crowd(world, 1_000)
    for number in range(2_000):
        register(world, f"s{number}")
    leader = Leader(world)
    before = world.raft.proposals
    for now in range(5_000, 65_000, 5_000):
        for number in range(2_000):
            leader.liveness.beat_service(f"s{number}", now)
        assert leader.at(now, beat=names) == []
    assert world.raft.proposals == before
