"""The interactive prompt: Mininet's CLI with its grammar, over the nodes and pods of a running lab.

What Mininet does by hanging shells together is done with deadlines here (ping, iperf3); what would change the machine
(xterm, dpctl, `mn -c` and the like) is gone. Leaving the prompt, Ctrl-C included, leaves the lab as it is.

A script (standard input that is no terminal, or `-c`) runs to its end; its exit code tells whether a command failed.
"""

import atexit
import contextlib
import os
import shlex
import sys
import termios
from cmd import Cmd
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from select import POLLIN, poll
from typing import IO, Any, ClassVar, Final

from plugin.core.errors import InputError, WeaveError, said_by
from testbed.lab.running import Lab
from testbed.machine import interrupts
from testbed.machine.interrupts import InterruptedBySignalError
from testbed.machine.unexpected import explain
from testbed.prompt.commands import LabCommands
from testbed.prompt.net import LabNet, show_output_on

# isort: split
# testbed.prompt.host has put Mininet's stand-in in place.
from mininet.log import error, output

_PROMPT: Final = "weavelab> "
_KEYS_BYTES: Final = 1024
_TERMINALS: Final = "no windows are opened: in another terminal, `weavelab exec MEMBER -- bash`"
_NO_OPENFLOW: Final = (
    "the switches here are Linux bridges, without OpenFlow: `node1 bridge fdb show` shows their entries"
)
_GONE: Final = {
    "x": "no windows are opened: the program runs at `MEMBER COMMAND`",
    "xterm": _TERMINALS,
    "gterm": _TERMINALS,
    "dpctl": _NO_OPENFLOW,
    "ports": _NO_OPENFLOW,
    "switch": "a switch is not started or stopped here: `link node1 br-lan down` pulls its cable",
    "iperfudp": "a topology's `iperf` step has `protocol: udp`; by hand: `blue iperf3 -s -D`, `red iperf3 -u -c blue`",
    "pingallfull": "`pingall` says who reaches whom, `red ping blue` how long it takes",
    "pingpairfull": "`pingpair A B` says whether it answers, `red ping blue` how long it takes",
}
"""Commands of Mininet that have no meaning here, and what does the same."""
_HISTORY: Final = Path("~/.weavelab_history")
_HISTORY_LINES: Final = 1000

_HELP: Final = """
A command for a member of the lab starts with its name; the names of others in it stand for their addresses:
  weavelab> red ip route
  weavelab> red ping -c1 green
  weavelab> node1 bridge fdb show dev vxlan-6784
Everything after '#' is a comment. `exit`, or Ctrl-D, leaves the prompt; the lab stays up.
"""


def run_shell(lab: Lab, commands: Sequence[str], *, stdin: IO[str]) -> int:
    """Attach to the lab and read commands until there are no more.

    Args:
        lab: The running lab.
        commands: Run these instead of reading; each is a line as at the prompt.
        stdin: Where lines come from otherwise.

    Returns:
        0, or 1 when a scripted command failed (at a terminal always 0: the person has seen it).
    """
    show_output_on(sys.stdout)
    net = LabNet(lab)
    shell = LabShell(net, stdin=stdin)
    try:
        if commands:
            shell.run_lines([line for command in commands for line in command.splitlines()])
        elif stdin.isatty():
            with interrupts.each_key():
                shell.run_prompt()
            return 0
        else:
            shell.run_lines(stdin)
        return 1 if shell.failed else 0
    finally:
        net.close()


