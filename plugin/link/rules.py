"""The firewall rules of a node: one nftables table of our own, replaced in one transaction, foreign rules untouched.

`nft` is started once when the agent starts, never per pod: the rules ask maps, and what comes and goes with a pod are
entries of these maps (plugin/link/hostports.py). Read it on a node with `nft list table ip weave`.
"""

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.cni.hostports import ANY_ADDRESS, PortMapping
from plugin.link.nft import run_nft

TABLE: Final = "weave"
_FAMILY: Final = "ip"
PORTS_ANY: Final = "ports"
"""Map: (protocol, port) of any address of the node -> (pod, port)."""
PORTS_AT: Final = "ports-at"
"""Map: (address of the node, protocol, port) -> (pod, port)."""
TARGETS: Final = "port-targets"
"""Set: (pod, protocol, port) that some host port leads to."""
PLAIN: Final = "plain"
"""Set: the addresses of pods that are not masqueraded."""
MARKS: Final = frozenset({PORTS_AT, TARGETS, "host-ports", "loopback"})
"""Names by which a table is known as ours: nobody else calls sets and chains of a table `weave` so."""

# Multicast is never masqueraded: nobody answers to it. `fully-random` keeps parallel DNS queries from colliding on a
# source port.
#
# Host ports: a packet to one of the node's own addresses is looked up, first at its address, then at any; one look-up
# each, however many pods there are. A packet of this node itself (output) is treated likewise. Who is a pod, or the
# node's loopback, gets the switch's address as its source: a pod on the same switch would be answered directly, past
# the translation; the pod itself would see a packet from itself; 127.0.0.1 would be answered within the pod. Everybody
# else is seen under the own address.
#
# A process of this node that calls from another address than the switch's (it is bound to the uplink's, or a Service
# has led it here) would be answered past the translation, or not at all: a pod of another node sends its answer to that
# address, by its own node and the underlay. So it calls as the switch. At a host port it is a pod of this node that
# answers, by this node: there everybody is seen as who he is.
#
# Services (kube-proxy, or whoever else translates destinations): a pod's packet comes to the switch as its gateway,
# gets the address of a pod, and the pod answers the caller directly, for both are neighbours. Where frames between pods
# pass these hooks (br_netfilter, plugin/link/sysctls.py), the answer is translated back on its way. Where they do not,
# it has to come back to the switch: _SERVICES makes the caller the switch, so that the pod does not see who calls.
# A pod that is led to itself would take no packet from its own address. Rules cannot compare two fields of a packet; so
# the pair (caller, caller) is put into a set, and whether (caller, called) is in it tells whether both are the same.
#
# So that 127.0.0.1 can be led to a pod at all, the switch has route_localnet (plugin/link/sysctls.py). Without the
# chain `loopback` that would let pods reach what listens on the node's 127.0.0.1 (CVE-2020-8558).
_TEXT: Final = """\
table ip {table}
delete table ip {table}
table ip {table} {{
  map {ports_any} {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    {elements_any}
  }}
  map {ports_at} {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    {elements_at}
  }}
  set {targets} {{
    type ipv4_addr . inet_proto . inet_service
    {elements_targets}
  }}
  set {plain} {{
    type ipv4_addr
    {elements_plain}
  }}
  set selves {{
    type ipv4_addr . ipv4_addr
    size 4096
    flags dynamic,timeout
    timeout 1m
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{bridge}" ip saddr {{ {pods}, 127.0.0.0/8 }} ct status dnat ip daddr . meta l4proto . th dport @{targets} \
counter masquerade fully-random comment "pods and this node at a host port"
    oifname "{bridge}" ip saddr {pods} ct status dnat update @selves {{ ip saddr . ip saddr }} \
ip saddr . ip daddr @selves counter masquerade fully-random comment "a pod at itself"
    oifname "{bridge}" ip daddr . meta l4proto . th dport @{targets} accept
    oifname "{bridge}" fib saddr type local ip saddr != {pods} ip daddr {pods} \
counter masquerade fully-random comment "this node by another of its addresses"
    {services}
    ip saddr {pods} ip saddr != @{plain} ip daddr != {pods} ip daddr != 224.0.0.0/4 oifname != "{bridge}" \
counter masquerade fully-random comment "pods to the outside"
  }}
  chain host-ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @{ports_at}
    dnat ip to meta l4proto . th dport map @{ports_any}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump host-ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump host-ports
  }}
  chain loopback {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop comment "what listens on 127.0.0.1 is not for pods"
    iifname "{bridge}" ip saddr 127.0.0.0/8 counter drop comment "nor does 127.0.0.1 ever come from one"
  }}
}}
"""

