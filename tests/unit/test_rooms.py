"""The rooms of the tree: what pyproject.toml allows is what docs/architecture.md shows, and violations are noticed.

A room is a package; the contracts are import-linter's. Here each contract is broken on purpose, in the graph of imports,
and once in real files, so that a contract that checks nothing cannot pass.
"""

import ast
import copy
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.configuration import configure
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

from tests.support.project import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in SETTINGS["contracts"]}
KINDS = {"layers": LayersContract, "forbidden": ForbiddenContract, "acyclic_siblings": AcyclicSiblingsContract}
LAYERED = [name for name, contract in CONTRACTS.items() if contract["type"] == "layers"]
FORBIDDING = [name for name, contract in CONTRACTS.items() if contract["type"] == "forbidden"]
PACKAGES = sorted(path.parent for top in ("plugin", "testbed") for path in (ROOT / top).rglob("__init__.py"))
MODULES = sorted(
    path
    for top in ("plugin", "testbed")
    for path in (ROOT / top).rglob("*.py")
    if path.name != "__init__.py" and not path.name.endswith("_pb2.py")
)
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


configure()  # what `lint-imports` does first


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Who imports whom in plugin and testbed."""
    return grimp.build_graph("plugin", "testbed", include_external_packages=True, cache_dir=None)


def is_kept(name: str, graph: grimp.ImportGraph) -> bool:
    options = {key: value for key, value in CONTRACTS[name].items() if key not in {"id", "name", "type"}}
    options = {key: str(value) if isinstance(value, bool) else value for key, value in options.items()}
    made = KINDS[CONTRACTS[name]["type"]](
        name=name,
        session_options={"root_packages": SETTINGS["root_packages"], "include_external_packages": True},
        contract_options=options,
    )
    return bool(made.check(graph=graph, verbose=False).kept)


def with_import(graph: grimp.ImportGraph, importer: str, imported: str) -> grimp.ImportGraph:
    """The same graph, and one import more."""
    changed = copy.deepcopy(graph)
    for module in (importer, imported):
        if module not in changed.modules:
            changed.add_module(module, is_squashed=not module.startswith(("plugin", "testbed")))
    changed.add_import(importer=importer, imported=imported, line_number=1, line_contents="on purpose")
    return changed


def layers(contract: dict[str, Any]) -> list[list[str]]:
    """From top to bottom; the rooms of one layer together, with the container's name before each."""
    (container,) = contract["containers"]
    return [[f"{container}.{room.strip()}" for room in re.split("[|:]", layer)] for layer in contract["layers"]]


def upward_imports() -> Iterator[Any]:
    """(contract, importer, imported): each layer imports the one above it, and rooms side by side each other."""
    for name in LAYERED:
        contract = CONTRACTS[name]
        rooms = layers(contract)
        for above, below in pairwise(rooms):
            yield pytest.param(name, below[0], above[0], id=f"{below[0]} -> {above[0]}")
        for layer, written in zip(rooms, contract["layers"], strict=True):
            if "|" in written:
                for one, other in (layer[:2], layer[1::-1]):
                    yield pytest.param(name, one, other, id=f"{one} -> {other}")


def forbidden_imports() -> Iterator[Any]:
    for name in FORBIDDING:
        for source in CONTRACTS[name]["source_modules"]:
            for forbidden in CONTRACTS[name]["forbidden_modules"]:
                yield pytest.param(name, source, forbidden, id=f"{source} -> {forbidden}")


# ----------------------------------------------------------------------------------------------------------- contracts


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_tree_keeps_its_contracts(name: str, imports: grimp.ImportGraph) -> None:
    assert is_kept(name, imports)


@pytest.mark.parametrize(("name", "importer", "imported"), list(upward_imports()))
def test_a_room_that_imports_what_is_above_or_beside_it_is_noticed(
    name: str, importer: str, imported: str, imports: grimp.ImportGraph
) -> None:
    assert not is_kept(name, with_import(imports, importer, imported))


@pytest.mark.parametrize(("name", "importer", "imported"), list(forbidden_imports()))
def test_a_forbidden_import_is_noticed(name: str, importer: str, imported: str, imports: grimp.ImportGraph) -> None:
    assert not is_kept(name, with_import(imports, f"{importer}.on_purpose", imported))


@pytest.mark.parametrize("name", LAYERED)
def test_a_room_without_a_place_is_noticed(name: str, imports: grimp.ImportGraph) -> None:
    changed = copy.deepcopy(imports)
    changed.add_module(f"{CONTRACTS[name]['containers'][0]}.on_purpose")
    assert not is_kept(name, changed)


