"""Which part of the shell performs which effect: one literal table.

What is missing here and in the pump's own part of the table (sends, links let go, notes) cannot be
performed; a test holds both together equal to the union of effects.
"""

from __future__ import annotations

from collections.abc import Callable

from conveyor_sidecar.cluster_client import PositionCommitter
from conveyor_sidecar.core import effects
from conveyor_sidecar.dead_letter_writer import DeadLetterWriter
from conveyor_sidecar.routing import LocalRouter, RemoteRouter

Performers = dict[type[effects.Effect], Callable[..., None]]


def performers(
    local: LocalRouter,
    remote: RemoteRouter,
    letters: DeadLetterWriter,
    committer: PositionCommitter,
    *,
    completed: Callable[[effects.PartitionCompleted], None],
    drained: Callable[[effects.Drained], None],
) -> Performers:
    """The table, for these parts."""
    return {
        effects.OpenLink: remote.open,
        effects.CallService: local.calls.start,
        effects.CancelCall: lambda effect: local.calls.cancel(effect.call_id),
        effects.OpenSource: local.sources.open,
        effects.CloseSource: lambda effect: local.sources.close_source(
            effect.source, effect.stream
        ),
        effects.OpenPartition: local.open_partition,
        effects.RevokePartition: local.revoke_partition,
        effects.GrantSourceCredit: local.grant_credit,
        effects.EndedUpTo: local.ended_up_to,
        effects.StoreDeadLetter: letters.start,
        effects.CommitPositions: committer.start,
        effects.PartitionCompleted: completed,
        effects.Drained: drained,
    }
