"""The list of names that a lab's members share, without any lab."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.lab import paths as lab_paths
from testbed.lab.paths import LabPaths
from testbed.nodes import names
from testbed.topology.model import NodeSpec, Router, Segment, Topology, Underlay
from testbed.topology.underlay import plan_underlay

PLAN = plan_underlay(
    Topology(
        name="racks",
        nodes={"node1": NodeSpec(segment="left"), "node2": NodeSpec(segment="right")},
        underlay=Underlay(
            segments={"left": Segment(subnet="192.168.61.0/24"), "right": Segment(subnet="192.168.62.0/24")},
            routers={"router1": Router(segments=["left", "right"])},
        ),
    )
)
AT_FIRST = {
    "node1": "192.168.61.11",
    "node2": "192.168.62.11",
    "router1": "192.168.61.1",
    "outside": "198.51.100.1",
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    monkeypatch.setattr(lab_paths, "RUN", tmp_path)
    paths = LabPaths("lab")
    paths.fs.mkdir(parents=True)
    names.begin(paths, PLAN)
    return paths


def test_everybody_with_an_address_is_in_the_list_from_the_start(lab: LabPaths) -> None:
    assert names.known(lab) == AT_FIRST
    lines = (lab.names / names.FILE).read_text().splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert "192.168.61.11\tnode1" in lines


def test_a_pod_is_added_replaced_and_removed_and_containers_read_the_same(lab: LabPaths) -> None:
    bound = (lab.names / names.BOUND_FILE).stat().st_ino
    for step, wanted in (
        (lambda: names.add(lab, "red", "10.32.0.2"), {"red": "10.32.0.2"}),
        (lambda: names.add(lab, "red", "10.32.0.77"), {"red": "10.32.0.77"}),
        (lambda: names.remove(lab, "red"), {}),
        (lambda: names.remove(lab, "red"), {}),
    ):
        step()
        assert names.known(lab) == AT_FIRST | wanted
        assert (lab.names / names.BOUND_FILE).read_text() == (lab.names / names.FILE).read_text()
    assert (lab.names / names.BOUND_FILE).stat().st_ino == bound, "a bound file is never another one"


def test_pods_that_come_and_go_at_the_same_time_lose_no_name(lab: LabPaths) -> None:
    def churn(number: int) -> None:
        names.add(lab, f"pod{number}", f"10.32.0.{number}")
        if number % 2:
            names.remove(lab, f"pod{number}")

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(churn, range(100)))
    assert names.known(lab) == AT_FIRST | {f"pod{number}": f"10.32.0.{number}" for number in range(0, 100, 2)}


def test_what_somebody_else_wrote_into_the_list_goes_with_the_next_change(lab: LabPaths) -> None:
    with (lab.names / names.FILE).open("a") as file:
        file.write("# a note\n\n::2\tnode9\nnonsense\n")
    names.add(lab, "red", "10.32.0.2")
    assert names.known(lab) == AT_FIRST | {"red": "10.32.0.2"}
    assert "nonsense" not in (lab.names / names.FILE).read_text()


def test_a_lab_that_is_gone_has_no_name_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_paths, "RUN", tmp_path)
    names.remove(LabPaths("gone"), "red")


@pytest.mark.parametrize(
    ("machine", "member"),
    [
        ("hosts:          files dns\n", "hosts:          files\n"),
        (
            "passwd: files systemd\n hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\nnetworks: files\n",
            "passwd: files systemd\nhosts:          files\nnetworks: files\n",
        ),
        ("", "hosts:          files\n"),
        ("passwd: files", "passwd: files\nhosts:          files\n"),
        ("# hosts: dns\n", "# hosts: dns\nhosts:          files\n"),
    ],
    ids=["plain", "systemd", "empty", "no line end", "a comment"],
)
def test_hosts_are_looked_up_in_the_file_alone_and_the_rest_stays(machine: str, member: str) -> None:
    assert names.nsswitch(machine) == member
