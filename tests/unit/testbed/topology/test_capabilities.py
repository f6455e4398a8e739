"""What a pod of a topology asks for, in the words in which a runtime passes it on, and how `weavelab status` shows it."""

import json

import pytest

from testbed.deploy.interpreter import plugin_interpreter
from testbed.deploy.plan import plan_deploy
from testbed.lab.tables import print_tables
from testbed.topology.cni_conf import UNSTATED_BURST_BITS, capabilities_of, port_mapping, rate_bits
from testbed.topology.load import load_topology
from testbed.topology.model import BandwidthSpec, PodSpec, PortSpec
from testbed.topology.underlay import plan_underlay
from tests.support.project import ROOT


@pytest.mark.parametrize(
    ("text", "bits"),
    [("1kbit", 1_000), ("10mbit", 10_000_000), ("2.5gbit", 2_500_000_000), ("0.001gbit", 10**6), ("1.001kbit", 1_001)],
)
def test_a_rate_is_read_exactly(text: str, bits: int) -> None:
    assert rate_bits(text) == bits


def test_a_pod_that_asks_for_nothing_gives_its_runtime_nothing_to_pass_on() -> None:
    assert capabilities_of(PodSpec(node="node1")) == {}


def test_ports_and_limits_are_passed_on_as_containerd_does() -> None:
    ports = [PortSpec(host=8080, container=80), PortSpec(host=53, container=5353, protocol="udp", host_ip="127.0.0.1")]
    pod = PodSpec(node="node1", ports=ports, bandwidth=BandwidthSpec(egress="10mbit"))
    assert capabilities_of(pod) == {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
        ],
        "bandwidth": {"egressRate": 10_000_000, "egressBurst": UNSTATED_BURST_BITS},
    }
    assert [str(port_mapping(port)) for port in ports] == ["0.0.0.0:8080->80/tcp", "127.0.0.1:53->5353/udp"]


def test_the_shipped_configuration_declares_what_the_shipped_lab_asks_for() -> None:
    topology = load_topology(ROOT / "topologies" / "host-ports.yaml")
    plan = plan_deploy(topology, plan_underlay(topology), "lab", interpreter=plugin_interpreter())[0]
    conflist = json.loads(next(file.content for file in plan.files if file.path.endswith(".conflist")))
    declared = conflist["plugins"][0]["capabilities"]
    for pod in topology.pods.values():
        assert {name for name in capabilities_of(pod) if not declared.get(name)} == set()


def test_status_shows_ports_only_where_a_pod_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    pod = {"name": "web", "node": "n", "address": "10.32.0.2", "mac": "m", "host_interface": "v", "ports": []}
    lab = {
        "name": "lab", "phase": "ready", "step": "", "problem": "", "created": "2026-11-28T15:30:00Z", "range": "", "topology": "",
        "topology_file": "", "nodes": [], "pods": [pod], "pods_unfinished": [], "pairs_in_trouble": [], "views": [],
    }  # fmt: skip
    print_tables([lab])
    assert "ports" not in capsys.readouterr().out
    print_tables([lab | {"pods": [pod, pod | {"ports": ["0.0.0.0:8080->80/tcp"]}]}])
    shown = capsys.readouterr().out
    assert "ports" in shown
    assert "0.0.0.0:8080->80/tcp" in shown
