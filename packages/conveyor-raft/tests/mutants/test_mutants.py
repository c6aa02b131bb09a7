from pathlib import Path

import pytest

from conveyor_raft.testing import mutants
from conveyor_raft.testing.mutants import main
from conveyor_raft.testing.planted_bugs import PlantedBug, hunt, patch, read_bugs, select

TESTS = Path(__file__).parents[1]
BUGS = read_bugs()
# How many seeds each needs at most; the measured ones are a fraction of it.
QUICK = {
    "reply before the vote is durable": 20,
    "count old-term entries": 20,
    "forget the vote on restart": 150,
    "truncate on a stale append": 20,
    "acknowledge an unwritten entry": 20,
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_patch_matches_exactly_once(bug):
    """In the package as it is; a patch that rots would be a bug that cannot be found."""
    assert bug.new in patch(bug)
    for path in bug.tests:
        assert (TESTS / path).exists()


def test_there_are_enough_of_them():
    """Forty at the least, most of them for the simulator."""
    assert len(BUGS) >= 40
    assert len([bug for bug in BUGS if not bug.tests]) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_the_simulator_finds_the_planted_bug(name):
    """In far fewer than 2,000 seeds of 3,000 events."""
    (bug,) = select(BUGS, [name])
    find = hunt(bug, seeds=QUICK[name], events=3_000, tests=TESTS)
    assert find is not None
    print(f"{name}: {find.seeds} seeds, {find.by}")


@pytest.mark.slow
def test_a_unit_test_finds_a_planted_bug():
    """And is named."""
    (bug,) = select(BUGS, ["a window is never freed"])
    find = hunt(bug, seeds=0, events=0, tests=TESTS)
    assert find is not None
    assert find.by.startswith("test_progress.py::")


VOTE = "    replica.promise(message.sender, VoteReply(granted))\n"


def _ballot(name, new, old=VOTE, tests=()):
    return PlantedBug(name, "core/ballot.py", tests, old, new)


def test_a_patch_that_does_not_match_is_refused():
    """With the number of places that it matches."""
    with pytest.raises(ValueError, match="holds the patched text 0 times"):
        patch(_ballot("rotten", "", old="no such text\n"))


@pytest.mark.slow
def test_a_patch_that_does_not_run_is_no_find():
    """A NameError would be found in the first seed, or by the first test, and prove nothing."""
    with pytest.raises(RuntimeError, match="does not run: NameError"):
        hunt(
            _ballot("broken", "    nobody.promise(message.sender, VoteReply(granted))\n"),
            seeds=1,
            events=300,
            tests=TESTS,
        )
    broken = _ballot(
        "broken",
        "    nobody.promise(message.sender, VoteReply(granted))\n",
        tests=("core/test_ballot.py",),
    )
    with pytest.raises(RuntimeError, match="does not run: NameError"):
        hunt(broken, seeds=1, events=300, tests=TESTS)
    with pytest.raises(SyntaxError):
        hunt(_ballot("worse", "    replica.promise((\n"), seeds=1, events=300, tests=TESTS)


@pytest.mark.slow
def test_the_command_counts_who_lives(monkeypatch, capsys):
    """A patch that changes nothing that matters is not found, and the command fails."""
    harmless = "    replica.promise(message.sender, VoteReply(bool(granted)))\n"
    bugs = [
        _ballot("harmless", harmless),
        _ballot("untested", harmless, tests=("core/test_quorum.py",)),
        _ballot("rotten", "", old="no such text\n"),
    ]
    monkeypatch.setattr(mutants, "read_bugs", lambda: bugs)
    arguments = ["--seeds", "1", "--events", "200", "--tests", str(TESTS), "--jobs", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "| harmless | **ALIVE** | not in 1 |" in printed
    assert "| untested | **ALIVE** | not in these tests |" in printed
    assert "| rotten | **NOT PLANTED** |" in printed
    assert "0 of 3 planted bugs found" in printed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a name alone", "is not name, `in`, `found by`, patch"),
        ("a name\nin core/log.py\nfound by luck\nwithout a sign", "is not name"),
        ("a name\nin core/log.py\nfound by simulation\n+only new", "changes nothing"),
        (
            "twice\nin a.py\nfound by simulation\n-a\n+b\n\n"
            "twice\nin a.py\nfound by simulation\n-a\n+b",
            "two bugs are called 'twice'",
        ),
    ],
)
def test_a_patch_that_is_not_written_as_it_should_be_is_named(tmp_path, text, words):
    """With its file; comments are left out."""
    (tmp_path / "some.txt").write_text(f"# About these.\n\n{text}\n")
    with pytest.raises(ValueError, match=words):
        read_bugs(tmp_path)
