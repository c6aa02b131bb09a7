"""What ``conveyor status`` gathers and shows: routers, pipelines with their stages, sidecars.

The routers are asked one by one, because each knows its own role and how far it has come; what
only a leader knows is left out when none leads, and the view says so.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from conveyor_cli.errors import shown
from conveyor_cli.output import STYLES, age, count, table
from conveyor_cli.resources import Data, age_of, seconds_of, sidecar_data, summary_data
from conveyor_cli.running import pipeline_statuses
from conveyor_cli.views import VIEWS
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.errors import ControlError, NotFoundError
from conveyor_grpc.wire import admin_pb2 as wire

MEMBER_TIMEOUT_S = 2.5


@dataclass(frozen=True, slots=True)
class Member:
    """A router, and what it says of itself if it answers."""

    address: str
    node_id: int | None = None
    raft_address: str = ""
    answer: wire.ClusterStatusResponse | None = None
    trouble: str = ""

    @property
    def role(self) -> str:
        """Its role, or that it does not answer."""
        return "unreachable" if self.answer is None else self.answer.role.lower()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One look at a cluster."""

    cluster: wire.ClusterStatusResponse
    members: Sequence[Member]
    pipelines: Sequence[wire.PipelineStatusResponse]
    sidecars: Sequence[wire.Resource]
    trouble: str
    taken_at: float

    @property
    def leader(self) -> Member | None:
        """The router that leads, by its own word."""
        return _leading(self.members)

    @property
    def hindrance(self) -> str:
        """Why nothing can be agreed on now; empty if it can."""
        answering = sum(member.answer is not None for member in self.members)
        if self.leader is None:
            return self.trouble or "no router leads"
        if 2 * answering <= len(self.members):
            return f"only {answering} of {len(self.members)} routers answer, which is no majority"
        return ""


def _leading(members: Sequence[Member]) -> Member | None:
    leaders = [m for m in members if m.answer is not None and m.role == "leader"]
    return max(leaders, key=lambda m: m.answer.term if m.answer else 0, default=None)


async def look(
    client: RouterAdminClient, endpoints: Sequence[str], namespace: str, pipeline: str
) -> ClusterView:
    """Ask all routers for themselves and the leader for the rest.

    Raises:
        NotFoundError: the pipeline that was named does not exist.
    """
    members = await _ask_all(client, endpoints)
    pipelines: Sequence[wire.PipelineStatusResponse] = ()
    sidecars: Sequence[wire.Resource] = ()
    trouble = ""
    try:
        pipelines = await pipeline_statuses(client, namespace, pipeline)
        sidecars = await VIEWS["sidecars"].fetch(client, namespace, "")
    except NotFoundError:
        raise
    except ControlError as error:
        trouble = error.message
    if _leading(members) is None and not trouble:
        members = await _ask_all(client, endpoints)  # one was elected while the leader was asked
    answers = [member.answer for member in members if member.answer is not None]
    leader = _leading(members)
    newest = max(answers, key=lambda a: (a.term, a.applied_index), default=None)
    cluster = leader.answer if leader is not None else newest
    return ClusterView(
        cluster or wire.ClusterStatusResponse(), members, pipelines, sidecars, trouble, time.time()
    )


async def _ask_all(client: RouterAdminClient, endpoints: Sequence[str]) -> list[Member]:
    """Ask the members that the first router to answer names, else the given addresses."""
    asked = await asyncio.gather(*(_ask(client, Member(address)) for address in endpoints))
    known = next((member.answer for member in asked if member.answer is not None), None)
    if known is None:
        return list(asked)
    if not known.members:  # the cluster is being formed
        return list(asked)
    answers = {m.answer.node_id: m.answer for m in asked if m.answer is not None}
    named = [
        Member(m.client_address, m.node_id, m.raft_address, answers.get(m.node_id))
        for m in known.members
    ]
    return list(await asyncio.gather(*(_ask(client, member) for member in named)))


async def _ask(client: RouterAdminClient, member: Member) -> Member:
    """The member with its answer; one that has answered already is not asked again."""
    if member.answer is not None:
        return member
    try:
        async with asyncio.timeout(MEMBER_TIMEOUT_S):
            answer = await client.cluster_status(endpoint=member.address)
            return replace(member, node_id=answer.node_id, answer=answer)
    except ControlError as error:
        return replace(member, trouble=error.message)
    except TimeoutError:
        return replace(member, trouble=f"no answer within {MEMBER_TIMEOUT_S:g} s")


def rendered(view: ClusterView) -> RenderableType:
    """The view for people."""
    cluster = view.cluster
    head = Text("cluster ", style="bold")
    head.append(shown(cluster.cluster_id[:12]) or "-", style="")
    leader = view.leader
    if leader is None:
        head.append("  no leader", style="bold red")
    else:
        head.append(f"  leader {leader.node_id}", style="green")
    head.append(f"  term {cluster.term}  revision {cluster.revision}", style="")
    parts: list[RenderableType] = [head, _member_table(view)]
    for held in cluster.held_expiries:
        silent = age(held.silent_ms / 1000)
        text = f"held back: sidecar {held.sidecar_id} is silent for {silent}: {held.reason}"
        parts.append(Text(shown(text), style="yellow"))
    if view.hindrance and view.hindrance not in {member.trouble for member in view.members}:
        parts.append(Text(shown(view.hindrance), style="red"))
    if view.trouble:
        return Group(*parts)
    for status in view.pipelines:
        parts += [
            Text(""),
            _pipeline_line(status, view.taken_at),
            _stage_table(status),
        ]
    if not view.pipelines:
        parts += [Text(""), Text("no pipelines")]
    parts += [Text(""), _sidecar_table(view)]
    return Group(*parts)


