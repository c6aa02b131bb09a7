"""Frames against a model: lists of records and their facts, parsed by protobuf."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor_sdk.carrier import (
    Frame,
    MalformedFrame,
    Origin,
    derive,
    from_records,
    lane_message,
    lineage,
    merge_frames,
    mix,
    output_paths,
    record_field,
)
from conveyor_sdk.carrier.columns import read_u32, varint, write_u32, write_u64
from conveyor_sdk.wire import closed_pb2, frame_pb2, record_pb2

U64 = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    lambda payload, key, kind: record_pb2.Record(payload=payload, key=key, type=kind),
    st.sampled_from([b"", b"x", b"y" * 100, b"z" * 130, b"w" * 300]),
    st.binary(max_size=2),
    st.sampled_from(["", "order", "é"]),
)
ORIGINS = st.builds(
    Origin,
    st.sampled_from(["p", "q"]),
    st.sampled_from(["s", "t"]),
    st.sampled_from(["0", "01", "ü"]),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
)
ROWS = st.lists(st.tuples(RECORDS, ORIGINS, U64, U64, U64), max_size=8)


def frame_of(rows, *, keyed=True):
    """Build a frame row by row, without the shortcuts of the constructors under test."""
    fields = [record_field(row[0].SerializeToString()) for row in rows]
    origins = list(dict.fromkeys(row[1] for row in rows))
    return Frame(
        count=len(rows),
        lengths_column=write_u32(map(len, fields)),
        origin_indexes_column=write_u32(origins.index(row[1]) for row in rows),
        offsets_column=write_u64(row[2] for row in rows),
        paths_column=write_u64(row[3] for row in rows),
        key_hashes_column=write_u64(row[4] for row in rows) if keyed else b"",
        origins=tuple(origins),
        body=b"".join(fields),
    )


def rows_of(frame):
    """Read a frame back through protobuf's own parser."""
    records = closed_pb2.RecordRun.FromString(frame.body).records
    hashes = frame.key_hashes
    return [
        (
            records[i],
            frame.origins[frame.origin_indexes[i]],
            frame.offsets[i],
            frame.paths[i],
            hashes[i] if hashes is not None else 0,
        )
        for i in range(frame.count)
    ]


@given(ROWS)
def test_a_frame_comes_back_from_the_wire_as_it_was(rows):
    """decode(encode(frame)) == frame, header included."""
    frame = replace(frame_of(rows).on_lane(3, 7, 9), attempt=2, traceparent="00-a-b-01")
    assert Frame.from_wire(frame.to_wire()) == frame
    assert rows_of(frame) == rows


@given(ROWS, st.data())
def test_selecting_is_selecting_rows(rows, data):
    """select(indices) holds exactly the rows at indices."""
    indices = sorted(data.draw(st.sets(st.integers(0, max(0, len(rows) - 1))))) if rows else []
    selected = frame_of(rows).select(indices)
    assert rows_of(selected) == [rows[i] for i in indices]
    assert Frame.from_wire(selected.to_wire()) == selected


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_merging_is_concatenating_rows(parts):
    """merge(frames) holds the rows of all, in order, whatever origins they share."""
    merged = merge_frames([frame_of(part) for part in parts])
    assert rows_of(merged) == [row for part in parts for row in part]
    assert len(set(merged.origins)) == len(merged.origins)


@given(ROWS, st.integers(1, 5), st.integers(1, 600))
def test_splitting_keeps_all_rows_within_the_limits(rows, records_max, bytes_max):
    """The parts' rows are the frame's; each part is within the limits or one record."""
    frame = frame_of(rows)
    parts = frame.split(records_max, bytes_max)
    assert [row for part in parts for row in rows_of(part)] == rows
    for part in parts:
        assert part.count <= records_max
        assert len(part.body) <= bytes_max or part.count == 1
        assert part.count or not rows


@given(ROWS, ROWS)
def test_a_frame_from_a_source_equals_the_same_rows_spelt_out(rows, more):
    """Empty columns mean zero: they compare, merge and select like columns of zeros."""
    origin = Origin("p", "s", "0")
    plain = [(row[0], origin, row[2], 0, 0) for row in rows]
    fields = [record_field(row[0].SerializeToString()) for row in rows]
    frame = from_records(
        b"".join(fields), write_u32(map(len, fields)), origin, [row[2] for row in rows]
    )
    assert rows_of(frame) == plain
    assert rows_of(frame.select(range(0, len(rows), 2))) == plain[::2]
    unkeyed = [(*row[:4], 0) for row in more]
    assert rows_of(merge_frames([frame, frame_of(more, keyed=False)])) == plain + unkeyed


