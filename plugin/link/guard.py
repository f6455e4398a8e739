"""Pods cannot pretend: two nftables tables that look at what pods send, and at who speaks to this node's overlay.

`table bridge weave-guard` sees every frame of a pod before the switch does; `table ip weave-guard` keeps pods away from
the agents, and everybody but the members' nodes away from the overlay. The rules are a constant few: which pod may send
what is asked from sets, whose entries come and go with the pods (plugin/core/forwarding/guard.py has them). `nft` is
started when the tables are written, never per pod.

Ports of pods are told by their names. So a pod whose entries somebody has removed is cut off, not set free.

Read it on a node: `nft list table bridge weave-guard`, `nft list table ip weave-guard`.
"""

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.forwarding.guard import (
    ANY_ADDRESS,
    ANY_MAC,
    MACS,
    PROMISCUOUS,
    SETS,
    SOURCES,
    Entry,
    Reason,
)
from plugin.core.packet.names import mac_bytes
from plugin.link.nfnetlink import BRIDGE, IPV4, Element, Netfilter, concatenated
from plugin.link.nft import run_nft

TABLE: Final = "weave-guard"
MEMBERS: Final = "members"
"""Set: the addresses of nodes whose VXLAN packets are taken in."""
_REFUSED: Final = "refused"
_STRANGERS: Final = "strangers"
_DIRECT: Final = "direct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What of a node the rules have to know.

    Attributes:
        bridge: The switch.
        port_prefix: How the names of pods' ports begin.
        pod_range: The pod range.
        vxlan_port: UDP port of the overlay.
        control_port: UDP and TCP port of the agents.
        api_port: TCP port of their API; 0 for none.
    """

    bridge: str
    port_prefix: str
    pod_range: IPv4Network
    vxlan_port: int
    control_port: int
    api_port: int


# What becomes of a frame:
#
# - Its port, MAC and address are looked up together, as near to the hook as can be: every rule and every step into a
#   chain costs a packet some 20 ns, a look-up 80, and of 64-byte packets one takes two microseconds through a switch.
#   Before that only UDP is asked for the port of DHCP clients.
# - Everything else is ARP, or somebody's exemption, or refused. It may take its time.
# - A tag (802.1Q) hides nothing: the kernel has taken it off by now, and what is behind it is looked at. What has a
#   second one is neither IPv4 nor ARP.
# - No pod has the address of a member's node, with no exemption: so the overlay need not ask where a packet came in.
# - Frames to 01:80:c2:00:00:0x take ways of their own through a bridge, past prerouting, and what it does not eat
#   reaches the node as if it had come in by the pod's port, past all rules that ask for the switch: an IPv4 packet,
#   too. No pod needs that; it ends in `input`, or, where a bridge asks no hook at all (LLDP's group, ...0e), as a
#   packet in `input` of the other table. Such a frame that is no packet reaches who listens for LLDP on the node.
#
# The mark of a frame that is refused says why: a constant cannot be a part of what `update` writes, and the frame goes
# no further anyway. The kernel makes the entries that count itself, so only what is refused costs anything. A full set
# ends the rule that would have counted, hence `drop` is a rule of its own.
#
# Agents are protected where packets are routed, for what pods send to each other's port 6783 is their own affair. That
# is behind the translation of destinations (priority -100), so a packet has the port that it will arrive at, and before
# that of sources, so it has the address of its pod. Fragments have been put together by then (nf_defrag_ipv4, which
# comes with masquerading); where they have not, the first one carries the port and is dropped, and the others are
# nothing without it. Whereto is not asked: a node has more addresses than its peers know, and takes VXLAN in at all.
#
# Control packets may come from strangers, for so agents join; but not by the switch, nor from an address of pods.
_TEXT: Final = """\
table bridge {table}
delete table bridge {table}
table ip {table}
delete table ip {table}
table bridge {table} {{
  set {sources} {{
    type iface_index . ether_addr . ipv4_addr
    {elements_sources}
  }}
  set {macs} {{
    type iface_index . ether_addr
    {elements_macs}
  }}
  set {any_mac} {{
    type iface_index . ipv4_addr
    {elements_any_mac}
  }}
  set {any_address} {{
    type iface_index . ether_addr
    {elements_any_address}
  }}
  set {promiscuous} {{
    type iface_index
    {elements_promiscuous}
  }}
  set {members} {{
    type ipv4_addr
    {elements_members}
  }}
  set {refused} {{
    type iface_index . mark
    size 16384
    flags dynamic
  }}
  chain refuse {{
    update @{refused} {{ meta iif . meta mark counter }}
    drop
  }}
  chain dhcp {{
    meta iif @{promiscuous} accept
    meta mark set {dhcp} goto refuse
  }}
  chain known-mac {{
    meta protocol ip meta iif . ether saddr @{any_address} accept
    meta protocol ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept comment "asks for an address"
    meta protocol ip meta mark set {address} goto refuse
    meta protocol arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 meta iif . arp saddr ether @{macs} \
arp saddr ip 0.0.0.0 accept comment "asks whether an address is free"
    meta protocol arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 meta iif . arp saddr ether @{any_address} accept
    meta protocol arp meta mark set {arp} goto refuse
    meta protocol ip6 icmpv6 type nd-router-advert meta mark set {router} goto refuse
    meta protocol ip6 meta mark set {ipv6} goto refuse
    ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 meta mark set {group} goto refuse
    meta mark set {protocol} goto refuse
  }}
  chain strange {{
    meta protocol ip ip saddr @{members} meta mark set {address} goto refuse \
comment "with no exemption"
    meta iif @{promiscuous} accept
    meta iif . ether saddr @{macs} goto known-mac
    meta protocol ip meta iif . ip saddr @{any_mac} accept
    meta protocol arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 meta iif . arp saddr ip @{any_mac} accept
    meta mark set {mac} goto refuse
  }}
  chain no-packet {{
    meta protocol arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 meta iif . ether saddr . arp saddr ip @{sources} \
meta iif . arp saddr ether . arp saddr ip @{sources} accept
    goto strange
  }}
  chain group {{
    meta mark set {group} goto refuse
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{ports}*" accept
    udp dport 68 goto dhcp
    meta protocol ip meta iif . ether saddr . ip saddr @{sources} accept
    goto no-packet
  }}
  chain input {{
    type filter hook input priority -300; policy accept;
    iifname "{ports}*" ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 goto group
  }}
}}
table ip {table} {{
  set {members} {{
    type ipv4_addr
    {elements_members}
  }}
  set {refused} {{
    type ipv4_addr
    size 4096
    flags dynamic
  }}
  set {direct} {{
    type iface_index
    size 4096
    flags dynamic
  }}
  set {strangers} {{
    type ipv4_addr
    size 256
    flags dynamic,timeout
    timeout 10m
  }}
  chain refuse {{
    update @{refused} {{ ip saddr counter }}
    drop
  }}
  chain overlay {{
    iifname "{bridge}" goto refuse
    update @{strangers} {{ ip saddr counter }}
    drop
  }}
  chain agent {{
    iifname "{bridge}" goto refuse
    ip saddr {pods} goto refuse
  }}
  chain direct {{
    update @{direct} {{ meta iif counter }}
    drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    udp dport {vxlan_port} ip saddr @{members} accept
    iifname "{ports}*" goto direct
    udp dport {vxlan_port} goto overlay
    meta l4proto . th dport {{ {agent_ports} }} goto agent
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{bridge}" oifname != "{bridge}" meta l4proto . th dport {{ {all_ports} }} goto refuse
  }}
  chain output {{
    type filter hook output priority -10; policy accept;
    ip saddr {pods} oifname != "{bridge}" meta l4proto . th dport {{ {all_ports} }} goto refuse \
comment "led on by this node itself (IPVS)"
  }}
}}
"""


def _guard_text(place: Place, entries: Iterable[Entry], members: Iterable[IPv4Address]) -> str:
    """The transaction that writes both tables, with all that is in their sets, in the language of nft(8)."""
    texts: dict[str, list[str]] = {name: [] for name in SETS}
    for entry in entries:
        parts = [str(entry.port), entry.mac, "" if entry.address is None else str(entry.address)]
        texts[entry.set_name].append(" . ".join(part for part in parts if part))
    agent_ports = [f"tcp . {place.control_port}", f"udp . {place.control_port}"]
    if place.api_port:
        agent_ports.append(f"tcp . {place.api_port}")
    return _TEXT.format(
        table=TABLE,
        bridge=place.bridge,
        ports=place.port_prefix,
        pods=place.pod_range,
        vxlan_port=place.vxlan_port,
        agent_ports=", ".join(agent_ports),
        all_ports=", ".join([f"udp . {place.vxlan_port}", *agent_ports]),
        sources=SOURCES,
        macs=MACS,
        any_mac=ANY_MAC,
        any_address=ANY_ADDRESS,
        promiscuous=PROMISCUOUS,
        members=MEMBERS,
        refused=_REFUSED,
        strangers=_STRANGERS,
        direct=_DIRECT,
        elements_sources=_elements(texts[SOURCES]),
        elements_macs=_elements(texts[MACS]),
        elements_any_mac=_elements(texts[ANY_MAC]),
        elements_any_address=_elements(texts[ANY_ADDRESS]),
        elements_promiscuous=_elements(texts[PROMISCUOUS]),
        elements_members=_elements(map(str, members)),
        mac=int(Reason.MAC),
        address=int(Reason.ADDRESS),
        arp=int(Reason.ARP),
        ipv6=int(Reason.IPV6),
        router=int(Reason.ROUTER),
        dhcp=int(Reason.DHCP),
        group=int(Reason.BRIDGE),
        protocol=int(Reason.PROTOCOL),
    )


def _elements(texts: Iterable[str]) -> str:
    joined = ", ".join(texts)
    return f"elements = {{ {joined} }}" if joined else ""


def write_guard(place: Place, entries: Iterable[Entry], members: Iterable[IPv4Address]) -> None:
    """Put our tables in place, replacing earlier ones: at no moment is there none, or half of one.

    Raises:
        MissingError: `nft` is absent, or the kernel refuses (no nf_tables for bridges).
    """
    run_nft(_guard_text(place, entries, members))


def remove_guard() -> None:
    """Remove our tables; nothing happens when there are none.

    Raises:
        MissingError: `nft` is absent.
    """
    run_nft("".join(f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("bridge", "ip")))


def rules_digest(kernel: Netfilter) -> bytes:
    """A figure of the rules of both tables; empty when one of them is missing."""
    digests = [kernel.table_digest(TABLE, family) for family in (BRIDGE, IPV4)]
    return b"".join(digests) if all(digests) else b""


def add_entries(kernel: Netfilter, entries: Collection[Entry]) -> None:
    """Let pods send what these entries say, all of them in one transaction.

    Raises:
        NetlinkError: The kernel refuses; ENOENT when somebody has removed the tables.
    """
    kernel.add_elements(TABLE, [_element(entry) for entry in entries], BRIDGE)


def delete_entries(kernel: Netfilter, entries: Collection[Entry]) -> None:
    """Let them send it no longer; what is missing already is passed over.

    Raises:
        NetlinkError: The kernel refuses.
    """
    kernel.delete_elements(TABLE, [_element(entry) for entry in entries], BRIDGE)


def observe_entries(kernel: Netfilter) -> frozenset[Entry]:
    """What the kernel's sets hold."""
    return frozenset(_entry(name, key) for name in SETS for key in kernel.elements(TABLE, name, BRIDGE))


