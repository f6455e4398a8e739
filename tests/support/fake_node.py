"""A node for the tests of plugin/agent/attachments: real decisions and storage, and a kernel that does as it is told."""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.agent.attachments.attachments import Attachments
from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.store import Record, Store
from plugin.core.cni.exemption import Exemption
from plugin.core.cni.hostports import PortMapping
from plugin.core.cni.types import CniError
from plugin.core.ipam.allocator import EXPOSE
from plugin.core.ipam.shares import Share
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Member
from plugin.core.node import Node
from plugin.core.upkeep.ledger import Ledger
from plugin.link import netns, nsid, pods
from plugin.link.netlink import Link, NetlinkError

ONE, NETWORK = IPv4Address("192.168.56.11"), IPv4Network("10.9.0.0/29")
GATEWAY, FIRST = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")
WHOLE = Share(NETWORK.network_address, NETWORK.broadcast_address)
BRIDGE = Link(index=2, name="weave", mac="02:00:00:00:00:01", mtu=1450, up=True, master=0, kind="bridge")
CONF = {"cniVersion": "1.1.0", "name": "weave", "type": "weave-net"}
RESERVED = PortMapping(host_port=6784, container_port=6784, protocol="udp")
FD = 0  # any open descriptor: what it is, the fake kernel says


