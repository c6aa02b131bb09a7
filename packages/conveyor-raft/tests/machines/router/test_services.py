"""Services that register themselves."""

from __future__ import annotations

import pytest

from conveyor_raft.errors import CommandRejected
from conveyor_raft.machines.router import RefusalCode, RouterCommand, ServiceHealth

C = RouterCommand


def register(service_id="s", **more):
    return C.RegisterService(
        service_id=service_id, service_type="Source", endpoint="10.0.0.1:50051", **more
    )


def test_registering_again_keeps_the_first_time_and_renews_the_rest(log):
    """A service has one registration, begun when it first came."""
    log(register(labels={"b": "2", "a": "1"}))
    log(C.UpdateServiceHealth(service_id="s", health="Unhealthy", reason="silent"))
    log.now_ms = 9_000
    log(register(group_id="g"))
    record = log.state.services["s"]
    assert (record.registered_ms, record.last_heartbeat_ms) == (1_000, 9_000)
    assert record.health is ServiceHealth.HEALTHY
    assert (record.group_id, record.registered_revision) == ("g", 3)


def test_health_is_recorded_with_its_reason(log):
    """Who looks later finds out why."""
    log(register())
    log(C.UpdateServiceHealth(service_id="s", health="Degraded", reason="answers in 2 s"))
    record = log.state.services["s"]
    assert (record.health, record.health_reason) == (ServiceHealth.DEGRADED, "answers in 2 s")
    assert log.state.changes_since(1)[0].reason == "answers in 2 s"
    with pytest.raises(CommandRejected, match="no service 'x'"):
        log(C.UpdateServiceHealth(service_id="x", health="Degraded"))


def test_deregistering_is_idempotent(log):
    """Removing what is not there is no error and no change."""
    log(register())
    assert log(C.DeregisterService(service_id="s")).changed
    assert not log(C.DeregisterService(service_id="s")).changed


def test_an_expiry_ends_only_the_registration_it_was_decided_about(log):
    """A service that came back between the decision and the log keeps its registration."""
    log(register("stays"))
    log(register("goes"))
    old = log.state.services["stays"].registered_revision
    log(register("stays"))
    outcome = log(
        C.ExpireServices(
            services=(
                {"id": "stays", "registered_revision": old, "reason": "silent"},
                {"id": "goes", "registered_revision": 2, "reason": "silent"},
                {"id": "never", "registered_revision": 1},
            )
        )
    )
    assert set(log.state.services) == {"stays"}
    assert [(one.item, one.code) for one in outcome.refused] == [
        ("stays", RefusalCode.OUTDATED),
        ("never", RefusalCode.UNKNOWN),
    ]


def test_a_sidecars_service_is_the_sidecars(log, make_offer):
    """Nobody else registers, deregisters or expires what a sidecar brought."""
    log.sidecar("a", make_offer("s"))
    for command in (register("s"), C.DeregisterService(service_id="s")):
        with pytest.raises(CommandRejected) as caught:
            log(command)
        assert caught.value.code == "taken"
    outcome = log(C.ExpireServices(services=({"id": "s", "registered_revision": 1},)))
    assert outcome.refused[0].code is RefusalCode.INVALID
    assert "s" in log.state.services
