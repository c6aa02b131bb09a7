"""`Apply` and `Delete`: from documents to one atomic command, with everything that can be wrong
said at once.

Nothing is proposed unless every document of the request is valid beside the others of the request
and what is recorded; then one batch makes all of them true, or none. Unchanged documents (equal
digests) propose nothing, so applying twice costs nothing.

Applies are decided one after the other on the leader (`lock`): two that meet cannot both decide
from the same state. Should the leader change in between, the old one's proposal fails, and
versions guard pipelines besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from conveyor_grpc.convert.problems import problem_message
from conveyor_grpc.errors import ConflictError, InvalidRequestError
from conveyor_grpc.services.control_plane import ControlPlane
from conveyor_grpc.wire import admin_pb2 as wire
from conveyor_grpc.wire.errors_pb2 import SEVERITY_WARNING, Problem
from conveyor_raft.machines.router import (
    PipelinePhase,
    RouterCommand,
    RouterState,
    SingleCommand,
)
from conveyor_registry import Matcher, model

DOCUMENTS_MAX = 1_024


@dataclass(slots=True)
class _Candidate:
    """One document of a request on its way."""

    answer: wire.AppliedDocument
    document: model.Pipeline | model.ServiceDocument | None = None
    problems: list[model.Problem] = field(default_factory=list)
    command: SingleCommand | None = None

    @property
    def refused(self) -> bool:
        """Whether an error was found."""
        return bool(model.errors_of(self.problems))


def offers_for(
    pipeline: model.Pipeline,
    matcher: Matcher,
    state: RouterState,
    given: Iterable[model.ServiceDocument] = (),
) -> list[model.ServiceOffer]:
    """Return what a pipeline can count on, and the names that its author may have meant.

    Args:
        pipeline: whose stages ask.
        matcher: finds the services of its stages.
        state: what is registered.
        given: documents that are applied together with it.
    """
    asked = {(stage.kind.value, stage.service) for stage in pipeline.stages}
    others = [
        model.ServiceOffer(
            kind=model.ServiceKind(record.service_type.value),
            name=record.service_name,
            namespace=record.namespace,
        )
        for record in state.services.values()
        if record.namespace != pipeline.namespace
        or (record.service_type.value, record.service_name) not in asked
    ]
    return [*matcher.offers(pipeline, given), *others]


class Applier:
    """Applies and deletes documents; one per router."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._lock = asyncio.Lock()

    async def apply(self, request: wire.ApplyRequest) -> wire.ApplyResponse:
        """Answer an `ApplyRequest` on the leader.

        Raises:
            ConflictError: something was applied since `expected_revision`.
            InvalidRequestError: no documents, or too many.
        """
        if not 0 < len(request.documents) <= DOCUMENTS_MAX:
            raise InvalidRequestError(
                f"{len(request.documents)} documents given; a request takes 1 to {DOCUMENTS_MAX}"
            )
        async with self._lock:
            state = await self._plane.leader_state()
            _check_revision(state, request.expected_revision)
            candidates = _parse(request.documents)
            _judge(candidates, state)
            commands = _decide(candidates, state)
            response = wire.ApplyResponse(revision=state.revision)
            if commands and not request.dry_run:
                await self._plane.propose(RouterCommand.Batch(commands=tuple(commands)))
                for candidate in candidates:
                    if isinstance(candidate.document, model.Pipeline):
                        self._plane.note_origin(candidate.document.id)
                state = await self._plane.leader_state()
                response.applied = True
                response.revision = state.revision
            _fill_phases(candidates, state)
        response.documents.extend(candidate.answer for candidate in candidates)
        return response

    async def delete(self, request: wire.DeleteRequest) -> wire.DeleteResponse:
        """Answer a `DeleteRequest` on the leader.

        Raises:
            InvalidRequestError: a kind that cannot be deleted.
        """
        namespace = request.namespace or model.DEFAULT_NAMESPACE
        if request.kind not in model.KINDS:
            close = model.nearest(request.kind, model.KINDS)
            hint = f"; did you mean {close}?" if close else ""
            raise InvalidRequestError(
                f"{request.kind!r} cannot be deleted: not one of {', '.join(model.KINDS)}{hint}"
            )
        async with self._lock:
            state = await self._plane.leader_state()
            response = wire.DeleteResponse(revision=state.revision)
            command: SingleCommand
            if request.kind == "Pipeline":
                pipeline_id = f"{namespace}/{request.name}"
                pipeline = state.pipelines.get(pipeline_id)
                response.existed = pipeline is not None
                if pipeline is None or pipeline.deleting:
                    return response
                command = RouterCommand.DeletePipeline(pipeline_id=pipeline_id)
            else:
                response.existed = (request.kind, namespace, request.name) in state.manifests
                if not response.existed:
                    return response
                response.problems.extend(_users_of(state, request.kind, namespace, request.name))
                command = RouterCommand.DeleteManifest(
                    document_kind=cast(Any, request.kind), name=request.name, namespace=namespace
                )
            if not request.dry_run:
                await self._plane.propose(command)
                response.deleted = True
                response.revision = (await self._plane.leader_state()).revision
            return response


def _check_revision(state: RouterState, expected: int) -> None:
    if not expected:
        return
    revisions = [record.revision for record in state.manifests.values()]
    revisions += [record.revision for record in state.pipelines.values()]
    newest = max(revisions, default=0)
    if newest > expected:
        raise ConflictError(
            f"documents were applied at revision {newest}, after the expected {expected};"
            " look at what changed and apply again"
        )


