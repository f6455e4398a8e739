"""The pages of the documentation as things to type: their commands in order, and what the page shows after each.

A page writes commands in these ways, and `commands` knows all of them:

- a block ``console``: a line ``$ ...`` is typed, what follows it is what comes; ``...`` stands for lines left out;
- within it, behind a command that opens a shell inside a member (``exec node1 -- bash``), lines ``# ...`` are typed into
  that shell, and behind ``weavelab cli`` lines ``weavelab> ...`` into the prompt;
- a block without a language, or an indented one, of command lines only.

A block ``python`` is a program for `.venv/bin/python`.

A comment behind a command may say ``exit code N``, ``Ctrl-C`` of one that does not end by itself, or on what its
numbers ``depends``.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.project import ROOT

PAGES: Final = sorted(
    [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *ROOT.glob("docs/**/*.md")]
)
FENCE: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_INDENTED: Final = re.compile(r"(?:^|\n)\n((?: {4}.+\n)+)")
_PROGRAMS: Final = (
    r"(?:sudo|make|vagrant|weavelab|\.venv/bin/\w+|bash|sh|openssl|podman|docker|kubectl|pip|git|curl|[A-Z_]+=\S* \S+)"
)
_ELSEWHERE: Final = {ROOT / "docs/exam.md"}
"""Pages whose blocks are for a real cluster, with words in capitals to be filled in: none of it can be typed here."""

_ENDLESS: Final = re.compile(
    r"\btcpdump\b(?!.* -c)|\btail -f"
    r"|weavelab logs\b.* (?:-f|--follow)\b|weavelab capture\b(?!.* (?:-c|--count|--for)\b)"
)
_TYPED: Final = re.compile(rf"^{_PROGRAMS}\b")
_SHELL: Final = re.compile(r"^(.*weavelab exec .*-- )(?:ba)?sh$")
_PROMPT: Final = re.compile(r"^(.*weavelab cli\b[^<|]*?)$")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of the code blocks, in their order; indented ones have no language."""
    text = page.read_text()
    found = [(block.start(), block[1], block[2]) for block in FENCE.finditer(text)]
    blanked = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    found += [(block.start(1), "", block[1]) for block in _INDENTED.finditer(blanked) if block[1].strip()]
    yield from ((language, block) for _, language, block in sorted(found))


