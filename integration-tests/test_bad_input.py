"""Bad input of every kind in one cluster: each is named or set aside, and the rest goes on."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from harness.deployment import Deployment, deployed

from conveyor_cli.processes import wait_until
from conveyor_sidecar.dead_letters import DeadLetter, read_dead_letters

pytestmark = pytest.mark.asyncio(loop_scope="module")

APPS = Path(__file__).parent / "apps"
COUNT = 40
EVERYTHING = [*range(COUNT)]
QUICK = "retry: {attempts: 2, backoff: 10ms, max: 20ms}"


@dataclass(frozen=True)
class Case:
    """One pipeline with one thing wrong, and what becomes of it.

    Attributes:
        name: Of the pipeline.
        written: What reaches the sink.
        dead: How many records are dead letters.
        reason: What their reasons say, one of these each.
        source: The service that is read.
        transform: The service between, described by a document where it is not ours.
        sink: The service that writes.
        timeout: Of a call to the transform.
    """

    name: str
    written: list[int]
    dead: int = 0
    reason: tuple[str, ...] = ()
    source: str = "numbers"
    transform: str = "keep"
    sink: str = "collect"
    timeout: str = "30s"

    @property
    def manifest(self) -> str:
        """The pipeline."""
        return f"""
---
apiVersion: conveyor/v1
kind: Pipeline
metadata: {{name: {self.name}}}
spec:
  stages:
  - {{id: in, source: {self.source}}}
  - {{id: work, transform: {self.transform}, timeout: {self.timeout}, {QUICK}}}
  - {{id: out, sink: {self.sink}, {QUICK}}}
"""


ALL_BUT_7 = [number for number in EVERYTHING if number != 7]
CASES = [
    Case("good", EVERYTHING),
    Case(
        "raises",
        [number for number in EVERYTHING if number not in (7, 8)],
        dead=2,
        reason=("seven is not welcome", "ZeroDivisionError: eight"),
        transform="touchy",
    ),
    Case("garbage", [], dead=COUNT, reason=("cannot be parsed",), transform="garbage"),
    Case(
        "never",
        [],
        dead=COUNT,
        reason=("no answer within 300 ms",),
        transform="silent",
        timeout="300ms",
    ),
    Case(
        "rejects",
        [number for number in EVERYTHING if number % 10],
        dead=4,
        reason=("no round numbers",),
        sink="picky",
    ),
    Case("wavers", EVERYTHING, source="wavering"),
    Case("too-large", ALL_BUT_7, dead=1, reason=("above the limit",), source="heavy"),
]
FOREIGN = """
---
apiVersion: conveyor/v1
kind: Transform
metadata: {{name: {name}}}
spec: {{match: {{grpcService: acme.{title}}}}}
"""
HOLLOW = Case("hollow-one", [], transform="hollow")
UNKNOWN = Case("unknown", [], transform="keeep")
LATER = Case("later", EVERYTHING)
CYCLE = """
---
apiVersion: conveyor/v1
kind: Pipeline
metadata: {name: cycle}
spec:
  stages:
  - {id: in, source: numbers}
  - {id: left, transform: keep}
  - {id: right, transform: keep}
  - {id: out, sink: collect}
  edges:
  - {from: in, to: left}
  - {from: left, to: right}
  - {from: right, to: left}
  - {from: right, to: out}