class Kernel:
    """Pod links by name; `refusal` is what the next change is answered with; `ended`: the namespaces of all pods are gone."""

    def __init__(self) -> None:
        self.links: dict[str, IPv4Address | None] = {}
        self.locked: dict[str, bool] = {}
        self.refusal: Exception | None = None
        self.off: set[str] = set()
        self.ended = False
        self.heard: list[str] = []

    def link(self, name: str) -> Link | None:
        if name not in self.links:
            return None
        state = b"\5\0\1\0" + bytes([0 if name in self.off else 3])
        return Link(index=9, name=name, mac="", mtu=1450, up=True, master=2, kind="veth", port_data=state)

    def cut_off(self, _netlink: object, name: str, _mac: str, *, off: bool) -> None:
        self.off = self.off | {name} if off else self.off - {name}

    def macs_of_ports(self, _netlink: object, _bridge: Link) -> dict[str, str]:
        return {"02:00:00:00:00:09": "vethwepl"}

    def attach(
        self, _netlink: object, _bridge: Link, _fd: int, pod: pods.PodLink, *, admit: Callable[[Link], None]
    ) -> Link:
        self.answer()
        link = Link(
            index=9, name=pod.host_ifname, mac="02:00:00:00:00:09", mtu=pod.mtu_bytes, up=True, master=2, kind="veth"
        )
        admit(link)
        self.links[pod.host_ifname] = pod.interfaces[0].ip if pod.interfaces else None
        self.locked[pod.host_ifname] = pod.locked
        return link

    def configure(self, _netlink: object, _fd: int, pod: pods.PodLink, *, admit: Callable[[Link], None]) -> Link:
        assert self.links[pod.host_ifname] is None, "made before, without an address"
        return self.attach(_netlink, BRIDGE, _fd, pod, admit=admit)

    def detach(self, _netlink: object, name: str) -> bool:
        self.answer()
        return self.links.pop(name, False) is not False

    def detach_together(self, _netlink: object, names: Sequence[str]) -> dict[str, NetlinkError]:
        if isinstance(self.refusal, NetlinkError):
            return dict.fromkeys(names, self.refusal)
        for name in names:
            self.links.pop(name, None)
        return {}

    def fileno(self) -> int:
        raise AssertionError("the return of the call is all these tests hear of")

    def receive(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard

    def links_found(self) -> list[Link]:
        return [link for name in self.links if (link := self.link(name)) is not None]

    def leftovers(self, _netlink: object, _bridge: Link) -> dict[str, pods.Leftover]:
        return {
            name: pods.Leftover() if address is None else pods.Leftover(pods.mac_for(address), (address,))
            for name, address in self.links.items()
        }

    def answer(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class FakeCapabilities(Capabilities):
    """Remembers what pods have been given; `refusal` is what the next grant or withdrawal is answered with."""

    def __init__(self) -> None:
        super().__init__(
            None, None, reserved={RESERVED: "the agent"}, restore=lambda _ports: None, log=logging.getLogger("t")
        )
        self.given: dict[str, Record] = {}
        self.refusal: Exception | None = None
        self.lost: list[str] = []

    def grant(self, record: Record, _host: Link, _records: object) -> None:
        if record.ports or record.bandwidth:
            self.given[record.container_id] = record  # half of it, when it is refused then
        self.answer()

    def withdraw(self, record: Record) -> None:
        self.answer()
        self.given.pop(record.container_id, None)

    def differences(self, _record: Record) -> list[str]:
        return self.lost

    def observed(self, _host_ifname: str, _address: IPv4Address) -> tuple[tuple[PortMapping, ...], None]:
        return (), None

    def sweep(self, records: Any) -> None:
        names = {record.container_id for record in records.values()}
        self.given = {name: record for name, record in self.given.items() if name in names}

    def answer(self) -> None:
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise refusal


class FakeGuard:
    """Remembers whose frames are taken: names of links to (MAC, addresses, exemption)."""

    def __init__(self) -> None:
        self.admitted: dict[str, tuple[str, tuple[IPv4Address, ...], Exemption | None]] = {}
        self.refusal: Exception | None = None
        self.exemption: Exemption | None = None

    def admit(self, record: Record, outer: Link) -> None:
        if self.refusal is not None:
            raise self.refusal
        assert outer.name == record.host_ifname
        self.admitted[record.host_ifname] = (record.mac, record.addresses, record.guard)

    def forget(self, records: Sequence[Record]) -> None:
        for record in records:
            self.admitted.pop(record.host_ifname, None)

    def observed(self, _host_ifname: str, _mac: str, _addresses: Sequence[IPv4Address]) -> Exemption | None:
        return self.exemption


class Agent:
    """An `Attachments` with real decisions and storage round it."""

    def __init__(self, directory: Path, kernel: Kernel) -> None:
        self.kernel = kernel
        self.store = Store(directory)
        self.store.load()
        me = Member("n", "0" * 16, ONE, 1)
        self.node = Node(me=me, keys=Keys("c", NETWORK), seeds=[], founders=1, chance=random.Random(1))
        self.allocator = self.node.allocator
        self.allocator.own([WHOLE])
        self.gateway: IPv4Address | None = self.allocator.allocate(EXPOSE, now_s=0)
        self.others_have = False
        self.capabilities = FakeCapabilities()
        self.guard = FakeGuard()
        assert self.gateway == GATEWAY
        self.served: list[IPv4Address] = []
        self.ledger = Ledger()
        self.attachments = Attachments(
            netlink=SimpleNamespace(link=kernel.link, links=kernel.links_found), removing=([object()], kernel), queue=directory / "queue", bridge=BRIDGE, pod_range=NETWORK,
            gateway=lambda: self.gateway, mtu_bytes=1450, allocator=self.allocator, store=self.store, node=self.node,
            gateways=SimpleNamespace(serve=self.served.append), others_have=lambda: self.others_have,
            now_s=lambda: 0.0, log=logging.getLogger("test-attachments"), capabilities=self.capabilities,
            guard=self.guard,
            ledger=self.ledger,
        )  # fmt: skip

    def call(
        self,
        verb: str,
        name: str = "red",
        *,
        fd: int | None = FD,
        again: bool = False,
        printed: bytes | None = None,
        **conf: Any,
    ) -> Any:
        fields = [verb, name * 4, f"/run/netns/{name}", "eth0", "", "/opt/cni/bin"]
        body = "\0".join([*fields, json.dumps(CONF | conf)]).encode()
        return asyncio.run(self.attachments.handle(body, fd, repeated=again, delegated=printed))

    def fails(self, verb: str, name: str = "red", **options: Any) -> CniError:
        with pytest.raises(CniError) as raised:
            self.call(verb, name, **options)
        return raised.value

    @property
    def state(self) -> tuple[set[str], set[IPv4Address], set[IPv4Address]]:
        """Who is remembered, what is held, who is announced: for a node without pods only the gateway is held."""
        held = {address for key, address in self.allocator.held.items() if key != EXPOSE}
        return {record.container_id for record in self.store.records.values()}, held, set(self.node.located())


def fake_kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The kernel of the node, in the place of the real one as long as the test lasts."""
    fake = Kernel()
    for name in ("attach", "configure", "detach", "detach_together", "leftovers", "cut_off", "macs_of_ports"):
        monkeypatch.setattr(pods, name, getattr(fake, name))
    monkeypatch.setattr(nsid, "ensure_nsid", lambda _netlink, _fd: 7)
    monkeypatch.setattr(nsid, "ended", lambda _netlink, nsids: set(nsids) if fake.ended else set())
    monkeypatch.setattr(netns, "same_namespace", lambda _one, _other: False)
    monkeypatch.setattr(netns, "entered", lambda _fd: nullcontext())
    monkeypatch.setattr(nsid, "path_lives", lambda _path: not fake.ended)
    return fake


def restarted(agent: Agent, tmp_path: Path) -> Agent:
    agent.store.close()
    again = Agent(tmp_path, agent.kernel)
    agent.store = again.store  # the fixture closes this one
    asyncio.run(again.attachments.reconcile())
    return again
