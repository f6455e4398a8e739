"""The parts of a node's data plane: what each has to be like, what it is like, and how it is mended.

One class a kind of kernel object. plugin/agent/dataplane/upkeep.py asks all of them, from the first to the last: what a
later one stands on (a pod's port on the switch) an earlier one has mended by then. What mends is what has made it, when
the agent started. Nothing here decides when to look, nor whether something may be mended.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import Protocol

from plugin.agent.dataplane.forwarder import Forwarder
from plugin.core.cni.hostports import PortMapping
from plugin.core.forwarding.forward import Changes
from plugin.core.upkeep.items import Concern, Damage, Facts, damages
from plugin.link import constants as c
from plugin.link import hostports, overlay, rtnl, rules, switch, sysctls
from plugin.link.netlink import Link, Netlink
from plugin.link.snapshot import Snapshot


class Part(Protocol):
    """One kind of kernel objects."""

    concerns: Concern
    """Whose changes may be about it."""

    def names(self) -> Iterable[str]:
        """What its objects are called."""

    def damage(self, seen: Snapshot) -> list[Damage]:
        """What is not as it has to be."""

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:
        """Make these objects again what they have to be.

        Raises:
            WeaveError: It cannot be done; the text says why.
            OSError: The kernel refuses.
        """


def _link_facts(link: Link) -> dict[str, object]:
    """What is compared of every link."""
    return {"kind": link.kind, "mac": link.mac, "mtu": link.mtu, "up": link.up}


def _port_facts(link: Link, flags: Iterable[str]) -> dict[str, object]:
    """The flags of a port, as far as this kernel has them."""
    return {name: value for name in flags if (value := link.port_flag(rtnl.PORT_FLAGS[name])) is not None}


class SwitchPart:
    """The bridge and the VXLAN device.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch as it was made.
        device: The overlay device as it was made.
        mtu_bytes: The MTU of both now.
        local: The node's own address now: what the device sends from.
    """

    concerns = Concern.LINKS

    def __init__(
        self,
        *,
        netlink: Netlink,
        bridge: Link,
        device: Link,
        mtu_bytes: Callable[[], int],
        local: Callable[[], IPv4Address],
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._device = device
        self._mtu_bytes = mtu_bytes
        self._local = local
        self._bridge_name = f"link {bridge.name}"
        self._device_name = f"link {device.name}"

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return self._bridge_name, self._device_name

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See `Part`."""
        found: dict[str, Facts] = {}
        if (bridge := seen.links.get(self._bridge.name)) is not None:
            found[self._bridge_name] = _link_facts(bridge) | self._bridge_settings(bridge)
        if (device := seen.links.get(self._device.name)) is not None:
            found[self._device_name] = self._device_facts(device)
        return damages(self._wanted(), found)

    def _wanted(self) -> dict[str, Facts]:
        mtu_bytes = self._mtu_bytes()
        return {
            self._bridge_name: {
                "kind": "bridge", "index": self._bridge.index, "mac": self._bridge.mac, "mtu": mtu_bytes, "up": True,
                "spanning tree": False, "VLAN filtering": False,
            },
            self._device_name: {
                "kind": "vxlan", "index": self._device.index, "mac": self._device.mac, "mtu": mtu_bytes, "up": True,
                "vni": self._device.vxlan_vni, "port": self._device.vxlan_port, "local": self._local(),
                "switch": self._bridge.index,
                **overlay.VXLAN_SETTINGS, **_port_words(overlay.OVERLAY_PORT), "forwarding": True,
            },
        }  # fmt: skip

    @staticmethod
    def _bridge_settings(bridge: Link) -> dict[str, object]:
        stp, vlans = (bridge.kind_attribute(kind) or b"" for kind in (c.BR_STP_STATE, c.BR_VLAN_FILTERING))
        return {"index": bridge.index, "spanning tree": any(stp), "VLAN filtering": any(vlans)}

    @staticmethod
    def _device_facts(device: Link) -> dict[str, object]:
        facts = _link_facts(device) | overlay.vxlan_settings(device) | _port_words(_port_facts(device, rtnl.PORT_FLAGS))
        facts |= {"index": device.index, "switch": device.master, "vni": device.vxlan_vni, "port": device.vxlan_port}
        if device.up and device.forwards is not None:
            facts["forwarding"] = device.forwards
        return facts | {"local": device.vxlan_local}

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:
        """See `Part`."""
        bridge = self._bridge
        if self._bridge_name in names:
            found = self._named_again(seen, bridge)
            if found is not None and found.kind == "bridge" and found.index != bridge.index:
                # Somebody made it anew: all that knows it by its number is wrong of it.
                self._netlink.request(rtnl.link_del(found.index), what=f"remove the foreign {bridge.name}")
            switch.ensure_bridge(
                self._netlink, bridge.name, mac=bridge.mac, mtu_bytes=self._mtu_bytes(), index=bridge.index
            )
        if self._device_name in names:
            self._mend_device(self._named_again(seen, self._device))

    def _named_again(self, seen: Snapshot, ours: Link) -> Link | None:
        """One of our links as it is now; what somebody has only given another name gets its own back."""
        if (found := seen.links.get(ours.name)) is not None:
            return found
        renamed = next((one for one in seen.links.values() if (one.index, one.kind) == (ours.index, ours.kind)), None)
        if renamed is not None:
            switch.rename(self._netlink, renamed, ours.name)
        return renamed

    def _mend_device(self, found: Link | None) -> None:
        device = self._device
        assert device.vxlan_vni is not None
        assert device.vxlan_port is not None
        if found is not None and (found.index != device.index or found.kind != "vxlan"):
            self._netlink.request(rtnl.link_del(found.index), what=f"remove the foreign {device.name}")
        overlay.ensure_overlay(
            self._netlink, bridge=self._bridge, vni=device.vxlan_vni, local=self._local(), port=device.vxlan_port,
            mtu_bytes=self._mtu_bytes(), again=device,
        )  # fmt: skip


