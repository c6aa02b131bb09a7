"""`RouterState`: everything that the routers agreed on, in dictionaries of frozen records.

What for: `apply` writes here, readers read here. One writer (the state machine, between two log
entries) and many readers on the same event loop, so a reader sees a consistent state for as long as
it does not await.

Rules kept: every change goes through `put` and `drop`, which keep three things in step: the
secondary indexes, an undo journal that makes a refused command leave no trace (`begin`,
`roll_back`), and a bounded history of changes by which watchers catch up (`changes_since`). Indexes
and history are derived and never part of a snapshot. A snapshot is canonical JSON with every table
sorted by key: two replicas with the same facts have the same bytes, however they came by them.

`revision` is the log index of the last entry that changed something; `table_revision` of the last
one that changed what sidecars' tables are made of (positions of running partitions and consumer
groups do not). Lease renewals move neither. The history leaves positions out.
"""

from __future__ import annotations

import bisect
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from conveyor_raft.machines.router.records import (
    GroupRecord,
    InstanceAssignment,
    LocationRecord,
    ManifestRecord,
    PartitionOwner,
    PipelineRecord,
    PositionRecord,
    Record,
    ServiceRecord,
    SidecarRecord,
    TermFloor,
)
from conveyor_raft.machines.router.unreadable import SnapshotRefused

SNAPSHOT_VERSION = 1
HISTORY_MAX = 4_096
"""Changes that are remembered; who knows an older revision lists everything again."""

ManifestKey = tuple[str, str, str]
"""Kind, namespace, name."""
InstanceKey = tuple[str, str, int]
"""Pipeline, stage, index."""
PartitionKey = tuple[str, str, str]
"""Pipeline, stage, partition."""
PositionKey = tuple[str, str, str, str]
"""Pipeline, stage, partition, replay id."""
Key = str | ManifestKey | InstanceKey | PositionKey

R = TypeVar("R", bound=Record)


class Table(StrEnum):
    """The tables of the state, by the names of its attributes."""

    SERVICES = "services"
    SIDECARS = "sidecars"
    LOCATIONS = "service_locations"
    MANIFESTS = "manifests"
    PIPELINES = "pipelines"
    INSTANCES = "instances"
    PARTITIONS = "partitions"
    POSITIONS = "positions"
    GROUPS = "groups"
    FLOORS = "floors"


_ROWS: dict[Table, type[Any]] = {
    Table.SERVICES: ServiceRecord,
    Table.SIDECARS: SidecarRecord,
    Table.LOCATIONS: LocationRecord,
    Table.MANIFESTS: ManifestRecord,
    Table.PIPELINES: PipelineRecord,
    Table.INSTANCES: InstanceAssignment,
    Table.PARTITIONS: PartitionOwner,
    Table.POSITIONS: PositionRecord,
    Table.GROUPS: GroupRecord,
    Table.FLOORS: TermFloor,
}
_TABLES: dict[type[Any], Table] = {row: table for table, row in _ROWS.items()}
_CODECS: dict[Table, TypeAdapter[Any]] = {
    table: TypeAdapter(tuple[row, ...])  # type: ignore[valid-type]
    for table, row in _ROWS.items()
}
_QUIET = frozenset({Table.POSITIONS, Table.GROUPS})
"""Tables that no sidecar's table is rebuilt for."""


def key_of(record: Record) -> Key:
    """The key of a record within its table."""
    match record:
        case ServiceRecord():
            return record.service_id
        case SidecarRecord():
            return record.sidecar_id
        case LocationRecord():
            return record.location
        case ManifestRecord():
            return (record.kind, record.namespace, record.name)
        case PipelineRecord():
            return record.pipeline_id
        case InstanceAssignment():
            return (record.pipeline_id, record.stage, record.index)
        case PartitionOwner():
            return (record.pipeline_id, record.stage, record.partition)
        case PositionRecord():
            return (record.pipeline_id, record.stage, record.partition, record.replay_id)
        case GroupRecord():
            return record.group_id
        case TermFloor():
            return ""


@dataclass(frozen=True, slots=True)
class Change:
    """One record was put (made or replaced) or dropped by the entry at `revision`."""

    revision: int
    timestamp_ms: int
    table: Table
    key: Key
    created: bool
    dropped: bool
    reason: str = ""


@dataclass(slots=True)
class _Undo:
    table: Table
    key: Key
    old: Record | None
    quiet: bool = False
    reason: str = ""