def _parse(documents: Sequence[bytes]) -> list[_Candidate]:
    candidates = []
    seen: dict[model.DocumentKey, int] = {}
    for place, data in enumerate(documents):
        candidate = _Candidate(wire.AppliedDocument())
        candidates.append(candidate)
        try:
            document = model.parse_document(data)
        except model.DocumentRefused as error:
            candidate.problems.extend(error.problems)
            continue
        candidate.document = document
        candidate.answer.kind = document.kind
        candidate.answer.namespace = document.namespace
        candidate.answer.name = document.name
        first = seen.setdefault(document.key, place)
        if first != place:
            candidate.problems.append(
                model.Problem.error(
                    (), f"{document.key} is given twice, first as number {first + 1}"
                )
            )
    return candidates


def _judge(candidates: Sequence[_Candidate], state: RouterState) -> None:
    """Validate each pipeline beside the other documents of the request and what is recorded."""
    matcher = Matcher(state)
    given = [c.document for c in candidates if isinstance(c.document, model.ServiceDocument)]
    documents = {document.key: document for document in (*matcher.documents, *given)}
    for candidate in candidates:
        document = candidate.document
        if not isinstance(document, model.Pipeline):
            continue
        candidate.problems.extend(
            model.validate(
                document, offers_for(document, matcher, state, given), documents.values()
            )
        )
        recorded = state.pipelines.get(document.id)
        if recorded is not None and recorded.deleting:
            candidate.problems.append(
                model.Problem.error(
                    (), f"pipeline {document.id} is being deleted; apply it again when it is gone"
                )
            )


def _decide(candidates: Sequence[_Candidate], state: RouterState) -> list[SingleCommand]:
    """Set the outcome of each document; return the commands, none if anything is refused."""
    refused = any(candidate.refused for candidate in candidates)
    commands: list[SingleCommand] = []
    for candidate in candidates:
        answer, document = candidate.answer, candidate.document
        title = str(document.key) if document is not None else ""
        answer.problems.extend(problem_message(problem, title) for problem in candidate.problems)
        if document is None or candidate.refused:
            answer.outcome = wire.APPLY_OUTCOME_REFUSED
            continue
        answer.outcome, answer.version, command = (
            _decide_pipeline(document, state)
            if isinstance(document, model.Pipeline)
            else _decide_service(document, state)
        )
        if command is not None:
            commands.append(command)
            if refused:
                answer.outcome = wire.APPLY_OUTCOME_SKIPPED
    return [] if refused else commands


_Decision = tuple[wire.ApplyOutcome.ValueType, int, SingleCommand | None]


def _decide_pipeline(document: model.Pipeline, state: RouterState) -> _Decision:
    recorded = state.pipelines.get(document.id)
    if recorded is None:
        create = RouterCommand.CreatePipeline(
            pipeline_id=document.id,
            manifest=document.canonical(),
            digest=document.digest,
            enabled=document.enabled,
        )
        return wire.APPLY_OUTCOME_CREATED, 1, create
    if recorded.digest == document.digest and recorded.enabled == document.enabled:
        return wire.APPLY_OUTCOME_UNCHANGED, recorded.version, None
    update = RouterCommand.UpdatePipeline(
        pipeline_id=document.id,
        manifest=document.canonical(),
        digest=document.digest,
        enabled=document.enabled,
        expected_version=recorded.version,
    )
    changed = recorded.digest != document.digest
    return wire.APPLY_OUTCOME_UPDATED, recorded.version + changed, update


def _decide_service(document: model.ServiceDocument, state: RouterState) -> _Decision:
    recorded = state.manifests.get((document.kind, document.namespace, document.name))
    if recorded is not None and recorded.digest == document.digest:
        return wire.APPLY_OUTCOME_UNCHANGED, recorded.version, None
    put = RouterCommand.PutManifest(
        document_kind=document.kind,
        name=document.name,
        document=document.canonical(),
        digest=document.digest,
        namespace=document.namespace,
    )
    if recorded is None:
        return wire.APPLY_OUTCOME_CREATED, 1, put
    return wire.APPLY_OUTCOME_UPDATED, recorded.version + 1, put


def _fill_phases(candidates: Sequence[_Candidate], state: RouterState) -> None:
    """Say in which phase each pipeline is, or begins, and what it waits for."""
    for candidate in candidates:
        document, answer = candidate.document, candidate.answer
        if not isinstance(document, model.Pipeline) or candidate.refused:
            continue
        recorded = state.pipelines.get(document.id)
        answer.phase = (PipelinePhase.PENDING if recorded is None else recorded.phase).value
        answer.reason = "" if recorded is None else recorded.reason
        if answer.phase == PipelinePhase.PENDING.value and not answer.reason:
            warnings = [p.message for p in answer.problems if p.severity == SEVERITY_WARNING]
            answer.reason = "; ".join(warnings)[:1024]


def _users_of(state: RouterState, kind: str, namespace: str, name: str) -> list[Problem]:
    """Return a warning for each pipeline that refers to a service document."""
    found = []
    for record in state.pipelines.values():
        if not record.pipeline_id.startswith(f"{namespace}/"):
            continue
        pipeline = model.Pipeline.parse(record.manifest)
        if any(stage.kind.value == kind and stage.service == name for stage in pipeline.stages):
            problem = model.Problem.warning(
                (),
                f"pipeline {record.pipeline_id} refers to it"
                " and goes on with what the service says of itself",
            )
            found.append(problem_message(problem, f"{kind} {namespace}/{name}"))
    return found