"""


class World:
    """The cluster with its difficult services."""

    def __init__(self, deployment: Deployment, directory: Path) -> None:
        self.deployment = deployment
        self.directory = directory
        self.output = directory / "output"

    def written(self, pipeline: str) -> list[int]:
        """What a pipeline's sink was given, each once."""
        path = self.output / pipeline
        return sorted(
            {int(line) for line in path.read_text().splitlines()} if path.exists() else ()
        )

    def dead_letters(self, pipeline: str) -> list[DeadLetter]:
        """The dead letters of a pipeline, whichever sidecar met them."""
        return [
            letter
            for folder in self.directory.glob(f"*-sidecar/dead-letters/default~{pipeline}")
            for letter in read_dead_letters(folder)
            if isinstance(letter, DeadLetter)
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One router, three services with their sidecars, and all pipelines of the cases."""
    directory = tmp_path_factory.mktemp("world")
    (directory / "output").mkdir()
    environment = {
        "OUTPUT_DIRECTORY": str(directory / "output"),
        "HEARTBEAT_INTERVAL_SECS": "1",
        "CONVEYOR_DISCOVERY__INTERVAL_MS": "500",
    }
    async with deployed(directory, routers=1, environment=environment) as deployment:
        cluster = deployment.cluster
        cluster.add_service("services", [sys.executable, str(APPS / "difficult_services.py")])
        for name in ("garbage", "hollow"):
            cluster.add_service(name, [sys.executable, str(APPS / "foreign_service.py"), name])
        cluster.start()
        await deployment.wait_for_services(10)
        foreign = (FOREIGN.format(name=name, title=name.title()) for name in ("garbage", "hollow"))
        await deployment.apply("".join([*foreign, *(case.manifest for case in [*CASES, HOLLOW])]))
        yield World(deployment, directory)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_bad_service_costs_its_own_records_and_nothing_else(
    world: World, case: Case
) -> None:
    """Each pipeline completes; what could not be done is a dead letter with its reason."""
    await world.deployment.wait_for_phase(case.name, "Completed")
    letters = world.dead_letters(case.name)
    assert world.written(case.name) == case.written
    assert len(letters) == case.dead
    reasons = {letter.reason for letter in letters}
    assert not {said for said in reasons if not any(part in said for part in case.reason)}
    assert {letter.pipeline for letter in letters} <= {f"default/{case.name}"}


async def test_a_service_that_only_claims_to_be_one_is_told_apart(world: World) -> None:
    """Reflection lists a Transform that is not there: it is unhealthy and says why."""

    async def unhealthy() -> bool:
        services = await world.deployment.registry.list_services()
        (hollow,) = [one for one in services if one.sidecar_id == "hollow-sidecar"]
        return "does not implement" in hollow.health_reason

    await wait_until(unhealthy, "the hollow service to be found out")
    assert "does not implement" in await world.deployment.conveyor("get", "services")
    assert await world.deployment.phase("hollow-one") in ("Pending", "Running")
    assert world.dead_letters("hollow-one") == []
    assert world.written("hollow-one") == []


async def test_an_unknown_service_is_waited_for_by_name(world: World) -> None:
    """A warning names the nearest; the pipeline is pending for that reason."""
    said = await world.deployment.apply(UNKNOWN.manifest)
    assert "did you mean 'keep'" in said
    await world.deployment.wait_for_phase("unknown", "Pending")
    shown = await world.deployment.conveyor("get", "pipelines")
    assert "keeep" in shown


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (CYCLE, "left -> right -> left"),
        ("a: [b", "manifest.yaml:1"),
        ("apiVersion: conveyor/v1\nkind: Pipelin\nmetadata: {name: a}", "did you mean 'Pipeline'"),
        (LATER.manifest.replace("keep", "Keep It"), "is not a name"),
        (LATER.manifest.replace("sink:", "snk:"), "did you mean 'sink'"),
        ("&a [*a]", "manifest.yaml:1"),
    ],
    ids=["cycle", "no-yaml", "kind", "name", "key", "anchor"],
)
async def test_a_refused_manifest_says_why_and_changes_nothing(
    world: World, manifest: str, message: str
) -> None:
    """Nothing of the file is applied, not even the document before the bad one."""
    good = LATER.manifest.replace("later", "beside-a-bad-one")
    said = await world.deployment.apply(f"{good}\n---\n{manifest}", expect=1)
    assert message in said
    assert await world.deployment.phase("beside-a-bad-one") == ""


async def test_everything_else_goes_on(world: World) -> None:
    """After all that a new pipeline over the same processes runs to its end; none has died."""
    await world.deployment.apply(LATER.manifest)
    await world.deployment.wait_for_phase("later", "Completed")
    assert world.written("later") == EVERYTHING
    processes = world.deployment.cluster.processes.values()
    assert [one.name for one in processes if not one.running] == []
    ours = [one for one in processes if one.name.startswith("router-") or "sidecar" in one.name]
    assert [one.name for one in ours if "Traceback" in one.log.read_text()] == []
