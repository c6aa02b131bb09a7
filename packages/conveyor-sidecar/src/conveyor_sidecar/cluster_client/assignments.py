"""One reducer for everything that the routers say: table updates and answers to heartbeats.

The watch stream is the authority: it carries whole tables, so a gap is mended by the next one and
nothing is ever patched. Heartbeats carry hints: the leader's revision, and commands. Both are
reduced here to what is to be done, without any I/O, so that every order of arrival can be tested:

* a table is taken over if it is for this boot and newer than the one in force;
* "not registered", from either side, means register again, unless the news is older than the last
  registration;
* a leader that has been ahead of the watched router for several heartbeats means that the router
  lags: watch another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from conveyor_grpc.wire import sidecar_pb2 as wire
from conveyor_grpc.wire import table_pb2

_LAGGING_HEARTBEATS_MAX = 3


@dataclass(frozen=True, slots=True)
class SwapTable:
    """Put this table in force."""

    table: table_pb2.SidecarTable


@dataclass(frozen=True, slots=True)
class Register:
    """Send the registration again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rewatch:
    """Open the table watch anew, at another router; with ``forget``, from nothing."""

    reason: str
    forget: bool = False


Action = SwapTable | Register | Rewatch


class Assignments:
    """What is known of this sidecar's assignments."""

    def __init__(self, sidecar_id: str, boot_id: str) -> None:
        self._sidecar_id = sidecar_id
        self._boot_id = boot_id
        self._lagging = 0
        self.revision_registered = 0
        self.revision_seen = 0
        self.revision_applied = 0
        self.has_table = False

    def on_registered(self, revision: int) -> None:
        """A registration was accepted at this revision."""
        self.revision_registered = max(self.revision_registered, revision)

    def on_update(self, update: wire.TableUpdate) -> list[Action]:
        """A message of the watch stream."""
        self.revision_seen = max(self.revision_seen, update.revision)
        if not update.registered:
            if update.revision >= self.revision_registered:
                return [Register("the routers do not know this sidecar")]
            return []
        if not update.HasField("table"):
            if self.has_table:
                self.revision_applied = max(self.revision_applied, update.revision)
            return []
        table = update.table
        if table.boot_id != self._boot_id or table.sidecar_id != self._sidecar_id:
            return []
        if self.has_table and table.revision < self.revision_applied:
            return []
        self.has_table = True
        self.revision_applied = max(table.revision, update.revision)
        return [SwapTable(table)]

    def on_heartbeat(self, response: wire.SidecarHeartbeatResponse) -> list[Action]:
        """The leader's answer to a heartbeat."""
        actions: list[Action] = []
        for command in response.commands:
            if command.HasField("re_register"):
                actions.append(Register(command.re_register.reason))
            elif command.HasField("resync"):
                actions.append(Rewatch(command.resync.reason, forget=True))
        self._lagging = self._lagging + 1 if response.revision > self.revision_seen else 0
        if self._lagging >= _LAGGING_HEARTBEATS_MAX:
            self._lagging = 0
            actions.append(Rewatch("the watched router lags behind the leader"))
        return actions
