import subprocess
import sys

import pytest
from click.testing import CliRunner

from conveyor_cli.commands.get import get
from conveyor_cli.main import COMMANDS, cli
from conveyor_cli.processes import program


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_helps_by_examples(name: str) -> None:
    """Help shows what to type, and its first sentence is what the group's help says."""
    code, output = invoke(name, "--help")
    assert code == 0
    assert f"  conveyor {name}" in output
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]


def test_the_groups_help_names_commands_and_exit_codes() -> None:
    """A newcomer sees where to begin, a script's author which codes there are."""
    code, output = invoke("--help")
    assert code == 0
    for word in (*COMMANDS, "Begin with:", "Exit codes:", "CONVEYOR_ENDPOINT"):
        assert word in output


def test_the_version_is_the_distributions() -> None:
    """--version names the program."""
    code, output = invoke("--version")
    assert code == 0
    assert output.startswith("conveyor, version 0.")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["aply"], "Did you mean 'apply'?"),
        (["get", "pipelnes"], "did you mean pipelines?"),
        (["get"], "Missing argument 'KIND'"),
        (["-e", "nowhere", "get", "pipelines"], "host:port"),
        (["get", "pipelines", "-o", "xml"], "'table', 'json', 'yaml'"),
        (["apply"], "Missing option '-f'"),
        (["delete"], "give KIND and NAME, or -f"),
        (["delete", "pipeline", "a", "-f", "b"], "not both"),
        (["schema", "Pipelin"], "Pipelin"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str], hint: str) -> None:
    """And says what would be right."""
    code, output = invoke(*arguments)
    assert code == 2
    assert hint in output


@pytest.mark.parametrize("word", ["pipeline", "pipelines", "PIPELINE"])
def test_kinds_are_singular_or_plural(word: str) -> None:
    """People write what comes to mind."""
    kind = next(p.type for p in get.params if p.name == "kind")
    assert kind.convert(word, None, None) == "pipelines"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that calls back this program."""
    code, output = invoke("completion", shell)
    assert code == 0
    assert "_CONVEYOR_COMPLETE" in output


def test_completion_offers_commands_and_kinds() -> None:
    """The installed program answers its own completion."""

    def completed(words: str) -> str:
        environment = {
            "_CONVEYOR_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = subprocess.run(
            [program("conveyor")], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert "plain,apply" in completed("conveyor ap")
    assert "plain,pipelines" in completed("conveyor get pi")


def test_help_needs_no_grpc() -> None:
    """--help answers at once: nothing heavy is imported for it."""
    code = (
        "import sys; from conveyor_cli.main import cli; cli(['--help'], standalone_mode=False);"
        "sys.exit(bool({'grpc', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )


def test_schema_prints_json_schema() -> None:
    """Any kind in any case; manifests by default."""
    code, output = invoke("schema", "pipeline")
    assert code == 0
    assert '"$schema"' in output
    assert invoke("schema")[1].startswith("{")
