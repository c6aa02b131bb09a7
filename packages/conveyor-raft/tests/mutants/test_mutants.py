import pytest

from conveyor_raft.testing import mutants
from conveyor_raft.testing.mutants import MUTANTS, Mutant, hunt, main, plant

# How many seeds each needs at most; the measured ones are a fraction of it.
QUICK = {
    "reply before the vote is durable": 20,
    "count old-term entries": 20,
    "forget the vote on restart": 60,
    "truncate on a stale append": 20,
    "acknowledge an unwritten entry": 20,
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_patch_matches_exactly_once(mutant, tmp_path):
    """In the package as it is; a patch that rots would be a mutant that cannot be found."""
    plant(mutant, tmp_path)
    patched = (tmp_path / "conveyor_raft" / mutant.module).read_text()
    assert mutant.new in patched


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_the_simulator_finds_the_planted_bug(name):
    """In far fewer than 2,000 seeds of 3,000 events."""
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    catch = hunt(mutant, seeds=QUICK[name], events=3_000)
    assert catch is not None
    print(f"{name}: {catch.seeds} seeds, {catch.rule}")


def test_a_patch_that_does_not_match_is_refused(tmp_path):
    """With the number of places that it matches."""
    rotten = Mutant("rotten", "core/ballot.py", "no such text", "")
    with pytest.raises(ValueError, match="holds the patched text 0 times"):
        plant(rotten, tmp_path)


def test_a_patch_that_does_not_run_is_no_find():
    """A NameError would be found in the first seed and prove nothing."""
    broken = Mutant("broken", "core/ballot.py", "granted = free and", "granted = nobody and")
    with pytest.raises(RuntimeError, match="does not run: NameError"):
        hunt(broken, seeds=1, events=200)
    worse = Mutant("worse", "core/ballot.py", "granted = free and", "granted = (")
    with pytest.raises(RuntimeError, match="did not run"):
        hunt(worse, seeds=1, events=200)


def test_the_command_counts_who_lives(monkeypatch, capsys):
    """A mutant that does nothing is not found, and the command fails."""
    harmless = Mutant(
        "harmless", "core/ballot.py", "granted = free and", "granted = 1 and free and"
    )
    monkeypatch.setattr(mutants, "MUTANTS", (harmless,))
    assert main(["--seeds", "1", "--events", "200"]) == 1
    assert "ALIVE  harmless: not found in 1 seeds" in capsys.readouterr().out