def _port_words(flags: Mapping[str, object]) -> dict[str, object]:
    """Flags of a port as facts: the device has a flag `learning` of its own."""
    return {f"port {name}": value for name, value in flags.items()}


class AddressPart:
    """The addresses of the switch: its own, and gateways that other IPAM plugins name.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        wanted: The addresses that it has to have; others are not looked at.
    """

    concerns = Concern.ADDRESSES | Concern.LINKS

    def __init__(self, *, netlink: Netlink, bridge: Link, wanted: Callable[[], Collection[IPv4Interface]]) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._find_wanted = wanted
        self._name = f"address {bridge.name}"

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return (self._name,)

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See `Part`."""
        missing = self._missing(seen)
        return [Damage(self._name, f"{', '.join(str(one) for one in missing)} gone")] if missing else []

    def _missing(self, seen: Snapshot) -> list[IPv4Interface]:
        there = {interface for index, interface in seen.addresses if index == self._bridge.index}
        return sorted(set(self._find_wanted()) - there)

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:  # noqa: ARG002 - there is one object
        """See `Part`."""
        messages = [rtnl.address_add(self._bridge.index, interface) for interface in self._missing(seen)]
        self._netlink.request(*messages, what=f"give {self._bridge.name} its address")


class SysctlPart:
    """Settings of the kernel for this node.

    Args:
        wanted: Each as (name with slashes, value); a name that this kernel does not have is passed over.
        concerns: When they are looked at.
    """

    def __init__(self, wanted: Callable[[], Iterable[tuple[str, str]]], concerns: Concern = Concern.SYSCTLS) -> None:
        self._find_wanted = wanted
        self.concerns = concerns

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return [self._name(name) for name, _ in self._find_wanted()]

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See `Part`."""
        wanted = {self._name(name): (name, value) for name, value in self._find_wanted()}
        found: dict[str, Facts] = {
            item: {"value": value} if (value := seen.sysctl(name)) is not None else {}
            for item, (name, _) in wanted.items()
        }
        return damages({item: {"value": value} for item, (_, value) in wanted.items()}, found)

    @staticmethod
    def _name(name: str) -> str:
        return f"sysctl {name.replace('/', '.')}"

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:  # noqa: ARG002 - what is there says nothing
        """See `Part`."""
        sysctls.apply_sysctls([one for one in self._find_wanted() if self._name(one[0]) in names])


class RulesPart:
    """The nftables table of the node, with the entries of its maps.

    Args:
        ensure: Puts the table in place, whole.
        host_ports: The ports of this node that lead to pods, with the pods' addresses.
        plain: The addresses of pods that are not masqueraded.
    """

    concerns = Concern.RULES

    def __init__(
        self,
        *,
        ensure: Callable[[], None],
        host_ports: Callable[[], Sequence[tuple[IPv4Address, PortMapping]]],
        plain: Callable[[], Sequence[IPv4Address]],
    ) -> None:
        self._ensure = ensure
        self._host_ports = host_ports
        self._plain = plain
        self._name = f"nft table {rules.TABLE}"
        self._digest = b""

    def expect(self, seen: Snapshot) -> None:
        """The table is as it has to be: call it behind `ensure`, when nobody else has had a turn."""
        self._digest = seen.table_digest(rules.TABLE)

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return (self._name,)

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See `Part`."""
        digest = seen.table_digest(rules.TABLE)
        if not digest:
            return [Damage(self._name, "gone")]
        if digest != self._digest:
            return [Damage(self._name, "rules changed")]
        missing = self._missing(seen)
        return [Damage(self._name, f"{missing} of its entries gone or changed")] if missing else []

    def _missing(self, seen: Snapshot) -> int:
        wanted = {
            (element.set_name, element.key): element.value
            for address, mapping in self._host_ports()
            for element in hostports.elements_of(address, [mapping])
        }
        wanted |= {(rules.PLAIN, address.packed): b"" for address in self._plain()}
        found = {
            (name, key): value
            for name in dict.fromkeys(name for name, _ in wanted)
            for key, value in seen.elements(rules.TABLE, name).items()
        }
        return sum(found.get(place) != value for place, value in wanted.items())

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:  # noqa: ARG002 - there is one object
        """See `Part`."""
        self._ensure()
        # Should somebody have had a turn between the start's `ensure` and `expect`, what was expected was his.
        self.expect(seen)


class EntriesPart:
    """Forwarding entries and neighbours: where every pod of the cluster is.

    Args:
        forwarder: Has written them.
        device: The overlay device, after which they are called.
    """

    concerns = Concern.ENTRIES | Concern.LINKS

    def __init__(self, forwarder: Forwarder, device: Link) -> None:
        self._forwarder = forwarder
        self._name = f"entries {device.name}"

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return (self._name,)

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See `Part`."""
        found = self._difference(seen)
        counts = (
            (len(found.flood_add), "flood entries"),
            (len(found.remote_set), "forwarding entries"),
            (len(found.neighbour_set), "neighbours"),
        )
        what = ", ".join(f"{count} {kind}" for count, kind in counts if count)
        return [Damage(self._name, f"{what} gone or changed")] if what else []

    def _difference(self, seen: Snapshot) -> Changes:
        return self._forwarder.damage(seen.fdb, seen.neighbours)

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:  # noqa: ARG002 - there is one object
        """See `Part`."""
        self._forwarder.mend(self._difference(seen))