@given(ROWS.filter(bool), st.data())
def test_outputs_inherit_the_origin_of_their_parents(rows, data):
    """derive: output i has its parent's origin and offset, and the path mixed from its ordinal."""
    frame = frame_of(rows)
    parents = sorted(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)))
    fields = [record_field(bytes([0x0A, 1, i])) for i in range(len(parents))]
    paths = output_paths(parents, frame.paths, "stage")
    outputs = derive(frame, b"".join(fields), write_u32(map(len, fields)), parents, paths)
    for i, parent in enumerate(parents):
        ordinal = parents[:i].count(parent)
        _, origin, offset, path, _ = rows_of(outputs)[i]
        assert (origin, offset) == (rows[parent][1], rows[parent][2])
        assert path == mix(rows[parent][3], "stage", ordinal)


@given(ROWS)
def test_lineage_of_a_frame_is_that_of_each_record(rows):
    """The batched digest equals the single one, with and without an origin column."""
    frame = frame_of(rows)
    whole = frame.lineage()
    singles = [lineage(row[1], row[2], row[3]) for row in rows]
    assert [whole[i : i + 16] for i in range(0, len(whole), 16)] == singles


def test_lineage_and_paths_are_the_same_in_every_process():
    """Golden values: identity must survive restarts and releases."""
    origin = Origin("flights", "flights", "01", 0, 0)
    assert origin.encode().hex() == "0a07666c69676874731207666c69676874731a023031"
    assert lineage(origin, 7, 0).hex() == "d8b3b8a6d939f4fb4a0cc1c173a3971a"
    assert mix(0, "enrich", 0) == 2558397438710738522
    assert mix(2558397438710738522, "enrich", 1) == 14430473293382243595


@settings(max_examples=100)
@given(ROWS, st.binary(max_size=40), st.integers(0, 400))
def test_bytes_that_are_no_frame_are_refused(rows, noise, place):
    """Whatever is broken in, the answer is a frame that fits together or MalformedFrame."""
    data = frame_of(rows).to_wire()
    broken = data[:place] + noise + data[place + len(noise) :]
    try:
        frame = Frame.from_wire(broken)
    except MalformedFrame:
        return
    assert sum(frame.lengths) == len(frame.body)
    assert len(frame.offsets) == len(frame.paths) == len(frame.origin_indexes) == frame.count


def test_what_is_wrong_is_named():
    """The error says which column and by how much."""
    record = record_field(b"\x0a\x01x")
    good = from_records(record, write_u32([len(record)]), Origin("p", "s", "0"), [1])
    with pytest.raises(MalformedFrame, match="offsets has 16 bytes; 1 records need 8"):
        Frame.from_wire(replace(good, offsets_column=bytes(16)).to_wire())
    with pytest.raises(MalformedFrame, match="add up to 5, the body has 6"):
        Frame.from_wire(replace(good, body=good.body + b"x").to_wire())
    with pytest.raises(MalformedFrame, match="names origin 0; the frame has 0"):
        Frame.from_wire(replace(good, origins=()).to_wire())
    with pytest.raises(MalformedFrame, match="lengths has 0 bytes"):
        Frame.from_wire(replace(good, lengths_column=b"").to_wire())
    with pytest.raises(MalformedFrame, match="cannot be parsed"):
        Frame.from_wire(b"\xff\xff")
    with pytest.raises(MalformedFrame, match="origin of 2 bytes"):
        Origin.decode(b"\xff\xff")
    with pytest.raises(ValueError, match="at least one frame"):
        merge_frames([])


def test_a_lane_message_carries_control_and_frames_in_one():
    """Spliced bytes parse as the message that protobuf would have built."""
    record = record_field(b"\x0a\x01x")
    frame = from_records(record, write_u32([5]), Origin("p", "s", "0"), [1]).on_lane(1, 2, 3)
    control = frame_pb2.LaneMessage(done=[frame_pb2.Done(lane=4, low=9)])
    message = frame_pb2.LaneMessage.FromString(lane_message(control, [frame, frame]))
    assert [Frame.from_wire(data) for data in message.data] == [frame, frame]
    assert message.done[0].low == 9


def test_columns_are_little_endian_and_varints_are_protobufs():
    """The bytes on the wire do not depend on the host."""
    assert write_u32([1]) == b"\x01\x00\x00\x00"
    assert write_u64([256]) == b"\x00\x01\x00\x00\x00\x00\x00\x00"
    assert list(read_u32(b"\x00\x01\x00\x00")) == [256]
    assert varint(300) == b"\xac\x02"


def test_a_big_endian_host_swaps(monkeypatch):
    """What a big-endian host would do, seen from this one: every column is swapped twice."""
    import conveyor_sdk.carrier.columns as module

    monkeypatch.setattr(module, "_LITTLE", not module._LITTLE)
    column = module.write_u64([1, 2**40])
    assert column == b"".join(n.to_bytes(8, "big") for n in (1, 2**40))
    assert list(module.read_u64(column)) == [1, 2**40]


def test_key_hashes_are_stable():
    """Keyed edges route the same key to the same place in every process."""
    from conveyor_sdk.carrier import key_hash

    assert key_hash(b"user-1") == 12588246667491585033
    assert 0 <= key_hash(b"") < 2**64
