"""Sidecars: one-step registration, boots, first registration wins, the ways to go."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import RefusalCode, RouterCommand, ServiceHealth
from conveyor_raft.machines.router.sidecars import location_of

C = RouterCommand
P = "default/flights"


def terms(log):
    instance = log.state.instances[(P, "src", 0)]
    return instance.term, [row.term for row in log.state.partitions_of(P)]


def test_a_registration_replaces_the_service_list(log, make_offer):
    """What the sidecar no longer names is gone, in the same step."""
    log.sidecar("a", make_offer("one", "127.0.0.1:1"), make_offer("two", "127.0.0.1:2"))
    log.sidecar("a", make_offer("two", "127.0.0.1:2"), make_offer("three", "127.0.0.1:3"))
    assert sorted(log.state.services) == ["three", "two"]
    assert log.state.sidecars["a"].service_ids == ("three", "two")
    assert sorted(log.state.service_locations) == ["a.pod:2", "a.pod:3"]
    assert log.state.services["two"].sidecar_id == "a"


def test_the_first_registration_of_an_endpoint_wins(log, make_offer):
    """The second sidecar is told which service it did not get, and who has it."""
    log.sidecar("a", make_offer("a-s", "10.0.0.1:50051"))
    outcome = log.sidecar(
        "b", make_offer("b-s", "10.0.0.1:50051"), make_offer("b-t", "127.0.0.1:1")
    )
    assert [(one.position, one.item, one.code, one.holder) for one in outcome.refused] == [
        (0, "b-s", RefusalCode.TAKEN, "a")
    ]
    assert log.state.sidecars["b"].service_ids == ("b-t",)
    # The same sidecar may register again, and who goes silent loses its claim.
    assert not log.sidecar("a", make_offer("a-s", "10.0.0.1:50051")).refused
    log(C.UpdateSidecarHealth(sidecar_id="a", health="Unhealthy", reason="silent"))
    assert not log.sidecar("b", make_offer("b-s", "10.0.0.1:50051")).refused


def test_loopback_means_the_sidecars_own_machine():
    """The same port in two pods is two services; on one machine it is one."""
    assert location_of("127.0.0.1:5", "10.1.1.1:9091") == "10.1.1.1:5"
    assert location_of("localhost:5", "10.1.1.2:9091") == "10.1.1.2:5"
    assert location_of("127.0.0.1:5", "127.0.0.1:9091") == location_of(
        "localhost:5", "127.0.0.1:9092"
    )
    assert location_of("10.9.9.9:5", "10.1.1.1:9091") == "10.9.9.9:5"
    assert location_of("[::1]:5", "[2001:db8::1]:9091") == "[2001:db8::1]:5"


def test_a_new_boot_raises_the_terms_and_keeps_the_owner(log, make_offer):
    """What the dead process still has on the way is fenced; nothing moves."""
    log.running()
    assert terms(log) == (1, [1, 1])
    log.sidecar("a", make_offer("a-src"))
    assert terms(log) == (1, [1, 1])
    log.sidecar("a", make_offer("a-src"), boot="b2")
    assert terms(log) == (2, [2, 2])
    assert log.state.instances[(P, "src", 0)].boot_id == "b2"
    assert {row.boot_id for row in log.state.partitions_of(P)} == {"b2"}


def test_a_replaced_boot_does_not_come_back(log, make_offer):
    """Two processes with one id: the newer keeps it until its lease ends, the older is told."""
    log.sidecar("a", make_offer("a-src"))
    log.sidecar("a", make_offer("a-src"), boot="b2")
    with pytest.raises(CommandRejected, match="another process has registered") as caught:
        log.sidecar("a", make_offer("a-src"))
    assert caught.value.code == "outdated"
    assert log.state.sidecars["a"].boot_id == "b2"
    log(C.UpdateSidecarHealth(sidecar_id="a", health="Unhealthy", reason="silent"))
    log.sidecar("a", make_offer("a-src"))
    assert log.state.sidecars["a"].boot_id == "b1"
    assert log.state.sidecars["a"].replaced_boots == ("b2",)


def test_replaced_boots_are_bounded(log, make_offer):
    """A sidecar that starts again all day does not fill the state."""
    for number in range(50):
        log.sidecar("a", make_offer("a-src"), boot=f"b{number}")
    assert log.state.sidecars["a"].replaced_boots == tuple(f"b{n}" for n in range(41, 49))


@pytest.mark.parametrize(
    "end",
    [
        lambda log: C.DeregisterSidecar(sidecar_id="a", boot_id="b1"),
        lambda log: C.ExpireSidecars(
            sidecars=({"id": "a", "registered_revision": 1, "reason": "silent"},)
        ),
    ],
    ids=["its word", "its lease"],
)
def test_a_sidecar_that_ends_takes_everything_with_it(log, end):
    """Services, locations and instances go in one step; partitions wait, with their last term."""
    log.running()
    before = log.state.revision
    log(end(log))
    state = log.state
    reasons = {one.key: one.reason for one in state.changes_since(before) if one.dropped}
    assert reasons["a"] in ("silent", "it deregistered")
    assert reasons["a-src"] == f"sidecar a: {reasons['a']}"
    assert not (state.sidecars or state.services or state.service_locations or state.instances)
    assert [(row.owned, row.term, row.number) for row in state.partitions_of(P)] == [
        (False, 1, 0),
        (False, 1, 1),
    ]


def test_an_older_boot_or_registration_ends_nothing(log, make_offer):
    """What was decided about the past does not harm the present."""
    log.running()
    log.sidecar("a", make_offer("a-src"), boot="b2")
    with pytest.raises(CommandRejected, match="has started again as 'b2'"):
        log(C.DeregisterSidecar(sidecar_id="a", boot_id="b1"))
    outcome = log(C.ExpireSidecars(sidecars=({"id": "a", "registered_revision": 1},)))
    assert outcome.refused[0].code is RefusalCode.OUTDATED
    with pytest.raises(CommandRejected, match="has registered again since"):
        log(C.UpdateSidecarHealth(sidecar_id="a", health="Unhealthy", registered_revision=1))
    assert "a" in log.state.sidecars
    assert not log(C.DeregisterSidecar(sidecar_id="nobody")).changed


def test_services_fall_ill_and_recover_with_their_sidecar(log, make_offer):
    """A service that was ill by itself stays ill when its sidecar is heard of again."""
    log.sidecar("a", make_offer("well", "a:1"), make_offer("ill", "a:2"))
    log(C.UpdateSidecarHealth(sidecar_id="a", health="Unhealthy", reason="silent"))
    well = log.state.services["well"]
    assert (well.health, well.health_reason) == (ServiceHealth.UNHEALTHY, "sidecar a: silent")
    log(C.UpdateServiceHealth(service_id="ill", health="Unhealthy", reason="refuses calls"))
    log(C.UpdateSidecarHealth(sidecar_id="a", health="Healthy", reason="heard of again"))
    assert log.state.services["well"].health is ServiceHealth.HEALTHY
    assert log.state.services["ill"].health is ServiceHealth.UNHEALTHY


def test_draining_lasts_for_the_boot(log, make_offer):
    """A rescan does not end a drain; a new process does."""
    log.sidecar("a", make_offer("s"))
    log(C.DrainSidecar(sidecar_id="a", reason="going"))
    log.sidecar("a", make_offer("s"))
    assert log.state.sidecars["a"].draining
    log.sidecar("a", make_offer("s"), boot="b2")
    assert not log.state.sidecars["a"].draining
    with pytest.raises(CommandRejected, match="no sidecar 'x'"):
        log(C.DrainSidecar(sidecar_id="x"))


def test_a_service_id_is_given_once(log, make_offer):
    """Two services of one id would be one; the registration is refused as a whole."""
    with pytest.raises(CommandRejected, match="twice"):
        log.sidecar("a", make_offer("s", "a:1"), make_offer("s", "a:2"))
    assert not log.state.sidecars


def test_registering_again_unchanged_moves_no_revision(log, make_offer):
    """A rescan that found nothing new costs nobody a new table; an old expiry still misses."""
    log.sidecar("a", make_offer("s"))
    log.now_ms = 9_000
    assert not log.sidecar("a", make_offer("s")).changed
    assert log.state.table_revision == 1
    record = log.state.sidecars["a"]
    assert (record.registered_revision, record.last_heartbeat_ms) == (2, 9_000)
    outcome = log(C.ExpireSidecars(sidecars=({"id": "a", "registered_revision": 1},)))
    assert outcome.refused[0].code is RefusalCode.OUTDATED
    assert log.sidecar("a", make_offer("s", labels={"new": "1"})).changed
