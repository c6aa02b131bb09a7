"""Where a record comes from, in a form that two processes compute alike.

A record that leaves a source has an *origin*: pipeline, source stage, partition, replay id,
assignment term (0 where the source promises stable offsets, so that identity survives a take-over)
and an offset. All but the offset change rarely, so a frame names them once (`Origin`) and keeps one
offset per record. What transforms make of the record is told apart by its *path*: 0 at the source,
and for the output number `ordinal` that `stage` makes of a parent `mix(parent's path, stage,
ordinal)`. Origin, offset and path together are the identity by which repeated deliveries are
recognised; the *lineage* that services see is its 128-bit BLAKE2b digest. Equal inputs and a
transform that repeats its outputs in the same order give equal lineage, on every host, in every
process, after every restart.

Paths are 64-bit digests. Two outputs of one and the same source record would have to collide to be
confused; with a million outputs of one record the chance is 3e-8.

Measured on one 2.x GHz core: a frame's 500 lineages take about 200 µs; a stage that gives one
output per input computes one path for all of them and takes it from a cache afterwards.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from google.protobuf.message import DecodeError

from conveyor_sdk.carrier.errors import MalformedFrame
from conveyor_sdk.wire import frame_pb2

LINEAGE_BYTES = 16
"""Length of one lineage."""

_LINEAGE = b"conveyor-lineage"
_PATH = b"conveyor-path"
_KEY = b"conveyor-key"
_PAIR = struct.Struct("<QQ")
_OUTPUT = struct.Struct("<QI")


@dataclass(frozen=True, slots=True)
class Origin:
    """All of a record's origin but its offset.

    Attributes:
        pipeline: Name of the pipeline.
        stage: Id of the source stage.
        partition: The source's name for the partition.
        replay_id: 0 for live records; each replay, redrive or backfill has its own.
        term: Assignment term of the partition; 0 with stable offsets.
    """

    pipeline: str
    stage: str
    partition: str
    replay_id: int = 0
    term: int = 0

    def encode(self) -> bytes:
        """Return the bytes that stand for this origin in frames; equal origins have equal bytes."""
        return _encode_origin(self)

    @staticmethod
    def decode(data: bytes) -> Origin:
        """Return the origin that `data` stands for.

        Raises:
            MalformedFrame: `data` is not an origin.
        """
        return _decode_origin(data)


@lru_cache(maxsize=4096)
def _encode_origin(origin: Origin) -> bytes:
    message = frame_pb2.Origin(
        pipeline=origin.pipeline,
        stage=origin.stage,
        partition=origin.partition,
        replay_id=origin.replay_id,
        term=origin.term,
    )
    return message.SerializeToString(deterministic=True)


@lru_cache(maxsize=4096)
def _decode_origin(data: bytes) -> Origin:
    try:
        message = frame_pb2.Origin.FromString(data)
    except DecodeError as error:
        raise MalformedFrame(f"an origin of {len(data)} bytes cannot be parsed") from error
    return Origin(
        message.pipeline, message.stage, message.partition, message.replay_id, message.term
    )


@lru_cache(maxsize=65536)
def mix(path: int, stage: str, ordinal: int) -> int:
    """Return the path of output `ordinal` that `stage` makes of a parent with `path`; never 0."""
    digest = blake2b(
        _OUTPUT.pack(path, ordinal) + stage.encode(), digest_size=8, person=_PATH
    ).digest()
    return int.from_bytes(digest, "little") or 1


def key_hash(key: bytes) -> int:
    """Return the 64-bit hash by which a keyed edge routes and orders `key`."""
    return int.from_bytes(blake2b(key, digest_size=8, person=_KEY).digest(), "little")


def lineage(origin: Origin, offset: int, path: int) -> bytes:
    """Return the 16 bytes that identify one record; see `lineages` for a frame's worth."""
    digest = blake2b(origin.encode(), digest_size=LINEAGE_BYTES, person=_LINEAGE)
    digest.update(_PAIR.pack(offset, path))
    return digest.digest()


def lineages(
    origins: Sequence[Origin],
    origin_indexes: Sequence[int] | None,
    offsets: Sequence[int],
    paths: Sequence[int],
) -> bytes:
    """Return the lineage of each record, joined.

    Args:
        origins: The origins that occur.
        origin_indexes: For each record its index in `origins`; None if all are of `origins[0]`.
        offsets: For each record its offset.
        paths: For each record its path.
    """
    seeds = [
        blake2b(origin.encode(), digest_size=LINEAGE_BYTES, person=_LINEAGE) for origin in origins
    ]
    pack = _PAIR.pack
    digests: list[bytes] = []
    append = digests.append
    if origin_indexes is None:
        copy = seeds[0].copy if seeds else None
        for offset, path in zip(offsets, paths, strict=True):
            assert copy is not None
            digest = copy()
            digest.update(pack(offset, path))
            append(digest.digest())
    else:
        for index, offset, path in zip(origin_indexes, offsets, paths, strict=True):
            digest = seeds[index].copy()
            digest.update(pack(offset, path))
            append(digest.digest())
    return b"".join(digests)


def output_paths(parents: Sequence[int], parent_paths: Sequence[int], stage: str) -> array[int]:
    """Return the path of each output of `stage`.

    Args:
        parents: For each output the index of the input that it comes from.
        parent_paths: The paths of the inputs.
        stage: Id of the stage.
    """
    if len(set(parents)) == len(parents):
        first = {path: mix(path, stage, 0) for path in set(parent_paths)}
        return array("Q", [first[parent_paths[parent]] for parent in parents])
    seen: dict[int, int] = {}
    paths = array("Q")
    for parent in parents:
        ordinal = seen.get(parent, 0)
        seen[parent] = ordinal + 1
        paths.append(mix(parent_paths[parent], stage, ordinal))
    return paths
