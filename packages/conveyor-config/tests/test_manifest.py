import io
from pathlib import Path
from typing import Any

import pytest

from conveyor_config import FileUnreadable, Manifests, ManifestsRefused, load_manifests

LONG = """\
apiVersion: conveyor/v1
kind: Pipeline
metadata: {name: flights}
spec:
  stages:
    - {id: flights, source: flights}
    - id: enrich
      transform: enrich
      parallelism: 2
    - {id: warehouse, sink: warehouse}
"""
SHORT = """\
apiVersion: conveyor/v1
kind: Pipeline
metadata:
  name: short
spec:
  source: flights
  steps:
    - drop-cancelled
    - enrich
  sink: warehouse
"""
SINK = """\
apiVersion: conveyor/v1
kind: Sink
metadata: {name: warehouse}
spec:
  config:
    country: NO
    opens: 12:30
    rows: 1_000
"""


def loaded(tmp_path: Path, **texts: str) -> Manifests:
    paths = []
    for name, text in texts.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        paths.append(path)
    return load_manifests(paths)


def refused(tmp_path: Path, **texts: str) -> list[str]:
    with pytest.raises(ManifestsRefused) as caught:
        loaded(tmp_path, **texts)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_files_and_documents_keep_their_order(tmp_path: Path) -> None:
    """Several files, several documents each, one result."""
    found = loaded(tmp_path, a=f"{LONG}---\n{SINK}", b=SHORT)
    assert [str(document.key) for document in found.documents] == [
        "Pipeline default/flights",
        "Sink default/warehouse",
        "Pipeline default/short",
    ]
    assert [p.name for p in found.pipelines] == ["flights", "short"]
    assert [s.name for s in found.services] == ["warehouse"]
    assert len(found) == 3


def test_values_are_what_their_author_means(tmp_path: Path) -> None:
    """Norway, half past twelve and a thousand with an underscore arrive as they were written."""
    (sink,) = loaded(tmp_path, a=SINK).services
    assert sink.spec.config == {"country": "NO", "opens": "12:30", "rows": "1_000"}


def test_a_folder_is_read_by_name_without_its_subfolders(tmp_path: Path) -> None:
    """Only manifests of the folder itself; other files are not touched."""
    (tmp_path / "b.yaml").write_text(SHORT)
    (tmp_path / "a.yml").write_text(LONG)
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/c.yaml").write_text("{")
    assert [p.name for p in load_manifests([tmp_path]).pipelines] == ["flights", "short"]


def test_stdin_is_a_dash(monkeypatch: Any) -> None:
    """``-`` reads what is piped in, and places say so."""

    class Piped:
        buffer = io.BytesIO(SHORT.encode())

    monkeypatch.setattr("sys.stdin", Piped)
    (manifest,) = load_manifests(["-"])
    assert manifest.place_of(("spec", "sink")) == "<stdin>:10"


def test_json_is_read(tmp_path: Path) -> None:
    """What ``conveyor get -o json`` prints can be applied."""
    (pipeline,) = loaded(tmp_path, a=SHORT).pipelines
    path = tmp_path / "again.json"
    path.write_bytes(pipeline.canonical())
    assert load_manifests([path]).pipelines == (pipeline,)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """An absent file and a folder without manifests are errors."""
    with pytest.raises(FileUnreadable, match=r"No such file|has no \.yaml"):
        load_manifests([tmp_path / name])


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    """Each with file, line and path."""
    found = refused(
        tmp_path,
        a=LONG.replace("parallelism", "paralelism").replace("stages:", "delivry: x\n  stages:"),
        b="a: [",
        c=SINK.replace("kind: Sink", "kind: Snk"),
        d=SHORT.replace("enrich", "Enrich"),
    )
    assert [line.split(" ")[0] for line in found] == [
        "a.yaml:10:",
        "a.yaml:5:",
        "b.yaml:2:1:",
        "c.yaml:2:",
        "d.yaml:9:",
    ]
    assert (
        "spec.stages[1].paralelism: unknown key 'paralelism' (did you mean 'parallelism'?)"
        in (found[0])
    )
    assert "did you mean 'Sink'?" in found[3]
    assert "spec.steps[1]: 'Enrich' is not a name" in found[4]


def test_the_graph_is_checked_too(tmp_path: Path) -> None:
    """A cycle is found before anything is sent, at its edges."""
    edges = "  edges:\n" + "".join(
        f"    - {{from: {a}, to: {b}}}\n"
        for a, b in [("flights", "enrich"), ("enrich", "enrich"), ("enrich", "warehouse")]
    )
    assert refused(tmp_path, a=LONG + edges) == [
        "a.yaml:11: spec.edges: the stages form a cycle: enrich -> enrich"
    ]


def test_a_predicate_shows_its_caret(tmp_path: Path) -> None:
    """The line of the edge, then the text and the caret."""
    text = LONG.replace("    - {id: warehouse, sink: warehouse}\n", "")
    text += "    - {id: warehouse, sink: warehouse}\n  edges:\n    - {from: flights, to: enrich}\n"
    text += "    - from: enrich\n      to: warehouse\n      when: type = 'a'\n"
    (found,) = refused(tmp_path, a=text)
    assert found.splitlines() == [
        "a.yaml:15: spec.edges[1].when: write == to compare (at character 6)",
        "  type = 'a'",
        "       ^",
    ]


def test_the_same_document_twice_is_refused(tmp_path: Path) -> None:
    """The second names the place of the first."""
    (found,) = refused(tmp_path, a=SHORT, b=SHORT)
    assert found.startswith("b.yaml:4: metadata: Pipeline default/short stands already at ")
    assert found.endswith("a.yaml:1")


def test_two_stages_of_one_service_need_the_long_form(tmp_path: Path) -> None:
    """In the short form a service can stand once, and the place is the author's."""
    (found,) = refused(tmp_path, a=SHORT.replace("drop-cancelled", "enrich"))
    assert found.startswith("a.yaml:9: spec.steps[1]: the id 'enrich' is already")


def test_warnings_do_not_refuse(tmp_path: Path) -> None:
    """They come with the result."""
    text = LONG + "  edges:\n    - {from: flights, to: enrich, allowLoss: true}\n"
    found = loaded(tmp_path, a=text + "    - {from: enrich, to: warehouse}\n")
    (warning,) = found.warnings
    assert not warning.is_error
    assert ":12: warning: spec.edges[0].allowLoss" in str(warning)


def test_the_clusters_findings_get_their_places(tmp_path: Path) -> None:
    """A path of the expanded document leads to the line of the short form."""
    (manifest,) = loaded(tmp_path, a=SHORT)
    assert manifest.place_of(("spec", "stages", 2, "transform")).endswith("a.yaml:9")
