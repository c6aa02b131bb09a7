"""``conveyor describe``: everything about one thing."""

import time
from collections.abc import Mapping
from typing import Any

import click
import yaml
from rich.console import Group, RenderableType
from rich.text import Text

from conveyor_cli.cluster_view import status_data
from conveyor_cli.context import Context, connected_command
from conveyor_cli.errors import CommandFailed, ExitCode, shown
from conveyor_cli.kind_param import KindParam
from conveyor_cli.options import examples
from conveyor_cli.output import print_data, print_renderable, table
from conveyor_cli.resources import Data, document_of, group_data, service_data, sidecar_data
from conveyor_cli.running import Assignment, assignment_data, position_data
from conveyor_cli.views import VIEWS
from conveyor_grpc.clients import RouterAdminClient
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_registry.model import KINDS

_KINDS: Mapping[str, str] = {
    f"{kind.lower()}s": kind for kind in (*KINDS, "Service", "Sidecar", "Group")
}


@click.command(
    epilog=examples(
        "conveyor describe pipeline flights",
        "conveyor describe sidecar sidecar-1 -o json",
    ),
)
@click.argument("kind", type=KindParam(_KINDS))
@click.argument("name")
@click.option("-n", "--namespace", default="", help="Where it is. [default: default]")
@connected_command
def describe(context: Context, *, kind: str, name: str, namespace: str) -> None:
    """Show one pipeline, service, sidecar, group or document with all that is known of it.

    Of a pipeline: its document, phase, who runs its stages, counters and positions. A service is
    known by its id, or by its name when no other has it.
    """
    if kind == "pipelines":
        _describe_pipeline(context, name, namespace)
        return

    async def work(client: RouterAdminClient) -> wire.Resource:
        if kind == "services":
            return await _service(client, name, namespace)
        return await client.get(_KINDS[kind], name, namespace=namespace)

    resource = context.run(work)
    data = _data(resource)
    if context.output == "table":
        print_renderable(_as_yaml(data))
    else:
        print_data(data, context.output)


async def _service(client: RouterAdminClient, name: str, namespace: str) -> wire.Resource:
    """A service by its id, or by its name when no other has it."""
    found = await VIEWS["services"].fetch(client, namespace, name)
    exact = [resource for resource in found if resource.name == name] or found
    if len(exact) > 1:
        ids = ", ".join(resource.name for resource in exact)
        raise CommandFailed(
            f"{len(exact)} services are named {name!r}", ExitCode.REFUSED, f"give an id: {ids}"
        )
    resource: wire.Resource = exact[0]
    return resource


def _data(resource: wire.Resource) -> Data:
    if resource.HasField("service"):
        return service_data(resource)
    if resource.HasField("sidecar"):
        return sidecar_data(resource)
    if resource.HasField("group"):
        return group_data(resource)
    return {
        "kind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "version": resource.version,
        "digest": resource.digest,
        "document": document_of(resource),
    }


def _describe_pipeline(context: Context, name: str, namespace: str) -> None:
    async def work(
        client: RouterAdminClient,
    ) -> tuple[wire.Resource, wire.PipelineStatusResponse]:
        resource = await client.get("Pipeline", name, namespace=namespace)
        return resource, await client.pipeline_status(name, namespace=namespace)

    resource, status = context.run(work)
    held = [
        Assignment(status.pipeline, stage.stage, stage.kind, each.instance, each.partitions)
        for stage in status.stages
        for each in stage.instances
    ]
    if context.output == "table":
        print_renderable(_rendered(resource, status, held))
        return
    data = {
        "kind": "Pipeline",
        "namespace": resource.namespace,
        "name": resource.name,
        "digest": resource.digest,
        **status_data(status),
        "assignments": [assignment_data(each) for each in held],
        "positions": [position_data(position) for position in status.positions],
        "document": document_of(resource),
    }
    print_data(data, context.output)


_STAGES = (
    "STAGE",
    "KIND",
    "SERVICE",
    "IN",
    "OUT",
    "FILTERED",
    "RETRIED",
    "DEAD",
    "DROPPED",
    "OPEN",
)


def _rendered(
    resource: wire.Resource, status: wire.PipelineStatusResponse, held: list[Assignment]
) -> RenderableType:
    now = time.time()
    summary = status.summary
    facts = {
        "pipeline": status.pipeline,
        "phase": summary.phase,
        "reason": summary.reason,
        "enabled": summary.enabled,
        "version": status.version,
        "digest": resource.digest,
    }
    parts: list[RenderableType] = [
        Text(shown(f"{name}: {'yes' if fact is True else 'no' if fact is False else fact}"))
        for name, fact in facts.items()
        if fact != ""
    ]
    for problem in status.problems:
        nearest = f" (did you mean {problem.nearest!r}?)" if problem.nearest else ""
        text = f"problem: {problem.path}: {problem.message}{nearest}"
        parts.append(Text(shown(text), style="yellow"))
    rows = [_stage_row(stage) for stage in status.stages]
    parts += [Text(""), table(_STAGES, rows)]
    for word, items in (("assignments", held), ("positions", list(status.positions))):
        view = VIEWS[word]
        shown_rows = [view.row(item, now)[1:] for item in items]
        body: RenderableType = Text(f"no {word}")
        if shown_rows:
            body = table(view.columns[1:], shown_rows)
        parts += [Text(""), body]
    parts += [Text(""), _as_yaml(document_of(resource))]
    return Group(*parts)


def _stage_row(stage: wire.StageStatus) -> tuple[Any, ...]:
    total = stage.total
    return (
        stage.stage,
        stage.kind,
        stage.service_name,
        total.records_in,
        total.records_out,
        total.filtered,
        total.retried,
        total.dead_lettered,
        total.dropped,
        total.open_records,
    )


def _as_yaml(data: Data) -> Text:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100).rstrip()
    return Text(shown(text))