class LabShell(LabCommands):
    """The prompt."""

    prompt = _PROMPT
    intro = "Nodes and pods by name; `help` lists the rest, `exit` leaves (the lab stays up)."
    doc_header = "Commands (type help COMMAND):"
    helpStr: ClassVar[str] = _HELP  # noqa: N815 - Mininet's name for it

    def __init__(self, net: LabNet, *, stdin: IO[str]) -> None:
        # Not CLI.__init__: that starts reading at once and keeps its history among Mininet's.
        self.mn = net
        self.failed = False
        self._sources: list[Path] = []
        # Python's own `exit` closes standard input, which a script is read from.
        self.locals = {"net": net, "exit": sys.exit, "quit": sys.exit}
        self.inputFile = None
        self.inPoller = poll()
        self.inPoller.register(stdin)
        Cmd.__init__(self, stdin=stdin, stdout=sys.stdout)

    # ---- reading lines

    def run_prompt(self) -> None:
        """Read from a terminal; Ctrl-C gives up the line or the running command, never the prompt."""
        self._keep_history()
        self.run()
        with interrupts.raised() as signals:
            signals.check()

    def cmdloop(self, intro: Any = None) -> None:
        """Read lines until `exit`, or until a signal wants the command to end: Mininet's `run` would read on."""
        with contextlib.suppress(InterruptedBySignalError), interrupts.raised() as signals:
            signals.check()
            super().cmdloop(intro)

    def run_lines(self, lines: Iterable[str]) -> None:
        """Run lines without a prompt; `exit` ends early."""
        for line in lines:
            if self.onecmd(self.precmd(line.rstrip("\n"))):
                return

    def onecmd(self, line: str) -> Any:
        """Run one line. What goes wrong is shown, noted in `failed`, and no reason to end."""
        try:
            self.mn.refresh()
            if (word := self.parseline(line)[0]) in _GONE:
                self.fail(f"{word} has no meaning here", _GONE[word])
                return None
            return super().onecmd(line)
        except WeaveError as problem:
            self.fail(problem.message, problem.hint)
        except (OSError, TimeoutError) as problem:
            self.fail(said_by(problem), "is the lab still up? `status` shows it")
        except Exception as problem:  # noqa: BLE001 - a command that fails, Mininet's too, does not end the prompt
            trace, text = explain(problem)
            self.fail(*f"{trace}{text}".rsplit("\n", 1))
        return None

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """A line's first word and its rest. A member's name may have a hyphen: for cmd the word would end there."""
        first, *rest = line.split(maxsplit=1) or [""]
        if "-" in first and first in self.mn:
            return first, rest[0] if rest else "", line.strip()
        parsed: tuple[str | None, str | None, str] = super().parseline(line)
        return parsed

    def get_names(self) -> list[str]:
        """What `help` lists: Mininet's commands without those that make no sense here."""
        return [name for name in super().get_names() if name.removeprefix("do_") not in _GONE]

    def completenames(self, text: str, *_ignored: Any) -> list[str]:
        """Commands and members."""
        names = [name.removeprefix("do_") for name in self.get_names() if name.startswith("do_")]
        return [name for name in [*names, *self.mn] if name.startswith(text)]

    def completedefault(self, text: str, *_ignored: Any) -> list[str]:
        """Members."""
        return [name for name in self.mn if name.startswith(text)]

    # ---- commands for members

    def default(self, line: str) -> None:
        """A line that starts with a member's name: run the rest there, in its shell, with names made addresses."""
        first, rest, _ = self.parseline(line)
        if not first or first not in self.mn:
            self.fail(f"unknown command: {line.strip()}", "`help` lists commands, `nodes` and `pods` the members")
            return
        if not rest:
            self.fail(f"what shall {first} do?", f"for example: {first} ip address")
            return
        member = self.mn[first]
        member.sendCmd(self._for_shell(self._with_addresses(rest)))
        shell = member.shell
        self.waitForNode(member)
        # `exit` ends the shell itself; the next command gets another one.
        code = str(shell.returncode) if member.shell is None else member.cmd("echo $?").strip()
        if code != "0":
            self.failed = True
            if not self.isatty():
                error(f"*** {first}: exit code {code}\n")

    def _for_shell(self, command: str) -> str:
        """The command so that the shell always comes back.

        An open quote is an error and not the wish for a second line; in a script nothing waits for keys that nobody
        will press.
        """
        if command.endswith("&"):  # Mininet itself has to see that it goes to the background
            return command
        return f"eval {shlex.quote(command)}" + ("" if self.isatty() else " </dev/null")

    def _with_addresses(self, rest: str) -> str:
        return " ".join(self.mn.address_of(word) or word for word in rest.split(" "))

    def waitForNode(self, node: Any) -> None:  # noqa: N802 - Mininet's interface
        """Show a command's output until it ends; Ctrl-C interrupts it.

        Keys go to it at a terminal only: a script's next lines are not its input.
        """
        keys = self.stdin.fileno() if self.isatty() else None
        ready = poll()
        with _key_by_key(keys), contextlib.ExitStack() as stack:
            end_of_shell = os.pidfd_open(node.shell.pid)
            stack.callback(os.close, end_of_shell)
            for fd in (node.stdout, end_of_shell, *(() if keys is None else (keys,))):
                ready.register(fd, POLLIN)
            while node.waiting:
                try:
                    happened = {fd for fd, _event in ready.poll()}
                    if keys in happened:
                        os.write(node.stdin.fileno(), os.read(keys, _KEYS_BYTES))
                    if node.stdout.fileno() in happened:
                        output(node.monitor())
                    elif end_of_shell in happened:  # `exit` ended the shell, and all that it wrote is read
                        node.shell.poll()
                        node.cleanup()
                except KeyboardInterrupt as stop:
                    node.sendInt()
                    if keys is None or isinstance(stop, InterruptedBySignalError):
                        raise  # a script ends with it, and the prompt when it was not Ctrl-C

    # ---- what Mininet's would do differently

    def do_help(self, line: str) -> None:
        """List the commands, or explain one: help [COMMAND]."""
        if line in self.mn:
            output(f"{line} is a member of the lab: `{line} COMMAND` runs a command there\n")
        elif line in _GONE:
            self.fail(f"{line} has no meaning here", _GONE[line])
        elif line and not hasattr(self, f"do_{line}"):
            self.fail(f"there is no command {line}", "`help` lists them")
        else:
            Cmd.do_help(self, line)
        if not line:
            output(self.helpStr)

    def do_noecho(self, line: str) -> None:
        """Run a command of a member without showing keys: noecho MEMBER COMMAND."""
        if not line:
            raise InputError("wanted a member and a command", hint="for example: noecho red sh")
        super().do_noecho(line)

    def do_time(self, line: str) -> None:
        """Measure how long a command takes: time COMMAND."""
        if not line:
            raise InputError("wanted a command", hint="for example: time pingall")
        super().do_time(line)

    def do_exit(self, _line: str) -> bool:
        """Leave the prompt; the lab stays up."""
        return True

    do_quit = do_exit

    def do_EOF(self, _line: str) -> bool:  # noqa: N802 - cmd's name for the end of input
        """Ctrl-D: as exit."""
        output("\n")
        return True

    def do_sh(self, line: str) -> None:
        """Run a command on the machine itself, outside the lab: sh COMMAND."""
        if not line:
            raise InputError("wanted a command", hint="for example: sh ip netns list")
        if os.system(line) != 0:  # noqa: S605 - that is what was asked for
            self.failed = True

    def do_source(self, line: str) -> None:
        """Run the lines of a file: source FILE."""
        try:
            words = shlex.split(line)
        except ValueError:  # an open quote
            words = []
        if len(words) != 1:
            raise InputError("wanted one file", hint="for example: source commands.txt")
        path = Path(words[0]).resolve()
        if path in self._sources:
            raise InputError(f"{path} runs itself", hint="take its `source` line out")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is no UTF-8 text"
            raise InputError(f"{words[0]} cannot be read: {why}") from problem
        self._sources.append(path)
        try:
            self.run_lines(lines)
        finally:
            self._sources.pop()

    def _keep_history(self) -> None:
        try:
            import readline  # noqa: PLC0415 - absent in some builds of Python
        except ImportError:
            return
        path = _HISTORY.expanduser()
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        readline.set_history_length(_HISTORY_LINES)

        def save() -> None:
            with contextlib.suppress(OSError):  # a home directory that cannot be written to
                readline.write_history_file(path)

        atexit.register(save)


@contextlib.contextmanager
def _key_by_key(terminal: int | None) -> Iterator[None]:
    """Within the block every key is read when it is pressed, not when the line ends."""
    if terminal is None:
        yield
        return
    before = termios.tcgetattr(terminal)
    wanted = termios.tcgetattr(terminal)
    wanted[3] &= ~termios.ICANON  # the local modes (termios(3)); Ctrl-C stays a signal
    termios.tcsetattr(terminal, termios.TCSADRAIN, wanted)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
