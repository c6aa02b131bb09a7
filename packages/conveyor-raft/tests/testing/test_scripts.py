from pathlib import Path

import pytest

from conveyor_raft.testing.scripts import Script, ScriptError, main, run_script

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_scenario_runs_as_it_is_written(path):
    """The whole transcript; `python -m conveyor_raft.testing.scripts --rewrite` renews it."""
    text = path.read_text()
    assert run_script(text) == text


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
