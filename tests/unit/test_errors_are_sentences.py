"""An `OSError` is told in words: no `[Errno 28]`, no `[Errno None]`, no `None`, in anything that a person reads."""

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.core.errors import CheckError, said_by
from tests.support.project import ROOT

SYSTEM = {
    "OSError", "FileNotFoundError", "PermissionError", "ConnectionError", "BrokenPipeError", "TimeoutError",
    "NetlinkError", "FileExistsError", "NotADirectoryError", "socket.gaierror",
}  # fmt: skip
"""Errors whose text Python begins with a number."""

ALONE = {Path("plugin/cni"), Path("plugin/tool")}
"""Programs that import nothing of ours: the kernel's own words, `error.strerror`, are theirs to use."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"), "No space left on device: /tmp/x"),
        (OSError(errno.ENOENT, "No such file or directory", "a", None, "b"), "No such file or directory: a and b"),
        (OSError(errno.EPERM, "setns: Operation not permitted"), "setns: Operation not permitted"),
        (OSError("an answer of more than 64 MiB"), "an answer of more than 64 MiB"),
        (OSError(None, "the kernel's words"), "the kernel's words"),
        (OSError(None, None), "OSError"),
        (OSError(), "OSError"),
        (TimeoutError(), "timed out"),
        (ValueError("not JSON"), "not JSON"),
        (CheckError("our sentence", hint="what to do"), "our sentence"),
    ],
)
def test_an_error_is_said_in_words(error: Exception, text: str) -> None:
    assert said_by(error) == text


def test_a_path_that_the_sentence_names_is_not_named_twice() -> None:
    assert said_by(OSError(errno.ENOSPC, "No space left on device", "/x"), path=False) == "No space left on device"


def caught(kind: ast.expr | None) -> set[str]:
    if isinstance(kind, ast.Tuple):
        return set().union(*(caught(one) for one in kind.elts))
    if isinstance(kind, ast.BinOp):
        return caught(kind.left) | caught(kind.right)
    return set() if kind is None else {ast.unparse(kind)}


def raw_texts(path: Path, tree: ast.Module) -> Iterator[str]:
    """Where a caught error of the system becomes text without `said_by`."""
    alone = path.parent in ALONE
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None or not caught(handler.type) & SYSTEM:
            continue
        raw = (
            {handler.name}
            if alone
            else {handler.name, f"{handler.name}.strerror", f"{handler.name}.strerror or {handler.name}"}
        )
        for node in ast.walk(handler):
            is_shown = isinstance(node, ast.FormattedValue) and ast.unparse(node.value) in raw
            is_text = isinstance(node, ast.Call) and ast.unparse(node) == f"str({handler.name})"
            if is_shown or is_text:
                yield f"{path}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("root", ["testbed", "plugin"])
def test_no_message_holds_the_raw_text_of_an_error_of_the_system(root: str) -> None:
    found = [
        text
        for file in sorted((ROOT / root).rglob("*.py"))
        for text in raw_texts(file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == [], "say it with plugin.core.errors.said_by"


def test_the_check_finds_what_it_looks_for() -> None:
    text = "try: pass\nexcept (OSError, ValueError) as error: print(f'no: {error}', str(error))\n"
    assert len(list(raw_texts(Path("testbed/x.py"), ast.parse(text)))) == 2
