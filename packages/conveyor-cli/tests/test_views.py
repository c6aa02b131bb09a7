import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from conveyor_cli.processes import LocalCluster, program

Run = Callable[..., Result]
Data = Callable[..., Any]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("pipelines", "default    flights  Running"),
        ("services", "default    enrich     Transform  Healthy  127.0.0.1:6002  sidecar-a"),
        ("sidecars", "default    sidecar-a  Healthy  127.0.0.1:9091  pod-a"),
        ("groups", "readers  flights"),
        ("assignments", "default/flights  flights    Source"),
        ("documents", "Pipeline  default    flights"),
    ],
)
def test_each_kind_is_listed(run: Run, deployed: Path, kind: str, first: str) -> None:
    """One line each under a heading; as data, a list under `items`."""
    heading, line, *_ = run("get", kind).stdout.splitlines()
    assert heading.split(" ")[0].isupper()
    assert line.startswith(first)
    found = json.loads(run("get", kind, "-o", "json").stdout)
    assert found["kind"].endswith("List")
    assert len(found["items"]) >= 1


def test_documents_are_listed_by_kind_too(run: Run, deployed: Path) -> None:
    """What `describe` and `delete` know as a kind, `get` knows too."""
    assert run("get", "sinks").stderr == "no sinks\n"
    assert run("get", "transform").stderr == "no transforms\n"


def test_a_name_keeps_one(run: Run, data: Data, deployed: Path) -> None:
    """Services by id or by name; an unknown name names the nearest and exits with 3."""
    assert [s["id"] for s in data("get", "services", "enrich")["items"]] == ["enrich-6002"]
    assert len(data("get", "assignments", "flights")["items"]) == 3
    result = run("get", "pipelines", "flight", code=3)
    assert "did you mean 'flights'?" in result.stderr
    assert run("get", "pipelines", "-n", "other").stderr == "no pipelines in namespace other\n"


def test_describe_a_pipeline(run: Run, data: Data, deployed: Path) -> None:
    """Document, phase, stages, assignments, positions in one answer."""
    text = run("describe", "pipeline", "flights").stdout
    for part in ("phase: Running", "sidecar-a", "apiVersion: conveyor/v1", "1200"):
        assert part in text
    found = data("describe", "pipeline", "flights")
    assert [stage["stage"] for stage in found["stages"]] == ["flights", "enrich", "warehouse"]
    assert found["document"]["metadata"]["name"] == "flights"
    assert len(found["assignments"]) == 3


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("sidecar", "sidecar-a", "boot_id"),
        ("service", "enrich-6002", "service_kind"),
        ("service", "enrich", "service_kind"),
        ("group", "readers", "members"),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_describe_the_others(run: Run, data: Data, kind: str, name: str, key: str) -> None:
    """All facts as YAML, or as data."""
    assert f"{key}:" in run("describe", kind, name).stdout
    assert key in data("describe", kind, name)
    assert "there is no" in run("describe", kind, "absent", code=3).stderr


def test_status(run: Run, data: Data, deployed: Path) -> None:
    """Routers with their leader, stages with counters and rates, sidecars with their age."""
    text = run("status").stdout
    assert "leader 1" in text
    assert "pipeline default/flights  Running" in text
    assert "1,200" in text
    found = data("status", "flights")
    assert found["cluster"]["leader"] == 1
    assert found["cluster"]["members"][0]["role"] == "leader"
    enrich = found["pipelines"][0]["stages"][1]
    assert (enrich["records_in"], enrich["records_out"]) == (1200, 1100)
    assert "records_per_second" in enrich
    assert found["sidecars"][0]["heartbeat_age_s"] < 60
    assert "there is no" in run("status", "absent", code=3).stderr


def test_colour_is_for_terminals(run: Run, deployed: Path) -> None:
    """Piped output has no escape sequences."""
    assert "\x1b" not in run("status").output


def test_nobody_at_the_endpoint(run: Run) -> None:
    """Exit code 4, the address, and what to do."""
    result = run("--timeout", "1", "-e", "127.0.0.1:1", "get", "pipelines", code=4)
    assert "127.0.0.1:1 cannot be reached" in result.stderr
    assert "next: " in result.stderr
    assert result.stdout == ""


def test_any_of_several_endpoints_will_do(run: Run, endpoint: str) -> None:
    """A dead address in the list costs nothing but a moment."""
    assert "ROUTER" in run("-e", f"127.0.0.1:1,{endpoint}", "status").stdout


def test_status_of_a_cluster_that_is_not_formed(run: Run, tmp_path: Path) -> None:
    """It shows who answers and who does not, and exits with 4."""
    with LocalCluster(tmp_path) as cluster:
        router, *_ = cluster.add_routers(2)
        router.start()
        deadline = time.monotonic() + 20
        while True:
            arguments = ("-e", cluster.endpoints, "--timeout", "1", "status", "-o", "json")
            found = json.loads(run(*arguments, code=4).stdout)
            roles = [member["role"] for member in found["cluster"]["members"]]
            if "follower" in roles or time.monotonic() > deadline:
                break
    assert roles == ["follower", "unreachable"]
    assert found["cluster"]["leader"] is None
    assert found["trouble"]


def test_watch_prints_each_change_until_interrupted(
    run: Run, deployed: Path, endpoint: str
) -> None:
    """Away from a terminal one line of JSON per change; Ctrl-C ends it with 130."""
    command = [program("conveyor"), "-e", endpoint, "get", "pipelines", "--watch"]
    watcher = subprocess.Popen(
        [*command, "-o", "json", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may have had it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with watcher:
        try:
            assert watcher.stdout is not None
            first = json.loads(watcher.stdout.readline())
            assert first["items"][0]["phase"] == "Running"
            text = deployed.read_text()
            deployed.write_text(text + "  enabled: false\n")
            run("apply", "-f", str(deployed))
            second = json.loads(watcher.stdout.readline())
            assert second["items"][0]["document"]["spec"]["enabled"] is False
        finally:
            watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 130
