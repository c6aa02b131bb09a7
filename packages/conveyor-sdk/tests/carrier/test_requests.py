"""Messages of services taken apart and put together, against protobuf's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conveyor_sdk.carrier import (
    MalformedMessage,
    check_body,
    encode_call,
    record_field,
    service_request,
    split_read_response,
    split_transform_response,
)
from conveyor_sdk.carrier.columns import read_u32
from conveyor_sdk.wire import (
    closed_pb2,
    record_pb2,
    sink_pb2,
    source_pb2,
    transform_pb2,
)

RECORDS = st.lists(
    st.builds(
        lambda payload, headers: record_pb2.Record(payload=payload, headers=headers),
        st.sampled_from([0, 1, 2, 120, 130, 16_380, 16_390]).map(lambda size: b"x" * size),
        st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    ),
    max_size=8,
)


def records_of(body, lengths):
    """Cut a body at its lengths and parse each part alone."""
    found, start = [], 0
    for length in read_u32(lengths):
        run = closed_pb2.RecordRun.FromString(body[start : start + length])
        found.extend(run.records)
        start += length
    assert start == len(body)
    return found


@given(RECORDS, st.lists(st.integers(0, 100), max_size=8), st.integers(0, 2**64 - 1))
def test_a_transforms_answer_is_taken_apart(records, parents, batch_id):
    """Every field arrives, and each length cuts out exactly one record."""
    failures = [record_pb2.Failure(index=1, reason="no")]
    message = transform_pb2.TransformResponse(
        records=records, parents=parents, routes=["a"], failures=failures, batch_id=batch_id
    )
    answer = split_transform_response(message.SerializeToString())
    assert records_of(answer.body, answer.lengths) == records
    assert list(answer.parents) == parents
    assert (list(answer.routes), list(answer.failures)) == (["a"], failures)
    assert answer.batch_id == batch_id


@given(RECORDS, RECORDS)
def test_fields_in_any_order_are_taken_apart(first, second):
    """Protobuf allows repeated fields to be scattered; the body is one run all the same."""
    scattered = b"".join(
        [
            transform_pb2.TransformResponse(batch_id=7, records=first).SerializeToString(),
            transform_pb2.TransformResponse(parents=[1, 2]).SerializeToString(),
            transform_pb2.TransformResponse(records=second).SerializeToString(),
        ]
    )
    answer = split_transform_response(scattered)
    assert records_of(answer.body, answer.lengths) == first + second
    assert (answer.batch_id, list(answer.parents)) == (7, [1, 2])


@given(RECORDS, st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_a_sources_batch_is_taken_apart(records, offsets):
    """Partition, offsets and tombstones arrive beside the records."""
    oversize = [source_pb2.Oversize(before=1, size=9)]
    batch = source_pb2.SourceBatch(
        partition="p", records=records, offsets=offsets, oversize=oversize
    )
    answer = split_read_response(source_pb2.ReadResponse(batch=batch).SerializeToString())
    assert answer.batch is not None
    assert records_of(answer.batch.body, answer.batch.lengths) == records
    assert (answer.batch.partition, list(answer.batch.offsets)) == ("p", offsets)
    assert list(answer.batch.oversize) == oversize


def test_a_sources_other_messages():
    """Each of the other answers comes through, and an empty one is none of them."""
    revoked = source_pb2.Revoked(partition="p", position=b"x")
    finished = source_pb2.Finished(partition="p")
    failure = source_pb2.SourceFailure(partition="p", reason="r")
    for name, part in (("revoked", revoked), ("finished", finished), ("failure", failure)):
        data = source_pb2.ReadResponse(**{name: part}).SerializeToString()
        answer = split_read_response(data)
        assert getattr(answer, name) == part
        assert answer.batch is None
    assert split_read_response(b"") == split_read_response(b"")
    assert split_read_response(b"").finished is None


@given(RECORDS, RECORDS, st.integers(0, 2**64 - 1))
def test_a_request_is_spliced(first, second, batch_id):
    """Prefix, bodies and tail parse as the request that protobuf would have built."""
    call = record_pb2.Call(service="s", pipeline="p", config={"a": "b"}, attempt=2)
    bodies = [
        b"".join(record_field(record.SerializeToString()) for record in part)
        for part in (first, second)
    ]
    lineage = bytes(16) * (len(first) + len(second))
    data = service_request(encode_call(call), bodies, lineage, batch_id)
    for kind in (transform_pb2.TransformRequest, sink_pb2.SinkRequest):
        request = kind.FromString(data)
        assert request.call == call
        assert list(request.records) == first + second
        assert (request.lineage, request.batch_id) == (lineage, batch_id)


def test_garbage_is_refused():
    """Bytes that are no message, and a record inside that is no record, are told apart by name."""
    with pytest.raises(MalformedMessage, match="TransformResponse"):
        split_transform_response(b"\xff")
    with pytest.raises(MalformedMessage, match="ReadResponse"):
        split_read_response(b"\xff")
    bad_text = record_field(b"\x1a\x01\xff")  # type = 0xff, which is not UTF-8
    with pytest.raises(MalformedMessage, match="parsed as a Record"):
        split_transform_response(bad_text)
    with pytest.raises(MalformedMessage, match="parsed as a Record"):
        check_body(bad_text)
    assert split_transform_response(bad_text, opened=False).body == bad_text