def _member_table(view: ClusterView) -> RenderableType:
    rows = []
    for member in view.members:
        answer = member.answer
        rows.append(
            (
                member.node_id,
                member.role,
                member.address,
                member.raft_address,
                answer.term if answer else None,
                answer.applied_index if answer else None,
                answer.version if answer else None,
                member.trouble.partition(";")[0],
            )
        )
    columns = ("ROUTER", "ROLE", "ADDRESS", "RAFT", "TERM", "APPLIED", "RELEASE", "TROUBLE")
    return table(columns, rows)


def _pipeline_line(status: wire.PipelineStatusResponse, now: float) -> Text:
    phase = status.summary.phase
    line = Text(f"pipeline {status.pipeline}  ", style="bold")
    line.append(phase, style=STYLES.get(phase, ""))
    line.append(f"  since {age_of(status.summary.changed_at, now)}  version {status.version}", "")
    if status.summary.reason:
        line.append(f"  {shown(status.summary.reason)}", style="yellow")
    return line


_STAGE_COLUMNS = (
    "STAGE",
    "KIND",
    "SERVICE",
    "INSTANCES",
    "IN",
    "OUT",
    "FILTERED",
    "DEAD",
    "OPEN",
    "RATE/S",
    "LAST ERROR",
)


def _stage_table(status: wire.PipelineStatusResponse) -> RenderableType:
    rows = []
    for stage in status.stages:
        total, have = stage.total, len(stage.instances)
        rate = _rate(stage)
        rows.append(
            (
                stage.stage,
                stage.kind,
                stage.service_name,
                f"{have}/{stage.wanted}" if stage.wanted else have,
                count(total.records_in),
                count(total.records_out),
                count(total.filtered),
                count(total.dead_lettered),
                count(total.open_records),
                None if rate is None else count(rate),
                total.last_error[:200],
            )
        )
    return table(_STAGE_COLUMNS, rows)


def _sidecar_table(view: ClusterView) -> RenderableType:
    if not view.sidecars:
        return Text("no sidecars")
    sidecars = VIEWS["sidecars"]
    columns = ("SIDECAR", *sidecars.columns[2:])
    rows = [sidecars.row(resource, view.taken_at)[1:] for resource in view.sidecars]
    return table(columns, rows)


def structured(view: ClusterView) -> Data:
    """The view for programs."""
    cluster, leader = view.cluster, view.leader
    return {
        "kind": "Status",
        "cluster": {
            "id": cluster.cluster_id or None,
            "leader": leader.node_id if leader else None,
            "leader_address": leader.address if leader else None,
            "term": cluster.term,
            "revision": cluster.revision,
            "members": [_member_data(member) for member in view.members],
            "held_expiries": [
                {"sidecar": h.sidecar_id, "silent_ms": h.silent_ms, "reason": h.reason}
                for h in cluster.held_expiries
            ],
        },
        "trouble": view.hindrance or None,
        "pipelines": [status_data(status) for status in view.pipelines],
        "sidecars": [
            {
                **sidecar_data(resource),
                "heartbeat_age_s": _age_s(resource.sidecar.last_heartbeat, view.taken_at),
            }
            for resource in view.sidecars
        ],
    }


def _age_s(moment: Any, now: float) -> float | None:
    seconds = seconds_of(moment)
    return None if seconds is None else round(max(0.0, now - seconds), 3)


def _member_data(item: Member) -> Data:
    answer = item.answer
    return {
        "node_id": item.node_id,
        "role": item.role,
        "address": item.address,
        "raft_address": item.raft_address or None,
        "trouble": item.trouble or None,
        "term": answer.term if answer else None,
        "last_log_index": answer.last_log_index if answer else None,
        "commit_index": answer.commit_index if answer else None,
        "applied_index": answer.applied_index if answer else None,
        "snapshot_index": answer.snapshot_index if answer else None,
        "version": answer.version if answer else None,
    }


def status_data(status: wire.PipelineStatusResponse) -> Data:
    """A pipeline's status as data."""
    since = status.counters_since
    return {
        "pipeline": status.pipeline,
        "version": status.version,
        **summary_data(status.summary),
        "counters_since": since.ToJsonString() if seconds_of(since) else None,
        "stages": [_stage_data(stage) for stage in status.stages],
        "problems": [problem.message for problem in status.problems],
    }


def _rate(stage: wire.StageStatus) -> float | None:
    return stage.records_per_second if stage.HasField("records_per_second") else None


def _stage_data(stage: wire.StageStatus) -> Data:
    total = stage.total
    return {
        "stage": stage.stage,
        "kind": stage.kind,
        "service": stage.service_name,
        "wanted": stage.wanted or None,
        "instances": len(stage.instances),
        "records_in": total.records_in,
        "records_out": total.records_out,
        "filtered": total.filtered,
        "dead_lettered": total.dead_lettered,
        "retried": total.retried,
        "dropped": total.dropped,
        "duplicates": total.duplicates,
        "open_records": total.open_records,
        "open_bytes": total.open_bytes,
        "credit_wait_ms": total.credit_wait_ms,
        "oldest_open_ms": total.oldest_open_ms,
        "records_per_second": _rate(stage),
        "last_error": total.last_error or None,
    }
