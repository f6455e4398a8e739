"""`weave-net` in a chain with the reference plugins of the machine, before and behind others, as a runtime runs it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from plugin.core.cni.types import VERSIONS
from testbed.kubelet.cni_runtime import Added, CniRuntime
from testbed.kubelet.sandbox import Sandbox
from testbed.lab.cni_call import CniCallError
from testbed.machine.space import Space, run
from tests.support.chain_runtime import DEBIAN_PLUGINS, Runtime, needs_plugins
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
OURS: dict[str, Any] = {"type": "weave-net"}
CHAINED = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]  # what the plugins of the package speak and a chain can use


class Chain:
    """A conflist on node 1, carried out by the lab's kubelet, which does what libcni does."""

    def __init__(self, runtime: Runtime, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
        self.runtime = runtime
        folder = runtime.folder / "net.d"
        folder.mkdir(exist_ok=True)
        text = json.dumps({"cniVersion": version, "name": "weave", "plugins": plugins})
        (folder / "10-weave.conflist").write_text(text)
        self.kubelet = CniRuntime(
            runtime.node, conf_dir=folder, bin_dirs=[str(runtime.bin), str(DEBIAN_PLUGINS)],
            cache_dir=runtime.folder / "results",
        )  # fmt: skip

    def sandbox(self, name: str) -> tuple[Space, Sandbox]:
        pod = self.runtime.cluster.space(name)
        return pod, Sandbox(name, name * 3, str(pod.net))

    def add(self, name: str, **capabilities: Any) -> tuple[Space, Sandbox, Added]:
        pod, sandbox = self.sandbox(name)
        return pod, sandbox, self.kubelet.add(sandbox, capabilities=capabilities)


def ip(space: Space, *arguments: str) -> str:
    done = run(space, ["ip", *arguments], timeout_s=10)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stopped(chain: Chain, sandbox: Sandbox) -> None:
    """DEL with the result of the whole chain, then twice without any."""
    for _ in range(3):
        chain.kubelet.delete(sandbox)
    chain.runtime.nothing_left()


# ---- behind ours


@needs_plugins("tuning")
@pytest.mark.parametrize("version", CHAINED)
def test_a_pod_that_tuning_changes_passes_check_and_is_deleted(runtime: Runtime, version: str) -> None:
    chain = Chain(runtime, OURS, {"type": "tuning", "mac": "02:11:22:33:44:55", "mtu": 1200}, version=version)
    pod, sandbox, added = chain.add("redpod")
    link = runtime.inside(pod).links["eth0"]
    assert (link.mac, link.mtu) == ("02:11:22:33:44:55", 1200)
    assert added.mac == "02:11:22:33:44:55", "its result, which our CHECK compares with"
    if version not in {"0.3.0", "0.3.1"}:
        chain.kubelet.check(sandbox)
    stopped(chain, sandbox)


@needs_plugins("sbr")
def test_routes_that_sbr_moves_to_its_table_are_still_there_for_check(runtime: Runtime) -> None:
    chain = Chain(runtime, OURS, {"type": "sbr"})
    pod, sandbox, added = chain.add("redpod")
    assert "default" not in ip(pod, "route")
    assert "default" in ip(pod, "route", "show", "table", "100")
    chain.kubelet.check(sandbox)
    switch = added.result["ips"][0]["gateway"]
    assert runtime.cluster.ping(pod, switch, "-I", str(added.address).partition("/")[0]) == 0
    ip(pod, "route", "del", "default", "table", "100")
    with pytest.raises(CniCallError, match=r"route to 0\.0\.0\.0/0"):
        chain.kubelet.check(sandbox)
    chain.kubelet.delete(sandbox)  # once: sbr 1.1.1 itself fails when the interface is gone already
    runtime.nothing_left()


@needs_plugins("firewall")
@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables: the plugin firewall uses it")
def test_firewall_behind_ours_lets_the_pod_through(runtime: Runtime) -> None:
    chain = Chain(runtime, OURS, {"type": "firewall", "backend": "iptables"})
    _, sandbox, added = chain.add("redpod")
    address = str(added.address).partition("/")[0]
    assert address in run(runtime.node, ["iptables", "-S", "CNI-FORWARD"], timeout_s=10).stdout
    chain.kubelet.check(sandbox)
    assert runtime.cluster.ping(runtime.node, address) == 0
    stopped(chain, sandbox)
    assert address not in run(runtime.node, ["iptables", "-S", "CNI-FORWARD"], timeout_s=10).stdout


@needs_plugins("portmap", "tuning")
@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables: the plugin portmap uses it")
def test_three_plugins_in_a_row_as_kubernetes_writes_them(runtime: Runtime) -> None:
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    chain = Chain(runtime, OURS, portmap, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}})
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod, sandbox, added = chain.add("redpod", portMappings=ports)
    assert [entry["name"] for entry in added.result["interfaces"]] == ["weave", added.host_ifname, "eth0"]
    assert "8080" in run(runtime.node, ["iptables", "-t", "nat", "-S"], timeout_s=10).stdout
    assert run(pod, ["cat", "/proc/sys/net/core/somaxconn"], timeout_s=10).stdout == "500\n"
    # Not of the whole chain: portmap 1.1.1 looks for chains of IPv6 that a pod without IPv6 never had.
    runtime.call("CHECK", {"prevResult": added.result}, pod).succeeded()
    stopped(chain, sandbox)