@dataclass(slots=True)
class Command:
    """Something to type.

    Attributes:
        line: As the page has it, without its prompt and its comment.
        run: What a shell of the machine is given for it: `line`, or that line inside a member.
        comment: What stands behind it.
        shown: The lines that the page shows after it.
    """

    line: str
    run: str
    comment: str = ""
    shown: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The one that the page announces."""
        announced = re.search(r"exit code (\d+)", self.comment)
        return int(announced[1]) if announced else 0

    @property
    def varies(self) -> bool:
        """Whether the numbers that come depend on chance."""
        return "depends" in self.comment

    @property
    def endless(self) -> bool:
        """Whether it goes on until Ctrl-C."""
        return goes_on(self.line, self.comment)


def goes_on(line: str, comment: str) -> bool:
    """Whether a command goes on until Ctrl-C: its comment says so, or it is known to."""
    return "Ctrl-C" in comment or _ENDLESS.search(line) is not None


def command(text: str, wrap: str = "{}") -> Command:
    """A command line as it is written, with its comment; `wrap` is how it gets into the shell that it is typed in."""
    line, comment = text.strip(), ""
    for found in re.finditer(r"(?:^|\s)# ", text):
        if _whole(text[: found.start()]):
            line, comment = text[: found.start()].strip(), text[found.end() :].strip()
            break
    return Command(line, wrap.format(shlex.quote(line)) if wrap != "{}" else line, comment)


def commands(page: Path) -> Iterator[Command]:
    """Everything that the page wants to be typed, in its order."""
    opened = _Opened()
    if page in _ELSEWHERE:
        return
    for language, text in blocks(page):
        if language == "console":
            yield from _console(text, opened)
        elif language in {"", "sh", "bash"}:
            yield from _plain(text)
        elif language == "python":
            yield Command(text.splitlines()[0], f".venv/bin/python - <<'END'\n{text}END\n")


@dataclass(slots=True)
class _Opened:
    """The shell inside a member, or the prompt, that the last command of the machine has opened: how lines get there."""

    shell: str = ""
    prompt: str = ""

    def take(self, line: str) -> Command | None:
        """The command that a line is; None when it is output."""
        if line.startswith("$ "):
            new = command(line[2:])
            shell, prompt = _SHELL.match(new.run), _PROMPT.match(new.run)
            self.shell = f"{shell[1]}sh -c {{}}" if shell else ""
            self.prompt = f"{prompt[1]} -c {{}}" if prompt and " -c" not in new.run else ""
            return new
        if self.shell and line.startswith("# "):
            return command(line[2:], self.shell)
        if self.prompt and line.startswith("weavelab> "):
            return command(line.removeprefix("weavelab> "), self.prompt)
        return None


def _console(text: str, opened: _Opened) -> Iterator[Command]:
    typed: Command | None = None
    for line in text.splitlines():
        new = opened.take(line)
        if new is None:
            assert typed is not None, f"output before a command: {line!r}"
            typed.shown.append(line)
            continue
        if typed is not None:
            yield typed
        typed = new
    if typed is not None:
        yield typed


def _plain(text: str) -> Iterator[Command]:
    lines = re.sub(r"\\\n *", "", text).splitlines()
    lines = [line.strip() for line in lines if line.strip() and "[OPTIONS]" not in line]  # that is a usage
    if any(_TYPED.match(line) for line in lines):
        assert all(_TYPED.match(line) for line in lines), f"commands and others in one block: {text}"
        yield from map(command, lines)


def _whole(text: str) -> bool:
    """Whether no quotation is open at the end of it."""
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------- outputs

_VOLATILE: Final = [
    (re.compile(r"\b(?!0a:58:)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<MAC>"),
    (re.compile(r"\bveth\w+"), "<link>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"(?<![\w:])\d\d:\d\d:\d\d(?:\.\d+)?(?![\w:])"), "<time>"),
    (re.compile(r"\bring [0-9a-f]{16}\b"), "ring <id>"),
    (re.compile(r"^[0-9a-f]{12} (?=0a:5)"), "<container> "),
    (re.compile(r"\b\d+(?:\.\d+)?( ?m?s\b)"), r"<number>\1"),
    (re.compile(r"(_ms\": )[\d.]+"), r"\1<number>"),
    (re.compile(r"(ports? |probe )\d{4,5}\b"), r"\1<number>"),
    (re.compile(r"\b(id |seq )\d{1,5}\b"), r"\1<number>"),
    (re.compile(r"\b\d+(?:\.\d+)?(?: [KMG]bits?/sec| [KMG]bit/s)"), "<rate>"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"/\S*/(?=topologies/)"), ""),
    (re.compile(r"\s+"), " "),
]
"""What differs from lab to lab and from run to run, and is not compared: names made from MAC addresses, times, rates."""


def plain(line: str) -> str:
    """A line of output without what differs from run to run."""
    for pattern, word in _VOLATILE:
        line = pattern.sub(word, line)
    return line.strip()


def difference(command: Command, output: str) -> str:
    """What the page shows and does not come, or comes and is not shown; empty when they are the same."""
    wanted = [plain(line) for line in command.shown if line.strip()]
    found = [plain(line) for line in output.splitlines() if line.strip()]
    if command.varies:
        wanted, found = ([re.sub(r"\d+", "<number>", line) for line in lines] for lines in (wanted, found))
    place = 0
    for index, line in enumerate(wanted):
        if line == "...":
            continue
        left_out = index > 0 and wanted[index - 1] == "..."
        if left_out:
            place = next((at for at in range(place, len(found)) if found[at] == line), len(found))
        if place >= len(found) or found[place] != line:
            came = found[place] if place < len(found) else "nothing more"
            return f"shown:  {line}\ncame:   {came}"
        place += 1
    if wanted and wanted[-1] != "..." and place < len(found):
        return f"not shown: {found[place]}"
    return ""


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain_text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain_text).replace(" ", "-")


def first_cells(page: str, heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    text = FENCE.sub("", (ROOT / page).read_text())
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"{page} has no section {heading}"
    cells = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("|")]
    return {found for cell in cells for found in re.findall(r"`([^`]+)`", cell)}