@dataclass(slots=True)
class RouterState:
    """The agreed facts; read the dictionaries, never write them."""

    services: dict[str, ServiceRecord] = field(default_factory=dict)
    sidecars: dict[str, SidecarRecord] = field(default_factory=dict)
    service_locations: dict[str, LocationRecord] = field(default_factory=dict)
    manifests: dict[ManifestKey, ManifestRecord] = field(default_factory=dict)
    pipelines: dict[str, PipelineRecord] = field(default_factory=dict)
    instances: dict[InstanceKey, InstanceAssignment] = field(default_factory=dict)
    partitions: dict[PartitionKey, PartitionOwner] = field(default_factory=dict)
    positions: dict[PositionKey, PositionRecord] = field(default_factory=dict)
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    floors: dict[str, TermFloor] = field(default_factory=dict)
    revision: int = 0
    table_revision: int = 0
    _journal: list[_Undo] = field(default_factory=list, repr=False)
    _history: deque[Change] = field(default_factory=deque, repr=False)
    _history_from: int = 0
    _pipeline_instances: dict[str, set[InstanceKey]] = field(
        default_factory=lambda: defaultdict(set), repr=False
    )
    _pipeline_partitions: dict[str, set[PartitionKey]] = field(
        default_factory=lambda: defaultdict(set), repr=False
    )
    _sidecar_instances: dict[str, set[InstanceKey]] = field(
        default_factory=lambda: defaultdict(set), repr=False
    )

    # Reading

    def instances_of(self, pipeline_id: str, stage: str | None = None) -> list[InstanceAssignment]:
        """The stage instances of a pipeline (or of one stage), by stage and index."""
        keys = sorted(self._pipeline_instances.get(pipeline_id, ()))
        return [self.instances[key] for key in keys if stage is None or key[1] == stage]

    def partitions_of(self, pipeline_id: str, stage: str | None = None) -> list[PartitionOwner]:
        """The source partitions of a pipeline (or of one stage), by stage and number."""
        keys = self._pipeline_partitions.get(pipeline_id, ())
        rows = [self.partitions[key] for key in keys if stage is None or key[1] == stage]
        return sorted(rows, key=lambda row: (row.stage, row.number))

    def instances_on(self, sidecar_id: str) -> list[InstanceAssignment]:
        """The stage instances that a sidecar runs."""
        return [self.instances[key] for key in sorted(self._sidecar_instances.get(sidecar_id, ()))]

    def positions_of(self, pipeline_id: str) -> list[PositionRecord]:
        """The positions of a pipeline, sorted by stage, partition number where known, and name."""
        number = {(row.stage, row.partition): row.number for row in self.partitions_of(pipeline_id)}
        rows = [row for row in self.positions.values() if row.pipeline_id == pipeline_id]
        return sorted(
            rows,
            key=lambda row: (
                row.stage,
                number.get((row.stage, row.partition), len(number)),
                row.partition,
                row.replay_id,
            ),
        )

    @property
    def term_floor(self) -> int:
        """No term at or below this one is given to anything made from now on."""
        floor = self.floors.get("")
        return 0 if floor is None else floor.term

    def changes_since(self, revision: int) -> Sequence[Change] | None:
        """What changed after a revision, oldest first; None: too long ago, list everything."""
        if revision < self._history_from:
            return None
        start = bisect.bisect_right(self._history, revision, key=lambda change: change.revision)
        return [self._history[index] for index in range(start, len(self._history))]

    # Writing: for `apply` alone

    def put(self, record: Record, *, quiet: bool = False) -> bool:
        """Make or replace a record; equal records change nothing. Quiet changes move no revision.

        Returns:
            Whether anything changed.
        """
        table, key = _TABLES[type(record)], key_of(record)
        rows = self._rows(table)
        old = rows.get(key)
        if old == record:
            return False
        self._journal.append(_Undo(table, key, old, quiet=quiet))
        self._write(table, key, record)
        return True

    def drop(self, record: Record, reason: str = "") -> None:
        """Remove a record that is there; the history keeps the reason."""
        table, key = _TABLES[type(record)], key_of(record)
        self._journal.append(_Undo(table, key, self._rows(table)[key], reason=reason))
        self._write(table, key, None)

    def raise_floor(self, term: int) -> None:
        """Something with this term is being removed: its like starts above it."""
        if term > self.term_floor:
            self.put(TermFloor(term=term))

    def begin(self) -> int:
        """A mark to roll back to."""
        return len(self._journal)

    def roll_back(self, mark: int) -> None:
        """Undo everything since the mark."""
        while len(self._journal) > mark:
            undo = self._journal.pop()
            self._write(undo.table, undo.key, undo.old)

    def commit(self, index: int, timestamp_ms: int) -> bool:
        """End an entry: move the revisions, remember the changes.

        Returns:
            Whether the entry changed something that a revision tells of.
        """
        first: dict[tuple[Table, Key], Record | None] = {}
        reasons: dict[tuple[Table, Key], str] = {}
        for undo in self._journal:
            if not undo.quiet:
                first.setdefault((undo.table, undo.key), undo.old)
                reasons[undo.table, undo.key] = undo.reason
        self._journal.clear()
        changed = False
        for (table, key), old in first.items():
            new = self._rows(table).get(key)
            if new == old:
                continue
            changed = True
            self.revision = index
            if table not in _QUIET:
                self.table_revision = index
            if table is not Table.POSITIONS:
                # Positions are many a second, and read from the state: they would crowd out
                # everything else.
                why = reasons[table, key] if new is None else _reason_of(new)
                self._remember(
                    Change(index, timestamp_ms, table, key, old is None, new is None, why)
                )
        return changed

    def _remember(self, change: Change) -> None:
        self._history.append(change)
        while len(self._history) > HISTORY_MAX:
            # A revision is forgotten as a whole: half of one would be a lie.
            self._history_from = self._history[0].revision
            while self._history and self._history[0].revision == self._history_from:
                self._history.popleft()

    def _rows(self, table: Table) -> dict[Key, Record]:
        return cast(dict[Key, Record], getattr(self, table.value))

    def _write(self, table: Table, key: Key, record: Record | None) -> None:
        rows = self._rows(table)
        old = rows.pop(key, None) if record is None else rows.get(key)
        if old is not None:
            self._unindex(old)
        if record is not None:
            rows[key] = record
            self._index(record)

    def _index(self, record: Record) -> None:
        if isinstance(record, InstanceAssignment):
            key = (record.pipeline_id, record.stage, record.index)
            self._pipeline_instances[record.pipeline_id].add(key)
            self._sidecar_instances[record.sidecar_id].add(key)
        elif isinstance(record, PartitionOwner):
            self._pipeline_partitions[record.pipeline_id].add(
                (record.pipeline_id, record.stage, record.partition)
            )

    def _unindex(self, record: Record) -> None:
        if isinstance(record, InstanceAssignment):
            key = (record.pipeline_id, record.stage, record.index)
            _remove(self._pipeline_instances, record.pipeline_id, key)
            _remove(self._sidecar_instances, record.sidecar_id, key)
        elif isinstance(record, PartitionOwner):
            partition = (record.pipeline_id, record.stage, record.partition)
            _remove(self._pipeline_partitions, record.pipeline_id, partition)

    # Snapshots

    def to_bytes(self) -> bytes:
        """The whole state, canonically."""
        tables = {
            table.value: codec.dump_python(tuple(_sorted(self._rows(table))), mode="json")
            for table, codec in _CODECS.items()
        }
        whole = {
            "version": SNAPSHOT_VERSION,
            "revision": self.revision,
            "table_revision": self.table_revision,
            "tables": tables,
        }
        return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> RouterState:
        """The state of a snapshot; `SnapshotRefused` for anything else."""
        try:
            whole = json.loads(data)
            if whole["version"] != SNAPSHOT_VERSION:
                raise SnapshotRefused(
                    f"the snapshot has version {whole['version']!r}, this release knows"
                    f" {SNAPSHOT_VERSION}; upgrade this node"
                )
            state = cls(revision=whole["revision"], table_revision=whole["table_revision"])
            for name, rows in whole["tables"].items():
                # From JSON text: only there bytes are read as base64.
                for record in _CODECS[Table(name)].validate_json(json.dumps(rows)):
                    state._write(_TABLES[type(record)], key_of(record), record)
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise SnapshotRefused(f"not a snapshot of the router's state: {error}") from error
        except ValueError as error:
            if isinstance(error, SnapshotRefused):
                raise
            raise SnapshotRefused(f"not a snapshot of the router's state: {error}") from error
        # What changed before is not known here: who asks lists everything again.
        state._history_from = state.revision
        return state


def _remove(index: dict[str, set[Any]], owner: str, key: Any) -> None:
    keys = index[owner]
    keys.discard(key)
    if not keys:
        del index[owner]


def _reason_of(record: Record) -> str:
    match record:
        case ServiceRecord() | SidecarRecord():
            return record.health_reason
        case PipelineRecord():
            return record.reason
        case _:
            return ""


def _sorted(rows: Mapping[Key, Record]) -> Iterable[Record]:
    return (rows[key] for key in sorted(rows))
