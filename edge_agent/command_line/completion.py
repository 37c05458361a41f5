"""Scripts that let bash, zsh and fish complete the command line; made from the parser itself.

Nothing of the agent runs while somebody types: what can be completed stands in the script.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Option(NamedTuple):
    """One option of a command."""

    names: Sequence[str]
    meaning: str
    choices: Sequence[str]
    takes_value: bool
    takes_file: bool


class Command(NamedTuple):
    """One command."""

    name: str
    meaning: str
    options: Sequence[Option]
    choices: Sequence[str]
    """Of its argument; empty where it is a file."""


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``."""
    makers: Mapping[str, Callable[[str, Sequence[Command]], str]] = {
        "bash": _bash,
        "zsh": _zsh,
        "fish": _fish,
    }
    return makers[shell](parser.prog, commands(parser))


def commands(parser: argparse.ArgumentParser) -> list[Command]:
    """What a parser takes."""
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    meanings = {entry.dest: entry.help or "" for entry in subparsers._choices_actions}
    return [_command(name, meanings[name], inner) for name, inner in subparsers.choices.items()]


def _command(name: str, meaning: str, parser: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    choices: list[str] = []
    for action in parser._actions:
        given = [str(choice) for choice in action.choices or ()]
        if not action.option_strings:
            choices += given
            continue
        takes = action.nargs != 0
        file = takes and (action.type is Path or action.metavar == "STREAM=FILE")
        meaning_ = (action.help or "") % {**vars(action), "prog": parser.prog}
        options.append(Option(action.option_strings, meaning_, given, takes, file))
    return Command(name, meaning, options, choices)


def _function(program: str) -> str:
    return "_" + re.sub(r"\W", "_", program)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _bash(program: str, found: Sequence[Command]) -> str:
    options: list[str] = []
    values: list[str] = []
    for command in found:
        names = [name for option in command.options for name in option.names]
        words = " ".join([*names, *command.choices])
        options.append(f"        {command.name}) words={_quoted(words)} ;;")
        for option in command.options:
            key = "|".join(f"{command.name}:{name}" for name in option.names)
            if option.choices:
                chosen = _quoted(" ".join(option.choices))
                line = f'COMPREPLY=($(compgen -W {chosen} -- "$current"))'
            elif option.takes_file:
                line = 'COMPREPLY=($(compgen -f -- "${current#*=}"))'
            elif option.takes_value:
                line = ":"
            else:
                continue
            values.append(f"        {key}) {line}; return ;;")
    function = _function(program)
    all_names = _quoted(" ".join(command.name for command in found))
    return f"""\
# {program} in bash: eval "$({program} completion bash)"
{function}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W {all_names} -- "$current"))
        return
    fi
    case "$command:$before" in
{chr(10).join(values)}
    esac
    case "$command" in
{chr(10).join(options)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case "$current" in
        -*) ;;
        *) COMPREPLY+=($(compgen -f -- "$current")) ;;
    esac
}}
complete -o filenames -F {function} {program}
"""


def _zsh(program: str, found: Sequence[Command]) -> str:
    def escaped(text: str) -> str:
        return re.sub(r"([\[\]:\\])", r"\\\1", text)

    listed = "\n".join(f"        {_quoted(f'{c.name}:{c.meaning}')}" for c in found)
    cases = []
    for command in found:
        lines = []
        for option in command.options:
            value = ""
            if option.choices:
                value = f":value:({' '.join(option.choices)})"
            elif option.takes_value:
                value = ":file:_files" if option.takes_file else ":value:"
            lines += [_quoted(f"{name}[{escaped(option.meaning)}]{value}") for name in option.names]
        chosen = f"({' '.join(command.choices)})" if command.choices else "_files"
        lines.append(_quoted(f"*:argument:{chosen}"))
        cases.append(f"        {command.name}) _arguments {' '.join(lines)} ;;")
    function = _function(program)
    return f"""\
#compdef {program}
# {program} in zsh: eval "$({program} completion zsh)"
{function}() {{
    local -a commands
    commands=(
{listed}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command="$words[2]"
    shift words
    (( CURRENT-- ))
    case "$command" in
{chr(10).join(cases)}
    esac
}}
compdef {function} {program}
"""


def _fish(program: str, found: Sequence[Command]) -> str:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    names = " ".join(command.name for command in found)
    lines = [f"# {program} in fish: {program} completion fish | source"]
    start = f"complete -c {program} -n {quoted(f'not __fish_seen_subcommand_from {names}')} -f"
    lines += [f"{start} -a {c.name} -d {quoted(c.meaning)}" for c in found]
    for command in found:
        here = f"complete -c {program} -n {quoted(f'__fish_seen_subcommand_from {command.name}')}"
        if command.choices:
            lines.append(f"{here} -f -a {quoted(' '.join(command.choices))}")
        for option in command.options:
            flags = [
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            ]
            if option.choices:
                flags.append(f"-x -a {quoted(' '.join(option.choices))}")
            elif option.takes_value:
                flags.append("-r" if option.takes_file else "-x")
            lines.append(f"{here} {' '.join(flags)} -d {quoted(option.meaning)}")
    return "\n".join(lines) + "\n"
