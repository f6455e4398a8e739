"""`python -m bench`, what `make bench` calls: it measures, and whatever happens nothing of it is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bench import cni
from bench.attacker import ATTACKS
from plugin.core.errors import MissingError
from tests.support.project import ROOT

BENCH = [sys.executable, "-m", "bench"]

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]
needs_stock_mininet = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("mnexec", "brctl", "ifconfig", "ethtool")),
    reason="needs stock Mininet's tools: testbed/setup/setup.sh bench",
)


needs_reference_plugins = pytest.mark.skipif(
    not any(Path(directory, "bridge").exists() for directory in cni.REFERENCE_DIRS),
    reason="needs the reference CNI plugins: testbed/setup/setup.sh bench",
)


def bench(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*BENCH, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False, env=env
    )


def leftovers() -> list[str]:
    found = [str(path) for path in Path("/run/weavelab").glob("bench*")]
    found += [str(path) for path in Path("/run/netns").glob("bench*")]
    found += [str(path) for path in Path(tempfile.gettempdir()).glob("bench-cni-*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes()
        except OSError:
            continue
        if b"bench.stock_mininet" in words or b"mininet:h" in words or b"bench-cni-" in words:
            found.append(f"{process}: {words!r}")
    return found


@needs_stock_mininet
def test_bring_up_is_compared_with_stock_mininet(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = bench("--only", "bringup", "--nodes", "3", "--rounds", "2", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(path.read_text())
    (size,) = document["bringup"]
    assert size["nodes"] == 3
    assert len(size["rounds"]) == 2
    for taken in size["rounds"]:
        assert all(
            0 < taken[who][part] < 60 for who in ("weavelab", "mininet") for part in ("up_s", "down_s", "freed_s")
        )
    assert "stock Mininet" in done.stdout
    assert leftovers() == []


def test_throughput_is_compared_with_hand_made_networks(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = bench("--quick", "--only", "throughput", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["throughput"]
    assert all(mbit > 0 for mbit in found["median_mbit"].values())
    (taken,) = found["rounds"]
    ratio = found["ratio"]["cross node : hand-made VXLAN"]
    assert ratio == pytest.approx(taken["cross node"] / taken["hand-made VXLAN"], rel=1e-3)
    assert leftovers() == []


def test_a_guarded_network_is_compared_with_one_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = bench("--quick", "--only", "guard", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["guard"]
    assert set(found["ratio"]) == {f"{kind}, {path} node" for kind in ("TCP", "packets") for path in ("same", "cross")}
    (taken,) = found["rounds"]
    for name, ratio in found["ratio"].items():
        assert ratio == pytest.approx(taken[f"{name}, guarded"] / taken[f"{name}, plain"], rel=1e-3)
    assert leftovers() == []


@needs_reference_plugins
def test_cni_calls_are_compared_with_the_reference_plugins(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    arguments = ("--only", "cni", "--rounds", "2", "--pods", "6", "--at-once", "3", "--json", str(path))
    done = bench(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["cni"]
    assert (found["at_once"], found["burst"]["pods"], found["one at a time"]["pods"]) == (3, 6, 1)
    assert (len(found["one at a time"]["rounds"]), len(found["burst"]["rounds"])) == (2, 1)
    (taken,) = found["burst"]["rounds"]
    for verb in ("ADD", "DEL"):
        assert all(0 < taken[who][verb]["cpu_s"] < 60 for who in ("weavelab", "reference"))
        ratio = taken["weavelab"][verb]["wall_s"] / taken["reference"][verb]["wall_s"]
        assert found["burst"]["ratio"][f"{verb} wall_s"] == pytest.approx(ratio, rel=5e-3)
    assert "reference" in done.stdout
    assert leftovers() == []


def test_absent_reference_plugins_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cni, "REFERENCE_DIRS", (str(tmp_path),))
    with pytest.raises(MissingError, match="wanted the reference CNI plugins bridge and host-local") as raised:
        cni.reference_directory()
    assert "make bench-cni" in raised.value.hint


@needs_stock_mininet
@pytest.mark.parametrize("after_s", [0.6, 1.2, 1.8])
def test_ctrl_c_leaves_nothing_of_either(tmp_path: Path, after_s: float) -> None:
    process = subprocess.Popen(
        [*BENCH, "--only", "bringup", "--nodes", "10", "--rounds", "50", "--json", str(tmp_path / "bench.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130, told
    deadline_s = time.monotonic() + 5  # what ran in the killed process namespace ends with it, a moment later
    while leftovers() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert leftovers() == []


def test_absent_tools_are_named(tmp_path: Path) -> None:
    done = bench("--only", "bringup", "--json", str(tmp_path / "b.json"), env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "mnexec" in done.stderr
    assert "make bench" in done.stderr


def test_stock_mininet_refuses_the_machines_own_network_namespace() -> None:
    own = str(Path("/proc/self/ns/net").stat().st_ino)
    done = subprocess.run(
        [sys.executable, "-m", "bench.stock_mininet", "2"],
        cwd=ROOT,
        env={**os.environ, "BENCH_MACHINE_NETNS": own},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "must not run" in done.stderr


def test_a_flood_of_the_control_port_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "flood.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.flood", "--seconds", "1", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["attack"]: row for row in json.loads(path.read_text())["attacks"]}
    assert found.keys() == {"nothing", *ATTACKS}
    assert all(row["rate"] > 0 for attack, row in found.items() if attack != "nothing")
    assert found["rubbish"]["rejected"] > 100
    assert not Path("/run/wl-flood").exists()
