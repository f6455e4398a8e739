"""Two nodes (or more) on one segment with real agents in namespaces of their own, for the tests in tests/kernel.

`Cluster` is a fixture there (tests/kernel/conftest.py); everything it makes is taken away by its stack, also on failure.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from testbed.machine.space import Space, run, spawn
from tests.support.project import ROOT

CONF = {"cniVersion": "1.0.0", "name": "weave", "type": "weave-net"}


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 20) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come true within {deadline_s:g} s"
        time.sleep(0.05)


class Cluster:
    """Two nodes on one segment, or more, pods anywhere; `stack` takes everything away again."""

    def __init__(self, tmp: Path, stack: ExitStack, *, count: int = 2) -> None:
        self.tmp, self.stack = tmp, stack
        self.timeout_s = 20.0
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.results: dict[str, Any] = {}
        underlay = self.underlay = self.space("underlay")
        self.nodes = {number: self.space(f"node{number}") for number in range(1, count + 1)}
        with self.netlink(underlay) as link:
            link.request(rtnl.link_set(1, up=True), rtnl.bridge_add("br0", index=10))
            for number, node in self.nodes.items():
                fd = netns.open_netns(node.net)
                near = rtnl.VethEnd(name=f"n{number}", master=10, up=True)
                link.request(rtnl.veth_add(near, rtnl.VethEnd(name="eth0", index=2, netns_fd=fd)))
                os.close(fd)
                address = IPv4Interface(f"192.168.56.{10 + number}/24")
                with self.netlink(node) as inside:
                    inside.request(rtnl.link_set(1, up=True), rtnl.link_set(2, up=True), rtnl.address_add(2, address))

    def space(self, name: str) -> Space:
        path = self.tmp / name
        path.touch()
        with netns.new_netns() as fd:
            netns.mount(f"/proc/self/fd/{fd}", path, flags=netns.MS_BIND)
        self.stack.callback(unpin, path)
        return Space(name, path, None, None)

    def netlink(self, space: Space) -> Netlink:
        fd = netns.open_netns(space.net)
        try:
            return Netlink(fd)
        finally:
            os.close(fd)

    def start(self, number: int, *, wait: bool = True, **other: object) -> subprocess.Popen[bytes]:
        directory = self.tmp / f"d{number}"
        directory.mkdir(exist_ok=True)
        config = {
            "name": f"node{number}", "node_address": f"192.168.56.{10 + number}",
            "peers": [] if number == 1 else ["192.168.56.11"], "api_socket": str(directory / "weave.sock"),
            "state_directory": str(directory / "state"),
        }  # fmt: skip
        (directory / "agent.json").write_text(json.dumps(config | other))
        with (directory / "log").open("ab") as log:
            agent = spawn(
                self.nodes[number], [sys.executable, "-m", "plugin.agent", "--config", str(directory / "agent.json")],
                stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self.stack.callback(end, agent)
        if wait:
            self.agents[number] = agent
            wait_for(lambda: self.ready(number) or agent.poll() is not None, f"agent {number} ready")
            assert agent.poll() is None, self.log(number)
        return agent

    def mesh(self, **other: object) -> None:
        for number in self.nodes:
            self.start(number, **other)
        wait_for(lambda: all(self.peer(number)["state"] == "established" for number in self.nodes), "mesh")

    def ready(self, number: int) -> bool:
        try:
            return self.api(number, "/status")[0] == 200
        except OSError:
            return False

    def peer(self, number: int) -> dict[str, Any]:
        return json.loads(self.api(number, "/status")[1])["peers"][0]

    def api(self, number: int, path: str, body: bytes = b"", space: Space | None = None) -> tuple[int, str]:
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.socket(socket.AF_UNIX) as client, ExitStack() as stack:
            client.settimeout(self.timeout_s)
            client.connect(str(self.tmp / f"d{number}" / "weave.sock"))
            fds = []
            if space is not None:
                fds.append(netns.open_netns(space.net))
                stack.callback(os.close, fds[0])
            socket.send_fds(client, [head], fds)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may come before all is sent
                client.sendall(body)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        top, _, rest = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), rest.decode()

    def cni(self, number: int, command: str, pod: Space, **conf_keys: object) -> tuple[int, str]:
        fields = [command, pod.name * 3, str(pod.net), "eth0", "", "/opt/cni/bin"]
        known = command in {"CHECK", "DEL"} and pod.name in self.results
        conf = CONF | conf_keys | ({"prevResult": self.results[pod.name]} if known else {})
        answer = self.api(number, "/cni", "\0".join([*fields, json.dumps(conf)]).encode(), pod)
        if command == "ADD" and answer[0] == 200:
            self.results[pod.name] = json.loads(answer[1])
        return answer

    def add(self, number: int, name: str) -> tuple[Space, str]:
        pod = self.space(name)
        status, text = self.cni(number, "ADD", pod)
        assert status == 200, text
        return pod, json.loads(text)["ips"][0]["address"].partition("/")[0]

    def ping(self, pod: Space, address: str, *options: str) -> int:
        return run(pod, ["ping", "-c1", "-W2", *options, address], timeout_s=10).returncode

    def log(self, number: int) -> str:
        return (self.tmp / f"d{number}" / "log").read_text()

    def report(self, number: int) -> dict[str, Any]:
        return json.loads(self.api(number, "/report")[1])

    def held(self, number: int) -> set[str]:
        """The addresses of the node's attachments, as the agent tells."""
        return {attachment["address"] for attachment in self.report(number)["attachments"]}

    def knows(self, number: int, address: str) -> bool:
        """Whether the kernel of this node has been told where the remote pod `address` is."""
        return address in self.report(number)["forwarding"]["neighbours"]

    def kill(self, number: int) -> None:
        end(self.agents.pop(number))

    def refusal(self, number: int, **other: object) -> str:
        """Start an agent that must not run: it ends with 2, and this is the sentence."""
        agent = self.start(number, wait=False, **other)
        assert agent.wait(20) == 2, self.log(number)
        last = json.loads(self.log(number).splitlines()[-1])
        assert last["event"] == "agent cannot run"
        assert last["hint"], "a refusal says what to do"
        return last["reason"]

    def pod_links(self, number: int) -> set[str]:
        """The links of pods that the node's kernel has."""
        with self.netlink(self.nodes[number]) as node:
            return {link.name for link in node.links() if link.name.startswith("vethwepl")}

    def set_underlay_mtu(self, mtu_bytes: int) -> None:
        for space, names in (
            (self.underlay, (*(f"n{number}" for number in self.nodes), "br0")),
            *((node, ("eth0",)) for node in self.nodes.values()),
        ):
            with self.netlink(space) as link:
                found = {one.name: one.index for one in link.links()}
                link.request(*(rtnl.link_set(found[name], mtu=mtu_bytes) for name in names))


def unpin(path: Path) -> None:
    """Let go of a namespace: it ends with its last user. A test may have done so already."""
    try:
        netns.umount(path, netns.MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no mount point any more
            raise


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
