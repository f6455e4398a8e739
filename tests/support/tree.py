"""A folder with everything in it, as something that can be compared; and a machine that dies at a chosen moment."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from testbed.deploy.machine import LocalMachine, Said, temporary


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below a folder, with its kind and permissions, and its content or where it points."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            content = b""
            if stat.S_ISREG(mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(mode):
                content = os.fsencode(path.readlink())
            found[str(path.relative_to(root))] = (mode, content)
    return found


class DeathError(BaseException):
    """The command was killed: nothing of it runs any more, not even its clean-up."""


class DyingMachine(LocalMachine):
    """Is killed at the n-th change, before it or half-way through it; counts changes."""

    def __init__(self, root: Path, *, dies_at: int = -1, half_way: bool = False) -> None:
        super().__init__(root)
        self.changes = 0
        self._dies_at, self._half_way = dies_at, half_way

    def _change(self, path: str, content: bytes = b"") -> None:
        self.changes += 1
        if self.changes == self._dies_at:
            if self._half_way and content:
                new = self._place(temporary(path))
                if new.parent.is_dir():
                    new.write_bytes(content[: len(content) // 2])
            raise DeathError

    def write(self, path: str, content: bytes, mode: int) -> None:
        self._change(path, content)
        super().write(path, content, mode)

    def make_folder(self, path: str) -> None:
        self._change(path)
        super().make_folder(path)

    def move(self, path: str, to: str) -> None:
        self._change(path)
        super().move(path, to)

    def remove(self, path: str) -> None:
        self._change(path)
        super().remove(path)

    def remove_folder(self, path: str) -> bool:
        self._change(path)
        return super().remove_folder(path)


class LiveMachine(LocalMachine):
    """A folder that passes for a running machine: programs are looked up in a table, and noted.

    Args:
        root: The folder.
        says: What a program says, by the beginning of its command line; anything else ends with 0 and says nothing.
    """

    def __init__(self, root: Path, says: dict[str, Said] | None = None) -> None:
        super().__init__(root)
        self.live = True
        self.says = says or {}
        self.ran: list[str] = []

    def _place(self, path: str, *, last: bool = False) -> Path:
        return self._root.joinpath(path.lstrip("/"))

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Said:
        assert timeout_s > 0, "nothing waits without a limit"
        line = " ".join(argv)
        self.ran.append(line)
        return next((said for start, said in self.says.items() if line.startswith(start)), Said(0, ""))