@pytest.mark.parametrize("room", [f"{one.relative_to(ROOT)}".replace("/", ".") for one in PACKAGES])
def test_a_circle_of_imports_is_noticed(room: str, imports: grimp.ImportGraph) -> None:
    one, other = f"{room}.on_purpose_a", f"{room}.on_purpose_b"
    assert not is_kept("no-circles", with_import(with_import(imports, one, other), other, one))


def test_no_contract_has_exceptions() -> None:
    excepted = [
        (name, key)
        for name, contract in CONTRACTS.items()
        for key in ("ignore_imports", "exhaustive_ignores")
        if key in contract
    ]
    assert excepted == []


def test_an_import_in_a_real_file_is_noticed_by_what_make_arch_runs(tmp_path: Path) -> None:
    for name in ("plugin", "testbed"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "setup"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "testbed/topology/load.py").open("a") as file:
        file.write("\n\ndef on_purpose() -> None:\n    from testbed.cli import main  # late ones count as well\n")
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    found = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    assert "testbed.topology.load -> testbed.cli.main" in found.stdout


# ------------------------------------------------------------------------------------------------------------- the map


def rows_of(heading: str) -> list[list[str]]:
    """The rooms that the table below a heading of docs/architecture.md lists, a layer a row."""
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^#|\Z)", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert section is not None, f"no section {heading}"
    cells = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("| `")]
    return [re.findall(r"`([\w.]+)/?`", cell) for cell in cells]


@pytest.mark.parametrize("name", LAYERED)
def test_the_map_shows_the_layers_of_the_contracts(name: str) -> None:
    (container,) = CONTRACTS[name]["containers"]
    shown = [room for row in rows_of(f"`{container.replace('.', '/')}`, from top to bottom") for room in row]
    wanted = [room.removeprefix(f"{container}.") for layer in layers(CONTRACTS[name]) for room in layer]
    assert shown == wanted


@pytest.mark.parametrize("name", LAYERED)
def test_every_room_has_its_line_on_the_map(name: str) -> None:
    (container,) = CONTRACTS[name]["containers"]
    section = ARCHITECTURE.partition(f"### `{container.replace('.', '/')}`, from top to bottom")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert [line for line in lines if len(line.split("|")[2].split()) < 3] == []


# --------------------------------------------------------------------------------------------------- what a room shows


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_begins_with_one_docstring_and_holds_nothing_else(package: Path) -> None:
    tree = ast.parse((package / "__init__.py").read_text())
    assert len(tree.body) == 1
    said = ast.get_docstring(tree)
    assert said is not None
    assert re.search(r"\b(never|nothing|nobody|not|no)\b", said, re.IGNORECASE), "it says what the room never does"


def private_uses(module: Path) -> list[str]:
    """Names with an underscore that a module takes from another one of ours."""
    tree = ast.parse(module.read_text())
    ours, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("plugin", "testbed")):
            found += [alias.name for alias in node.names if alias.name.startswith("_")]
            ours |= {
                alias.asname or alias.name
                for alias in node.names
                if (ROOT / (node.module or "").replace(".", "/") / f"{alias.name}.py").exists()
            }
    found += [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and isinstance(node.value, ast.Name)
        and node.value.id in ours
    ]
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_takes_no_private_name_from_another(module: Path) -> None:
    assert private_uses(module) == []


@pytest.fixture(scope="module")
def words() -> dict[Path, set[str]]:
    """The words of every text of the project that may name something of ours."""
    files = [*MODULES, *(path for top in ("tests", "bench", "topologies") for path in (ROOT / top).rglob("*.py"))]
    files += [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "templates").iterdir(),
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
    ]
    return {path: set(re.findall(r"\w+", path.read_text())) for path in files}


def public_values(module: Path) -> list[str]:
    """The functions and constants that a module offers; its types belong to the signatures of those."""
    found = []
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return [name for name in found if not name.startswith("_") and (name.isupper() or name.islower())]


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if path.parent.name not in {"cni", "tool"} or path.parent.parent.name == "core"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_a_module_offers_somebody_else_uses(module: Path, words: dict[Path, set[str]]) -> None:
    offered = public_values(module)
    used = set().union(*(found for path, found in words.items() if path != module))
    assert [name for name in offered if name not in used] == [], "what nobody else uses has a leading underscore"
