"""Which services run the instances of a stage."""

from __future__ import annotations

from conveyor_raft.machines.router import ServiceHealth, ServiceRecord, ServiceType
from conveyor_registry.core.matching import Candidate
from conveyor_registry.core.placement import place


def one(sidecar_id, service_id="", usable=True, health=ServiceHealth.HEALTHY):
    service_id = service_id or f"{sidecar_id}/s"
    return Candidate(
        sidecar_id=sidecar_id,
        service_id=service_id,
        endpoint="127.0.0.1:1",
        service=ServiceRecord(
            service_id=service_id,
            service_name="s",
            service_type=ServiceType.TRANSFORM,
            endpoint="127.0.0.1:1",
            sidecar_id=sidecar_id,
            health=health,
        ),
        usable=usable,
        obstacle="" if usable else "it is draining",
    )


def placed(current, candidates, wanted=None, load=None):
    chosen = place(current, candidates, wanted, load or {})
    return {index: candidate.key for index, candidate in chosen.items()}


A, B, C = ("a", "a/s"), ("b", "b/s"), ("c", "c/s")


def test_fewer_wanted_drops_the_highest():
    """And keeps the others where they are."""
    everybody = [one("a"), one("b"), one("c")]
    assert placed({0: B, 1: A, 2: C}, everybody, wanted=2) == {0: B, 1: A}


def test_a_service_runs_one_instance():
    """Also if it was recorded twice."""
    assert placed({0: A, 1: A}, [one("a"), one("b")]) == {0: A, 1: B}


def test_the_healthy_and_the_idle_come_first():
    """Degraded services only when they are needed; loaded sidecars after idle ones."""
    slow = one("a", health=ServiceHealth.DEGRADED)
    assert placed({}, [slow, one("b"), one("c")], wanted=2) == {0: B, 1: C}
    assert placed({}, [slow, one("b")], wanted=2) == {0: B, 1: A}
    assert placed({}, [one("a"), one("b")], wanted=1, load={"a": 3, "b": 1}) == {0: B}


def test_if_nobody_is_usable_what_there_is_stays():
    """What is gone altogether does not."""
    assert placed({0: A, 1: B}, [one("a", usable=False)]) == {0: A}
    assert placed({}, [one("a", usable=False)]) == {}
