import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

Run = Callable[..., Result]
Data = Callable[..., Any]

SINK = """\
---
apiVersion: conveyor/v1
kind: Sink
metadata: {name: warehouse}
spec: {config: {country: NO}}
"""


@pytest.fixture
def clean(run: Run, flights: Path) -> Path:
    """The manifest, of which the cluster knows nothing."""
    flights.write_text(flights.read_text() + SINK)
    run("delete", "-f", str(flights), "--ignore-not-found")
    return flights


def test_apply_is_idempotent(run: Run, clean: Path) -> None:
    """The first time creates, the second changes nothing."""
    first = run("apply", "-f", str(clean)).stdout
    assert "Pipeline default/flights created (version 1), Pending\n" in first
    assert "Sink default/warehouse created (version 1)" in first
    second = run("apply", "-f", str(clean)).stdout
    assert "Pipeline default/flights unchanged (version 1), Pending" in second
    assert "Sink default/warehouse unchanged" in second


def test_warnings_of_the_cluster_have_their_place(run: Run, clean: Path) -> None:
    """Services that are not there yet are named with the line that asks for them."""
    result = run("apply", "-f", str(clean))
    assert f"{clean}:7: warning: spec.stages[1].transform: no Transform named 'enrich'" in (
        result.stderr
    )


def test_apply_shows_what_changes(run: Run, clean: Path) -> None:
    """Key by key, stages by their id; a dry run shows the same and changes nothing."""
    run("apply", "-f", str(clean))
    text = clean.read_text().replace("country: NO", "country: SE, opens: 12:30")
    clean.write_text(text.replace("  sink:", "  enabled: false\n  sink:"))
    for flags in (["--dry-run"], []):
        found = run("apply", "-f", str(clean), *flags).stdout
        assert "  ~ spec.enabled: true -> false" in found
        assert "  ~ spec.config.country: NO -> SE" in found
        assert "  + spec.config.opens: 12:30" in found
        assert ("(dry run)" in found) == bool(flags)
    assert "unchanged" in run("apply", "-f", str(clean)).stdout


def test_apply_is_all_or_nothing(run: Run, data: Data, clean: Path) -> None:
    """A promise that cannot be kept refuses the whole file."""
    clean.write_text(clean.read_text().replace("spec:", "spec:\n  delivery: effectively-once", 1))
    result = run("apply", "-f", str(clean), code=1)
    assert f"{clean}:6: error: spec.stages[0].source: effectively-once needs the Source" in (
        result.stderr
    )
    assert "Pipeline default/flights refused" in result.stdout
    assert "Sink default/warehouse skipped" in result.stdout
    assert "nothing was changed" in result.stderr
    assert data("get", "documents")["items"] == []


def test_apply_as_data(data: Data, clean: Path) -> None:
    """Outcome, version, phase, changes and problems of each document."""
    data("apply", "-f", str(clean))
    clean.write_text(clean.read_text().replace("country: NO", "country: SE"))
    found = data("apply", "-f", str(clean))
    assert found["schema_version"] == 1
    assert found["applied"] is True
    pipeline, sink = found["documents"]
    assert (pipeline["outcome"], pipeline["phase"]) == ("unchanged", "Pending")
    assert pipeline["problems"][0]["severity"] == "warning"
    assert sink["outcome"] == "updated"
    assert sink["changes"] == [{"path": "spec.config.country", "before": "NO", "after": "SE"}]


def test_what_get_prints_can_be_applied(run: Run, clean: Path) -> None:
    """`get documents -o yaml` is a backup: applied again it changes nothing."""
    run("apply", "-f", str(clean))
    backup = run("get", "documents", "-o", "yaml").stdout
    assert [d["kind"] for d in yaml.safe_load_all(backup)] == ["Pipeline", "Sink"]
    again = run("apply", "-f", "-", stdin=backup).stdout
    assert again.count("unchanged") == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Pipelin", "did you mean 'Pipeline'"),
        ("a: [", ":2:1: "),
        ("", "no document in"),
    ],
)
def test_a_broken_file_never_reaches_the_cluster(
    run: Run, tmp_path: Path, text: str, problem: str
) -> None:
    """It is refused here, even with no router at all."""
    path = tmp_path / "broken.yaml"
    path.write_text(text and f"apiVersion: conveyor/v1\n{text}\n" if "kind" in text else text)
    result = run("apply", "-f", str(path), code=1, CONVEYOR_ENDPOINT="127.0.0.1:1")
    assert problem in result.stderr.replace(f"{path}:1:5: ", ":2:1: ")
    assert "Traceback" not in result.output


def test_an_absent_file_is_named(run: Run, tmp_path: Path) -> None:
    """With the system's reason."""
    result = run("apply", "-f", str(tmp_path / "absent.yaml"), code=1)
    assert "absent.yaml: No such file or directory" in result.stderr


def test_validate_needs_no_cluster(run: Run, flights: Path) -> None:
    """It says of each document that it is valid, or everything that is wrong."""
    nowhere = {"CONVEYOR_ENDPOINT": "127.0.0.1:1"}
    assert (
        "Pipeline default/flights is valid" in run("validate", "-f", str(flights), **nowhere).stdout
    )
    flights.write_text(flights.read_text().replace("sink:", "snk:").replace("name: f", "nam: f"))
    result = run("validate", "-f", str(flights), code=1, **nowhere)
    assert f"{flights}:3: metadata.nam: unknown key 'nam' (did you mean 'name'?)" in result.stderr
    assert f"{flights}:4: spec: the short form" in result.stderr
    found = json.loads(run("validate", "-f", str(flights), "-o", "json", code=1, **nowhere).stdout)
    assert found["valid"] is False
    assert {p["path"] for p in found["problems"]} >= {"metadata.nam", "spec"}


def test_delete(run: Run, data: Data, clean: Path) -> None:
    """By name or by file; what is absent is an error unless it may be."""
    run("apply", "-f", str(clean))
    assert "would be deleted" in run("delete", "sink", "warehouse", "--dry-run").stdout
    result = run("delete", "sink", "warehouse")
    assert "Sink default/warehouse deleted" in result.stdout
    assert "pipeline default/flights refers to it" in result.stderr
    assert "does not exist" in run("delete", "sink", "warehouse", code=3).stdout
    run("delete", "sink", "warehouse", "--ignore-not-found")
    found = json.loads(run("delete", "-f", str(clean), "--ignore-not-found", "-o", "json").stdout)
    assert [document["outcome"] for document in found["documents"]] == [
        "deleted",
        "does not exist",
    ]
    assert data("get", "documents")["items"] == []
