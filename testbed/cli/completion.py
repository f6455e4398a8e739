"""`weavelab completion`: what a shell needs to complete our commands, and the answers to its questions.

The script of a shell calls `weavelab` with the line so far in its environment, as click has it; `answer` prints what
may follow: commands and options by click, labs, members and scenarios by the table `_KNOWN`, which goes by the names of
parameters. It reads what everybody may read, so nobody has to be root, also where the line begins with sudo. What
cannot be known is not offered; nothing is ever said about it.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    from testbed.lab.running import Lab
    from testbed.topology.model import Topology

VARIABLE: Final = "_WEAVELAB_COMPLETE"
"""Set by the scripts, to `bash_complete` and the like: then the command line answers instead of doing anything."""

_EXAMPLES: Final = """
\b
Examples:
  source <(weavelab completion bash)       in this shell; the set-up installs it for all
  weavelab completion zsh > ~/.zfunc/_weavelab
  weavelab completion fish > ~/.config/fish/completions/weavelab.fish
"""

_BASH: Final = """\
# Completion of weavelab for bash; made by `weavelab completion bash`.
_weavelab_completion() {
    local IFS=$'\\n' kind value answer
    COMPREPLY=()
    local line="${COMP_WORDS[*]}" at=$COMP_CWORD
    for answer in $(env COMP_WORDS="$line" COMP_CWORD="$at" _WEAVELAB_COMPLETE=bash_complete "$1" 2>/dev/null); do
        IFS=',' read -r kind value <<<"$answer"
        case $kind in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F _weavelab_completion weavelab
"""

_ZSH: Final = """\
#compdef weavelab
# Completion of weavelab for zsh; made by `weavelab completion zsh`.
_weavelab() {
    local -a plain described answers
    local kind key help
    local -x COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _WEAVELAB_COMPLETE=zsh_complete
    answers=("${(@f)$(${~words[1]} 2>/dev/null)}")
    for kind key help in $answers; do
        case $kind in
            plain) if [[ $help == _ ]]; then plain+=("$key"); else described+=("${key//:/\\\\:}:$help"); fi ;;
            dir) _path_files -/ ;;
            file) _path_files -f ;;
        esac
    done
    (( $#described )) && _describe -V weavelab described
    (( $#plain )) && compadd -V weavelab -a plain
    return 0
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _weavelab "$@"
else
    compdef _weavelab weavelab
fi
"""

_FISH: Final = """\
# Completion of weavelab for fish; made by `weavelab completion fish`.
function __weavelab_complete
    set -l words (commandline -opc)
    set -lx COMP_WORDS (string join ' ' -- (string escape -- $words))
    set -lx COMP_CWORD (commandline -ct)
    set -lx _WEAVELAB_COMPLETE fish_complete
    for answer in ($words[1] 2>/dev/null)
        set -l parts (string split -m 1 , -- $answer)
        switch $parts[1]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command weavelab --arguments '(__weavelab_complete)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command(epilog=_EXAMPLES, short_help="Print what a shell needs to complete commands.")
@click.argument("shell", type=click.Choice(list(_SCRIPTS)))
def completion(shell: str) -> None:
    """Print the script that lets bash, zsh or fish complete commands, options, labs, members and scenarios."""
    click.echo(_SCRIPTS[shell], nl=False)


def answer(cli: click.Group, question: str) -> None:
    """Print what may follow, as the script of the shell reads it; nothing at all when that is not known.

    Args:
        cli: The command line.
        question: The value of `VARIABLE`.
    """
    asking = get_completion_class(question.removesuffix("_complete"))
    if asking is None:
        return
    with contextlib.suppress(Exception):  # nobody asked for an error between two keys
        shell = asking(cli, {}, "weavelab", VARIABLE)
        words, incomplete = shell.get_completion_args()
        _teach(cli, words)
        for item in shell.get_completions(words, incomplete):
            click.echo(shell.format_completion(item))


class _Known(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5, and not before
    """A parameter whose values are known by name; for anything but completion it is what it was."""

    def __init__(self, names: Callable[[Mapping[str, Any]], Iterable[str]], before: "click.ParamType[Any]") -> None:
        self.name = before.name
        self._names = names
        self._before = before

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        return self._before.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, without those on the line already; then what the parameter offers anyway."""
        used = ctx.params.get(param.name or "") or ()
        taken = {used} if isinstance(used, str) else set(used)
        found: list[str] = []
        with contextlib.suppress(Exception):  # no lab, no such file, not for our eyes: then there are no names
            found = [name for name in self._names(ctx.params) if name.startswith(incomplete) and name not in taken]
        return [CompletionItem(name) for name in found] + self._before.shell_complete(ctx, param, incomplete)


def _teach(cli: click.Group, words: Sequence[str]) -> None:
    """Give the parameters of the command on the line their names."""
    command: click.Command | None = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        if not word.startswith("-"):
            command = command.get_command(click.Context(command), word)
    for param in command.params if command is not None else ():
        names = _KNOWN.get(f"{command.name if command else ''} {param.name}") or _KNOWN.get(param.name or "")
        if names is not None:
            param.type = _Known(names, param.type)


def _labs(_given: Mapping[str, Any]) -> list[str]:
    from testbed.lab import state  # noqa: PLC0415 - a tenth of a second, for those who need it

    return state.labs()


def _lab(given: Mapping[str, Any]) -> "Lab":
    from testbed.lab.running import Lab  # noqa: PLC0415

    return Lab.load(given.get("lab"))


def _members(given: Mapping[str, Any]) -> list[str]:
    from testbed.lab.paths import UNDERLAY  # noqa: PLC0415
    from testbed.topology.names import OUTSIDE  # noqa: PLC0415

    lab = _lab(given)
    return [*lab.pods, *lab.nodes, *lab.routers, OUTSIDE, UNDERLAY]


def _nodes(given: Mapping[str, Any]) -> list[str]:
    return [*_lab(given).nodes]


def _pods(given: Mapping[str, Any]) -> list[str]:
    return [*_lab(given).pods]


def _scenarios(given: Mapping[str, Any]) -> list[str]:
    return [scenario.name for scenario in _topology(given).scenarios]


def _tags(given: Mapping[str, Any]) -> list[str]:
    return sorted({tag for scenario in _topology(given).scenarios for tag in getattr(scenario, "tags", ())})


def _topology(given: Mapping[str, Any]) -> "Topology":
    """The one that the line names, as an option, by its lab or as its first word; else the default one."""
    if given.get("lab"):
        return _lab(given).topology
    from testbed.cli.lab import default_topology  # noqa: PLC0415
    from testbed.topology.load import load_topology  # noqa: PLC0415

    words = given.get("words") or ()
    files = [word for word in (given.get("topology"), *words) if word and str(word).endswith((".yaml", ".yml"))]
    return load_topology(Path(files[0]) if files else default_topology())


_KNOWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterable[str]]]] = {
    "lab": _labs,
    "labs": _labs,
    "lab_or_file": _labs,
    "target": _members,
    "targets": _members,
    "exec command": _members,
    "node": _nodes,
    "nodes": _nodes,
    "delete names": _pods,
    "scenarios": _scenarios,
    "words": _scenarios,
    "tags": _tags,
}
"""By the name of a parameter, or of a command and its parameter."""