@needs_plugins("tuning")
def test_a_plugin_behind_ours_that_fails_costs_nothing(runtime: Runtime) -> None:
    chain = Chain(runtime, OURS, {"type": "tuning", "sysctl": {"net/no/such": "1"}})
    pod, sandbox = chain.sandbox("redpod")
    with pytest.raises(CniCallError, match="tuning"):
        chain.kubelet.add(sandbox)  # and the DEL of the chain, as runtimes do
    runtime.nothing_left()
    assert set(runtime.inside(pod).links) == {"lo"}


@needs_plugins("host-local", "tuning")
def test_a_delegated_pod_in_a_chain(runtime: Runtime) -> None:
    networks = runtime.folder / "networks"
    ipam = {"type": "host-local", "subnet": "10.32.5.0/24", "dataDir": str(networks)}
    chain = Chain(runtime, OURS | {"ipam": ipam}, {"type": "tuning", "mtu": 1200})
    _, sandbox, added = chain.add("redpod")
    assert str(added.address) == "10.32.5.2/24"
    chain.kubelet.check(sandbox)
    stopped(chain, sandbox)
    assert not list((networks / "weave").glob("10.*"))


# ---- before ours


@needs_plugins("loopback")
@pytest.mark.parametrize("version", CHAINED)
def test_what_an_earlier_plugin_made_stays_in_the_result_before_ours(runtime: Runtime, version: str) -> None:
    chain = Chain(runtime, {"type": "loopback"}, OURS, version=version)
    pod, sandbox, added = chain.add("redpod")
    lo, *others = added.result["interfaces"]
    assert (lo["name"], lo["sandbox"]) == ("lo", str(pod.net))
    assert [entry["name"] for entry in others] == ["weave", added.host_ifname, "eth0"]
    first, *_, last = added.result["ips"]
    assert (first["address"], first["interface"], last["interface"]) == ("127.0.0.1/8", 0, 3)
    assert runtime.inside(pod).addresses() == [last["address"]]
    if version not in {"0.3.0", "0.3.1"}:
        chain.kubelet.check(sandbox)
    stopped(chain, sandbox)


@needs_plugins("ptp", "host-local")
def test_behind_a_plugin_that_made_the_same_interface_ours_refuses_and_its_work_is_undone_by_its_own_del(
    runtime: Runtime,
) -> None:
    ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": str(runtime.folder / "networks")}
    chain = Chain(runtime, {"type": "ptp", "ipam": ipam}, OURS)
    pod, sandbox = chain.sandbox("redpod")
    with pytest.raises(CniCallError, match="already has an interface eth0") as refused:
        chain.kubelet.add(sandbox)
    assert refused.value.code == 100
    assert set(runtime.inside(pod).links) == {"lo"}
    runtime.nothing_left()


PASSING = """#!/bin/sh
case $CNI_COMMAND in ADD) cat <<'END'
{result}
END
esac
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_of_every_version_before_ours_is_kept_in_that_version(runtime: Runtime, version: str) -> None:
    earlier: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [{"name": "mgmt0", "mac": "02:00:00:00:00:09", "sandbox": "/run/x"}],
        "ips": [{"address": "172.20.0.9/24", "interface": 0}],
        "routes": [{"dst": "172.20.0.0/16"}],
        "dns": {"domain": "kept"},
    }
    if version in {"0.1.0", "0.2.0"}:
        earlier = {"cniVersion": version, "ip4": {"ip": "172.20.0.9/24"}, "dns": {"domain": "kept"}}
    elif version not in {"1.0.0", "1.1.0"}:
        earlier["ips"][0]["version"] = "4"
    runtime.install("earlier", PASSING.format(result=json.dumps(earlier)))
    chain = Chain(runtime, {"type": "earlier"}, OURS, version=version)
    pod, sandbox, added = chain.add("redpod")
    result = added.result
    assert result["cniVersion"] == version
    assert result["dns"] == {"domain": "kept"}
    if "ip4" in earlier:
        assert result["ip4"]["ip"] == "172.20.0.9/24", "these versions have room for the first address only"
    else:
        assert result["interfaces"][0] == earlier["interfaces"][0]
        assert result["ips"][0] == earlier["ips"][0]
        assert result["routes"][0] == {"dst": "172.20.0.0/16"}
        assert f"{result['ips'][1]['address']}" in runtime.inside(pod).addresses()
    stopped(chain, sandbox)


def test_a_prevresult_with_both_families_is_passed_through(cluster: Cluster) -> None:
    cluster.start(1)
    runtime = Runtime(cluster, 1)
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "six0", "sandbox": "/run/x"}],
        "ips": [{"address": "fd00::9/64", "interface": 0, "gateway": "fd00::1"}],
        "routes": [{"dst": "::/0", "gw": "fd00::1"}],
    }
    pod = cluster.space("redpod")
    conf = {"prevResult": previous}
    result = runtime.attach(conf, pod)
    assert result["ips"][0] == previous["ips"][0]
    assert result["routes"][0] == previous["routes"][0]
    runtime.call("CHECK", {"prevResult": result}, pod).succeeded()
    old = runtime.call("ADD", conf | {"cniVersion": "0.2.0"}, cluster.space("bluepod")).result
    assert (old["ip6"]["ip"], old["ip4"]["ip"].partition("/")[2]) == ("fd00::9/64", "12")


def test_state_of_the_chain_stays_in_the_tests_folder(runtime: Runtime) -> None:
    """The reference plugins keep their state on the machine unless told: these tests must leave none there."""
    assert not Path("/var/lib/cni/networks/weave").exists()
