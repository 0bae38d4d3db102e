"""Completion scripts, as shells read them."""

import shutil
import subprocess

import pytest

from cachemw.commands import main, make_parser
from cachemw.commands._shells import Argument, Command, commands_of, fish, zsh

COMMANDS = {command.name: command for command in commands_of(make_parser())}


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def shell(name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def run(*command, stdin="", cwd=None):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.fixture
def complete(tmp_path, capsys):
    """Have bash complete the last of some words."""
    (tmp_path / "some.ini").write_text("")
    (tmp_path / "some directory").mkdir()
    text = script("bash", capsys)

    def complete(*words):
        quoted = " ".join(f"'{word}'" for word in ("cachemw", *words))
        asked = (
            f"{text}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _cachemw\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        return [line for line in run(shell("bash"), stdin=asked, cwd=tmp_path).splitlines() if line]

    return complete


def test_bash_completes_commands(complete):
    assert complete("") == [*COMMANDS, "--help", "--version"]
    assert complete("s") == [name for name in COMMANDS if name.startswith("s")]
    assert complete("cl") == ["clean"]


@pytest.mark.parametrize("name", COMMANDS)
def test_bash_completes_every_option_of_a_command(complete, name):
    flags = [flag for argument in COMMANDS[name].arguments for flag in argument.flags]

    assert sorted(complete(name, "-")) == sorted(flags)
    assert "--help" in flags


def test_bash_completes_what_options_take(complete):
    assert complete("list", "--sort", "") == ["id", "size", "hits", "accessed", "modified"]
    assert complete("list", "--sort", "a") == ["accessed"]
    assert complete("list", "-c", "some.") == ["some.ini"]
    assert complete("list", "--dir", "") == ["some directory"]
    assert complete("list", "--limit", "") == []
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    assert complete("nonsense", "-") == []


def test_bash_asks_for_the_completion_of_this_command(capsys):
    asked = f"{script('bash', capsys)}\ncomplete -p cachemw\n"

    assert run(shell("bash"), stdin=asked) == "complete -F _cachemw cachemw\n"


def test_zsh_takes_the_script(capsys):
    asked = (
        f"autoload -Uz compinit; compinit -D -u\n{script('zsh', capsys)}\nprint $_comps[cachemw]\n"
    )

    assert run(shell("zsh"), "-f", "-s", stdin=asked) == "_cachemw\n"


def test_fish_completes_commands_and_options(capsys, tmp_path):
    text = script("fish", capsys)
    (tmp_path / "x.fish").write_text(text)

    def complete(line):
        asked = f"source x.fish; complete --do-complete '{line}'"
        out = run(shell("fish"), "--no-config", "-c", asked, cwd=tmp_path)
        return [line.partition("\t")[0] for line in out.splitlines()]

    assert sorted(complete("cachemw ")) == sorted(COMMANDS)
    for name, command in COMMANDS.items():
        flags = {flag for argument in command.arguments for flag in argument.flags}
        assert set(complete(f"cachemw {name} -")) >= flags
    assert set(complete("cachemw list --sort ")) == {"id", "size", "hits", "accessed", "modified"}


def test_texts_are_quoted_for_their_shell():
    command = Command("x", "it's [odd]: \\", (Argument(("-a",), "don't: [x]", "any"),))

    assert r"'*-a[don'\''t\: \[x\]]:value: '" in zsh([command])
    assert r"-d 'it\'s [odd]: \\'" in fish([command])