def observe_members(kernel: Netfilter, family: int = IPV4) -> frozenset[IPv4Address]:
    """Whose VXLAN packets are taken in (`IPV4`), whose addresses no pod may have (`BRIDGE`): the same, when whole."""
    return frozenset(IPv4Address(key) for key in kernel.elements(TABLE, MEMBERS, family))


def ensure_members(kernel: Netfilter, wanted: Collection[IPv4Address]) -> None:
    """Take VXLAN packets in from these nodes and no others; no pod may have their addresses.

    Raises:
        NetlinkError: The kernel refuses; ENOENT when somebody has removed the tables.
    """
    for family in (BRIDGE, IPV4):  # in this order: whose packets are taken in, no pod can be any more
        more = sorted(set(wanted) - observe_members(kernel, family))
        kernel.add_elements(TABLE, [Element(MEMBERS, address.packed) for address in more], family)
    for family in (IPV4, BRIDGE):
        fewer = sorted(observe_members(kernel, family) - set(wanted))
        kernel.delete_elements(TABLE, [Element(MEMBERS, address.packed) for address in fewer], family)


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused since the tables were written.

    Attributes:
        frames: Of pods of this node, by port and reason.
        packets: To the agents' ports, by the address of the pod.
        strangers: To the overlay, by the address of who is no member; those of the last ten minutes.
    """

    frames: Mapping[tuple[int, Reason], int]
    packets: Mapping[IPv4Address, int]
    strangers: Mapping[IPv4Address, int]


def observe_refused(kernel: Netfilter) -> Refused:
    """Read the counters: short lists, as long as the number of those to whom something was refused."""
    frames: dict[tuple[int, Reason], int] = {}
    for key, count in kernel.counted(TABLE, _REFUSED, BRIDGE).items():
        port, mark = struct.unpack("=II", key)
        if mark in set(Reason):
            frames[port, Reason(mark)] = count
    for key, count in kernel.counted(TABLE, _DIRECT, IPV4).items():
        (port,) = struct.unpack("=I", key)
        frames[port, Reason.BRIDGE] = frames.get((port, Reason.BRIDGE), 0) + count
    return Refused(
        frames,
        {IPv4Address(key): count for key, count in kernel.counted(TABLE, _REFUSED, IPV4).items()},
        {IPv4Address(key): count for key, count in kernel.counted(TABLE, _STRANGERS, IPV4).items()},
    )


def forget_refused(kernel: Netfilter, ports: Collection[int]) -> None:
    """Remove the counters of ports that are gone.

    Raises:
        NetlinkError: The kernel refuses.
    """
    for name, family in ((_REFUSED, BRIDGE), (_DIRECT, IPV4)):
        keys = [key for key in kernel.counted(TABLE, name, family) if struct.unpack_from("=I", key)[0] in ports]
        kernel.delete_elements(TABLE, [Element(name, key) for key in keys], family)


def _element(entry: Entry) -> Element:
    parts = [struct.pack("=I", entry.port)]  # a number of the kernel's: in the byte order of this machine
    if entry.mac:
        parts.append(mac_bytes(entry.mac))
    if entry.address is not None:
        parts.append(entry.address.packed)
    return Element(entry.set_name, concatenated(*parts))


def _entry(set_name: str, key: bytes) -> Entry:
    (port,) = struct.unpack_from("=I", key)
    mac = key[4:10].hex(":") if set_name in {SOURCES, MACS, ANY_ADDRESS} else ""
    address = IPv4Address(key[-4:]) if set_name in {SOURCES, ANY_MAC} else None
    return Entry(set_name, port, mac, address)
