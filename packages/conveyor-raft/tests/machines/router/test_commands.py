"""Commands: canonical, versioned, bounded, and reachable by their specified names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from conveyor_raft.machines.router import (
    Expiry,
    LeaseRenewal,
    MemberPartitions,
    PartitionSlot,
    PipelinePhase,
    PositionCommit,
    RouterCommand,
    ServiceHealth,
    ServiceOffer,
    ServiceType,
    StageSlot,
    UnknownCommand,
)
from conveyor_raft.machines.router.commands import VARIANTS, Batch

C = RouterCommand
GOLDEN = Path(__file__).parent / "golden" / "commands-0.1.0.jsonl"

OFFER = ServiceOffer(
    service_id="pod-a/50051/flights",
    service_name="flights",
    service_type=ServiceType.SOURCE,
    endpoint="127.0.0.1:50051",
    labels={"team": "data"},
    partitions=("1", "2"),
    stable_offsets=True,
    bounded=True,
)
PUT = {"document": b'{"kind":"Sink"}', "digest": "0f"}
PIPELINE = {"pipeline_id": "default/flights", "manifest": b"{}", "digest": "0f"}
EXAMPLES = (
    C.Noop(),
    C.RegisterService(service_id="service-123", service_type="Sink", endpoint="10.0.0.1:50051"),
    C.DeregisterService(service_id="service-123"),
    C.UpdateServiceHealth(service_id="s", health=ServiceHealth.DEGRADED, reason="slow"),
    C.RegisterSidecar(
        sidecar_id="pod-a", endpoint="10.0.0.1:9091", boot_id="b-1", services=(OFFER,)
    ),
    C.DeregisterSidecar(sidecar_id="pod-a", boot_id="b-1"),
    C.DrainSidecar(sidecar_id="pod-a", reason="node is going away"),
    C.UpdateSidecarHealth(sidecar_id="pod-a", health=ServiceHealth.UNHEALTHY, reason="silent"),
    C.RenewLeases(services=(LeaseRenewal(id="s", at_ms=5),), sidecars=()),
    C.ExpireServices(services=(Expiry(id="s", registered_revision=3, reason="silent"),)),
    C.ExpireSidecars(sidecars=(Expiry(id="pod-a", registered_revision=3, reason="silent"),)),
    C.PutManifest(document_kind="Sink", name="warehouse", **PUT),
    C.DeleteManifest(document_kind="Sink", name="warehouse"),
    C.CreatePipeline(**PIPELINE),
    C.UpdatePipeline(**PIPELINE, expected_version=2),
    C.DeletePipeline(pipeline_id="default/flights"),
    C.PurgePipeline(pipeline_id="default/flights"),
    C.EnablePipeline(pipeline_id="default/flights"),
    C.DisablePipeline(pipeline_id="default/flights"),
    C.SetPipelinePhase(pipeline_id="p", phase=PipelinePhase.PENDING, reason="no sink"),
    C.AssignPipeline(
        pipeline_id="p", sidecar_id="pod-a", stages=(StageSlot(stage="src", service_id="s"),)
    ),
    C.RevokePipeline(pipeline_id="p", sidecar_id="pod-a"),
    C.AssignSourcePartitions(
        pipeline_id="p", stage="src", partitions=(PartitionSlot(partition="é/1", index=0),)
    ),
    C.CommitPositions(
        commits=(
            PositionCommit(
                pipeline_id="p", stage="s", partition="1", term=2, ordinal=7, position=b"\xff\x00"
            ),
        )
    ),
    C.JoinGroup(group_id="g", member_id="m", service_name="kafka-source", topics=("topic-1",)),
    C.LeaveGroup(group_id="g", member_id="m"),
    C.AssignPartitions(
        group_id="g", generation=1, assignments=(MemberPartitions(member_id="m", partitions=(0,)),)
    ),
    C.CommitGroupOffset(group_id="g", member_id="m", generation=1, partition=0, offset=9),
    C.Batch(commands=(C.Noop(), C.DeregisterService(service_id="s"))),
)


def test_every_variant_has_an_example():
    """The examples below stand for the whole vocabulary."""
    assert {type(one) for one in EXAMPLES} == set(VARIANTS)


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda one: one.kind)
def test_bytes_come_back_as_the_same_command(command):
    """Decoding is the inverse of encoding, and encoding is canonical."""
    data = command.encode()
    again = RouterCommand.decode(data)
    assert again == command
    assert type(again) is type(command)
    assert again.encode() == data
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")) == json.dumps(
        json.loads(data), separators=(",", ":")
    )


def test_golden_bytes():
    """A log written by 0.1.0 is read, and written again, byte for byte by this release."""
    lines = GOLDEN.read_bytes().splitlines()
    assert [RouterCommand.decode(line) for line in lines] == list(EXAMPLES)
    assert [one.encode() for one in EXAMPLES] == lines


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one.__name__)
def test_variants_are_class_attributes(variant):
    """`RouterCommand.X` is the class X, as the specification writes it."""
    assert getattr(RouterCommand, variant.__name__) is variant


def test_long_names_of_assignment():
    """The long names of the reference are the same commands."""
    assert C.AssignPipelineToSidecar is C.AssignPipeline
    assert C.RevokePipelineFromSidecar is C.RevokePipeline


def test_service_name_defaults_to_the_id():
    """The specification's short registration needs no name."""
    command = C.RegisterService(service_id="service-123", service_type="Source", endpoint="a:1")
    assert command.service_name == "service-123"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an envelope"),
        (b"\xff\xfe", "not an envelope"),
        (b"[1]", "not an envelope"),
        (b'{"version":2,"command":{"kind":"noop"}}', "version 2, this release knows 1"),
        (b'{"version":1,"command":{"kind":"teleport"}}', "cannot read the command 'teleport'"),
        (b'{"version":1,"command":{"kind":"noop","x":1}}', "cannot read the command 'noop'"),
        (b'{"version":1,"command":{}}', "not an envelope"),
    ],
)
def test_unknown_bytes_raise(data, words):
    """What this release cannot read is named and never skipped."""
    with pytest.raises(UnknownCommand, match=words):
        RouterCommand.decode(data)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: C.DeregisterService(service_id=""),
        lambda: C.DeregisterService(service_id="a b"),
        lambda: C.DeregisterService(service_id="x" * 192),
        lambda: C.RegisterService(
            service_id="s", service_type="Source", endpoint="a:1", lease_ms=999
        ),
        lambda: C.RegisterService(service_id="s", service_type="Cook", endpoint="a:1"),
        lambda: C.RegisterService(service_id="s", service_type="Source", endpoint="nowhere"),
        lambda: C.RegisterSidecar(sidecar_id="s", endpoint="http://a:1", boot_id="b"),
        lambda: C.RegisterSidecar(sidecar_id="s", endpoint="[::1:9091", boot_id="b"),
        lambda: C.CreatePipeline(pipeline_id="p", manifest=b"x" * (256 * 1024 + 1), digest="d"),
        lambda: PositionCommit(
            pipeline_id="p", stage="s", partition="1", term=1, ordinal=1, position=b"x" * 1_025
        ),
        lambda: Batch(commands=(Batch(commands=()),)),
        lambda: C.DeregisterService(service_id="s", surprise=True),
    ],
)
def test_bounds_are_kept_at_the_door(wrong):
    """What breaks a bound never becomes a command."""
    with pytest.raises(ValidationError):
        wrong()


@pytest.mark.parametrize("endpoint", ["10.0.0.1:50051", "pod-a.svc:9091", "[2001:db8::1]:9091"])
def test_endpoints_are_host_and_port(endpoint):
    """Names, IPv4 and bracketed IPv6."""
    C.RegisterSidecar(sidecar_id="s", endpoint=endpoint, boot_id="b")
