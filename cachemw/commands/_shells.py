"""Completion scripts for shells, made from an argument parser.

Pure: from a parser to a table, and from the table to a script's text.

Imports: nothing of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Argument(NamedTuple):
    """One option, or one argument without a name.

    :param flags: such as ``-c`` and ``--config``; none: it goes by its place.
    :param about: one line.
    :param takes: what its value is: ``""`` (it has none), ``"file"``, ``"dir"``, ``"words"``
        or ``"any"``.
    :param words: what the value may be, for ``"words"``.
    """

    flags: tuple[str, ...]
    about: str
    takes: str
    words: tuple[str, ...] = ()


class Command(NamedTuple):
    """One command, with what it takes."""

    name: str
    about: str
    arguments: tuple[Argument, ...]


def commands_of(parser: argparse.ArgumentParser) -> list[Command]:
    """Read the commands of a parser."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found += [
                Command(name, about.get(name, ""), tuple(map(_argument, command._actions)))
                for name, command in action.choices.items()
            ]
    return found


def _argument(action: argparse.Action) -> Argument:
    flags, about = tuple(action.option_strings), (action.help or "").replace("%%", "%")
    if action.choices is not None:
        return Argument(flags, about, "words", tuple(map(str, action.choices)))
    if action.nargs == 0:
        return Argument(flags, about, "")
    names = str(action.metavar or "")
    takes = "file" if names.startswith("FILE") else "dir" if names == "DIR" else "any"
    return Argument(flags, about, takes)


def bash(commands: Sequence[Command]) -> str:
    """Make the script for bash, which needs nothing but bash."""
    cases = []
    for command in commands:
        flags = " ".join(flag for argument in command.arguments for flag in argument.flags)
        words = " ".join(w for a in command.arguments if not a.flags for w in a.words)
        cases.append(
            f"        {command.name})\n"
            f'            flags="{flags}"\n'
            f'            words="{words}"\n'
            f'            case "$previous" in\n'
            + "".join(_bash_value(argument) for argument in command.arguments)
            + "            esac ;;"
        )
    return _BASH.format(
        commands=" ".join(command.name for command in commands), cases="\n".join(cases)
    )


def _bash_value(argument: Argument) -> str:
    if not argument.flags or not argument.takes:
        return ""
    action = {
        "file": 'takes="-f"',
        "dir": 'takes="-d"',
        "words": f"takes=\"-W '{' '.join(argument.words)}'\"",
        "any": 'takes="none"',
    }[argument.takes]
    return f"                {'|'.join(argument.flags)}) {action} ;;\n"


# COMP_WORDBREAKS splits OPTION=VALUE and http://..., of which nothing is completed.
_BASH = """\
# bash completion for cachemw; written by "cachemw completion bash"
_cachemw() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="" command="" flags="" words="" takes=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -gt 0 ]; then previous="${{COMP_WORDS[COMP_CWORD - 1]}}"; fi
    if [ "$COMP_CWORD" -le 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$current"))
        return
    fi
    command="${{COMP_WORDS[1]}}"
    case "$command" in
{cases}
    esac
    case "$takes" in
    none) return ;;
    -f|-d)
        local IFS=$'\\n'
        COMPREPLY=($(compgen "$takes" -- "$current"))
        compopt -o filenames 2>/dev/null
        return ;;
    -W*)
        words="${{takes#-W }}"
        words="${{words//\\'/}}"
        flags="" ;;
    esac
    if [[ "$current" == -* || -z "$words" ]]; then words="$flags"; fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _cachemw cachemw"""


def zsh(commands: Sequence[Command]) -> str:
    """Make the script for zsh: a file ``_cachemw`` in ``$fpath``, or read by ``source``."""
    described = "\n".join(
        f"        {_quoted(f'{command.name}:{command.about}')}" for command in commands
    )
    cases = "\n".join(
        f"        {command.name})\n            _arguments \\\n"
        + " \\\n".join(f"                {spec}" for a in command.arguments for spec in _zsh(a))
        + " ;;"
        for command in commands
    )
    return _ZSH.format(commands=described, cases=cases)


def _zsh(argument: Argument) -> list[str]:
    values = {
        "": "",
        "file": ":file:_files",
        "dir": ":directory:_files -/",
        "words": f":value:({' '.join(argument.words)})",
        "any": ":value: ",
    }[argument.takes]
    if not argument.flags:
        return [_quoted(f"*{values or ':value: '}")]
    about = argument.about
    for character in "\\[]:":
        about = about.replace(character, f"\\{character}")
    return [_quoted(f"*{flag}[{about}]{values}") for flag in argument.flags]


def _quoted(text: str) -> str:
    """Quote a text for a shell, whatever is in it."""
    return "'" + text.replace("'", "'\\''") + "'"


_ZSH = """\
#compdef cachemw
# zsh completion for cachemw; written by "cachemw completion zsh"
_cachemw() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command="$words[2]"
    shift words
    (( CURRENT -= 1 ))
    case "$command" in
{cases}
    esac
}}
if [ "$funcstack[1]" = "_cachemw" ]; then
    _cachemw "$@"
else
    compdef _cachemw cachemw
fi"""


def fish(commands: Sequence[Command]) -> str:
    """Make the script for fish."""
    lines = [
        '# fish completion for cachemw; written by "cachemw completion fish"',
        "complete -c cachemw -f",
    ]
    for command in commands:
        lines.append(
            f"complete -c cachemw -n __fish_use_subcommand -a {command.name}"
            f" -d {_fish_quoted(command.about)}"
        )
    for command in commands:
        lines += [_fish(command.name, argument) for argument in command.arguments]
    return "\n".join(lines)


def _fish(command: str, argument: Argument) -> str:
    seen = _fish_quoted(f"__fish_seen_subcommand_from {command}")
    parts = [f"complete -c cachemw -n {seen}"]
    for flag in argument.flags:
        parts.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
    values = {
        "": "",
        "file": "-rF" if argument.flags else "-F",
        "dir": "-xa '(__fish_complete_directories)'",
        "words": f"-xa {_fish_quoted(' '.join(argument.words))}",
        "any": "-x" if argument.flags else "",
    }[argument.takes]
    return " ".join([*parts, *([values] if values else []), f"-d {_fish_quoted(argument.about)}"])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


#: What makes the script for each shell.
SCRIPTS: dict[str, Callable[[Sequence[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
