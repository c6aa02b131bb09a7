from pathlib import Path

import pytest

from conveyor_raft.testing.scripts import Script, ScriptError, main, run_script

FOLDER = Path(__file__).parents[1] / "scripts"
SCRIPTS = sorted(FOLDER.rglob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_the_scenario_runs_as_it_is_written(path, request):
    """The whole transcript; `--rewrite` renews it."""
    text = path.read_text()
    transcript = run_script(text)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(transcript)
    else:
        assert transcript == text


def test_there_are_scripts():
    """A glob that finds nothing would pass everything."""
    assert len(SCRIPTS) >= 11


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dance 1", "no such command"),
        ("campaign 9", "KeyError"),
        ("campaign", "IndexError"),
        ("write one", "ValueError"),
        ("cluster 3 colour=1", "TypeError"),
        ("expect 1 role=leader", "role is follower, not leader"),
        ("expect 1 mood=good", "no fact mood; there are role"),
        ("forge 2->1 Greeting term=1", "there is no message Greeting"),
        ("forge 2->1 Heartbeat term=1 colour=1", "Heartbeat has no colour, but session"),
    ],
)
def test_a_command_that_makes_no_sense_is_named(command, words):
    """With the command itself in the message."""
    script = Script()
    script.run("cluster 1")
    with pytest.raises(ScriptError, match=words) as caught:
        script.run(command)
    assert command in str(caught.value)


def test_a_node_that_is_down_takes_no_commands():
    """It must be restarted first."""
    script = Script()
    script.run("cluster 3")
    script.run("crash 2")
    with pytest.raises(ScriptError, match="node 2 is down"):
        script.run("write 2")
    assert script.run("show 2") == ["node 2: down; its disk ends at 1"]


def test_rewriting_makes_the_behaviour_the_rule(tmp_path, capsys):
    """A difference is reported, rewritten on request, and then gone."""
    file = tmp_path / "small.txt"
    file.write_text("# One node.\ncluster 1\n")
    assert main([str(file)]) == 1
    assert "differs" in capsys.readouterr().out
    assert main([str(file), "--rewrite"]) == 0
    assert file.read_text().startswith("# One node.\ncluster 1\n----\nnode 1: follower in term 1")
    assert main([str(file)]) == 0


def test_rewriting_never_makes_a_broken_expectation_the_rule(tmp_path, capsys):
    """What a script expects is stated by its author, not by the code."""
    file = tmp_path / "broken.txt"
    file.write_text("cluster 1\n\nexpect 1 role=leader\n")
    assert main([str(file), "--rewrite"]) == 1
    assert "fails" in capsys.readouterr().out
    assert file.read_text() == "cluster 1\n\nexpect 1 role=leader\n"


def test_a_forged_message_meets_what_a_real_one_would():
    """Fields that are not given are 0; a contradiction stops the node, as it would any driver."""
    script = Script()
    script.run("cluster 3")
    script.run("forge 2->1 Heartbeat term=2 session=1 commit=1")
    script.run("expect 1 role=follower leader=2 term=2 commit=1")
    script.run("forge 3->1 Heartbeat term=2 cluster=another")
    script.run("expect 1 leader=2 foreign=1")
    script.run("forge 2->1 AppendEntries term=2 session=1 prev=1/1 frames=2/2:x,y")
    script.run("expect 1 last=3/2")
    assert script.run("forge 3->1 Heartbeat term=2")[-1].startswith("  node 1 stops: node 3 leads")


def test_a_failed_write_ends_the_node():
    """As `on_write_failed` says."""
    script = Script()
    script.run("cluster 3")
    script.run("campaign 1")
    assert script.run("fail 1")[0] == "write 1 of node 1 fails"
    assert "refused: failed" in script.run("propose 1 a")[0]
