"""Answers of services against the contract: what breaks it is refused with a sentence."""

from __future__ import annotations

import pytest

from conveyor_sdk.carrier import split_read_response
from conveyor_sdk.wire import record_pb2, sink_pb2, source_pb2, transform_pb2
from conveyor_sidecar.core.events import FailureKind, Oversize
from conveyor_sidecar.errors import ProtocolError
from conveyor_sidecar.routing.service_answers import (
    sink_answer,
    source_position,
    tombstones,
    transform_answer,
)

RECORD = record_pb2.Record(payload=b"x")


def transformed(**fields: object) -> bytes:
    return transform_pb2.TransformResponse(**fields).SerializeToString()


def test_a_good_answer_is_taken_apart() -> None:
    """Outputs keep their bytes, failures their kind, reason and pause."""
    failure = record_pb2.Failure(index=1, kind=record_pb2.FAILURE_KIND_BUSY, reason="full")
    failure.retry_after.FromMilliseconds(70)
    answer, failures = transform_answer(
        transformed(records=[RECORD, RECORD], parents=[0, 2], failures=[failure]), 3
    )
    assert list(answer.parents) == [0, 2]
    (failed,) = failures
    assert (failed.index, failed.kind, failed.reason) == (1, FailureKind.BUSY, "full")
    assert failed.retry_after_ms == 70


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"records": [RECORD]}, "1 records came with 0 parents"),
        ({"records": [RECORD], "parents": [3]}, "names input 3; the call had 3"),
        ({"records": [RECORD], "parents": [0], "routes": ["a", "b"]}, "2 routes"),
        ({"failures": [record_pb2.Failure(index=9)]}, "names record 9"),
        (
            {
                "records": [RECORD],
                "parents": [1],
                "failures": [record_pb2.Failure(index=1)],
            },
            "input 1 has an output and a failure",
        ),
    ],
)
def test_a_transform_that_breaks_the_contract(fields: dict[str, object], reason: str) -> None:
    """Nothing of such an answer is used."""
    with pytest.raises(ProtocolError, match=reason):
        transform_answer(transformed(**fields), 3)


def test_an_unspecified_failure_means_retry_and_texts_are_bounded() -> None:
    """Services may say little, or far too much."""
    failures = [
        record_pb2.Failure(index=0, detail="d" * 100_000),
        record_pb2.Failure(index=0, reason="again"),
    ]
    (failed,) = sink_answer(sink_pb2.SinkResponse(failures=failures).SerializeToString(), 1)
    assert failed.kind is FailureKind.RETRY
    assert failed.reason == "the service gave no reason"
    assert len(failed.detail) == 8192
    with pytest.raises(ProtocolError, match="SinkResponse"):
        sink_answer(b"\xff", 1)


def batch(**fields: object):
    response = source_pb2.ReadResponse(batch=source_pb2.SourceBatch(partition="a", **fields))
    found = split_read_response(response.SerializeToString()).batch
    assert found is not None
    return found


def test_the_position_of_a_batch_is_that_of_its_last_record_or_tombstone() -> None:
    """Reading resumes after everything that the batch named."""
    large = source_pb2.Oversize(before=2, position=b"3", size=10, sha256=b"s" * 32)
    records = {"records": [RECORD, RECORD], "positions": [b"1", b"2"]}
    assert source_position(batch(**records), stable=False) == b"2"
    assert source_position(batch(**records, oversize=[large]), stable=False) == b"3"
    early = source_pb2.Oversize(before=0, position=b"0", size=10)
    assert source_position(batch(**records, oversize=[early]), stable=False) == b"2"


def test_stable_offsets_resume_at_the_next_offset() -> None:
    """Eight bytes, big-endian, one after the highest, tombstones included."""
    large = source_pb2.Oversize(before=1, offset=12, size=10)
    found = batch(records=[RECORD], offsets=[9], oversize=[large])
    assert source_position(found, stable=True) == (13).to_bytes(8, "big")
    assert tombstones(found, stable=True) == ((Oversize(1, 10, b""),), (12,))


@pytest.mark.parametrize(
    ("fields", "stable", "reason"),
    [
        ({"records": [RECORD], "positions": []}, False, "1 records came with 0 positions"),
        ({"records": [RECORD], "positions": [b""]}, False, "position has 0 bytes"),
        ({"records": [RECORD], "positions": [b"x" * 1025]}, False, "1025 bytes"),
        ({"records": [RECORD], "offsets": [1]}, False, "does not declare stable_offsets"),
        ({"records": [RECORD], "positions": [b"1"]}, True, "1 records came with 0 offsets"),
        (
            {
                "records": [RECORD],
                "positions": [b"1"],
                "oversize": [source_pb2.Oversize(before=5, position=b"1")],
            },
            False,
            "beyond the end",
        ),
    ],
)
def test_positions_that_break_the_contract(
    fields: dict[str, object], stable: bool, reason: str
) -> None:
    """A position that cannot be relied on is never committed."""
    with pytest.raises(ProtocolError, match=reason):
        source_position(batch(**fields), stable=stable)