_SERVICES: Final = (
    'oifname "{bridge}" ip saddr {pods} ip daddr {pods} ct status dnat '
    'counter masquerade fully-random comment "pods at a Service"'
)


def table_text(
    pod_range: IPv4Network,
    bridge: str,
    host_ports: Sequence[tuple[IPv4Address, PortMapping]] = (),
    plain: Iterable[IPv4Address] = (),
    *,
    tracked: bool = True,
) -> str:
    """The transaction, in the language of nft(8).

    Traffic of pods that leaves the range gets the node's address; pod to pod never does, so a pod always sees who
    calls; nor do pods whose configuration says so. The arguments are those of `ensure_rules`.
    """
    mapped = [
        (mapping, f"{mapping.protocol} . {mapping.host_port} : {address} . {mapping.container_port}")
        for address, mapping in host_ports
    ]
    targets = {f"{address} . {one.protocol} . {one.container_port}" for address, one in host_ports}
    return _TEXT.format(
        table=TABLE,
        ports_any=PORTS_ANY,
        ports_at=PORTS_AT,
        targets=TARGETS,
        plain=PLAIN,
        bridge=bridge,
        pods=pod_range,
        services="" if tracked else _SERVICES.format(bridge=bridge, pods=pod_range),
        elements_any=_elements(text for one, text in mapped if one.host_ip == ANY_ADDRESS),
        elements_at=_elements(f"{one.host_ip} . {text}" for one, text in mapped if one.host_ip != ANY_ADDRESS),
        elements_targets=_elements(sorted(targets)),
        elements_plain=_elements(str(address) for address in plain),
    )


def _elements(texts: Iterable[str]) -> str:
    joined = ", ".join(texts)
    return f"elements = {{ {joined} }}" if joined else ""


def ensure_rules(
    pod_range: IPv4Network,
    bridge: str,
    host_ports: Iterable[tuple[IPv4Address, PortMapping]] = (),
    plain: Iterable[IPv4Address] = (),
    *,
    tracked: bool = True,
) -> None:
    """Put our table in place, replacing an earlier one: at no moment is there none, or half of one.

    Args:
        pod_range: The pod range.
        bridge: The switch.
        host_ports: The mappings of the pods that are there already, with the pods' addresses.
        plain: The addresses of those that are not masqueraded.
        tracked: Whether frames between pods pass the rules for IP packets (`sysctls.is_bridged_tracked`).

    Raises:
        MissingError: `nft` is absent, or the kernel refuses (no nf_tables, no NAT).
    """
    run_nft(table_text(pod_range, bridge, list(host_ports), plain, tracked=tracked))


def keep_address(addresses: Collection[IPv4Address], *, keep: bool) -> None:
    """Pods of these addresses leave the range as who they are (`keep`), or masqueraded again. Twice is harmless.

    One start of `nft`, but only for pods whose configuration asks for it.

    Raises:
        MissingError: `nft` is absent, or the kernel refuses.
    """
    element = f"element {_FAMILY} {TABLE} {PLAIN} {{ {', '.join(map(str, addresses))} }}\n"
    if addresses:
        # Added before it is removed as well, so that there is something to remove.
        run_nft(f"add {element}" + ("" if keep else f"delete {element}"))


def remove_rules() -> None:
    """Remove our table; nothing happens when there is none.

    Raises:
        MissingError: `nft` is absent.
    """
    run_nft(f"table ip {TABLE}\ndelete table ip {TABLE}\n")
