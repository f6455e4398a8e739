"""What keeps the node as it has to be: the parts of the data plane and of the pods, put together."""

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv4Interface

from plugin.agent.attachments.attachments import Attachments
from plugin.agent.attachments.capabilities import Capabilities, plain_addresses, recorded_ports
from plugin.agent.attachments.links import LimitsPart, PodLinks
from plugin.agent.dataplane.forwarder import Forwarder
from plugin.agent.dataplane.guard import Guard, GuardPart
from plugin.agent.dataplane.parts import AddressPart, EntriesPart, RulesPart, SwitchPart, SysctlPart
from plugin.agent.dataplane.passage import Passage
from plugin.agent.dataplane.surroundings import Surroundings
from plugin.agent.dataplane.upkeep import Upkeep
from plugin.agent.store import Record
from plugin.core.upkeep.items import Concern
from plugin.core.upkeep.ledger import Ledger
from plugin.link import sysctls
from plugin.link.netlink import Link, Netlink
from plugin.link.nfnetlink import Netfilter
from plugin.link.notices import Notices
from plugin.link.snapshot import Observer


def keep(  # noqa: PLR0913 - it looks after every part there is; app.py calls it once
    stack: AsyncExitStack,
    *,
    netlink: Netlink,
    netfilter: Netfilter,
    bridge: Link,
    device: Link,
    mtu_bytes: Callable[[], int],
    pod_mtu_bytes: Callable[[Record], int],
    local: Callable[[], IPv4Address],
    ensure_rules: Callable[[], None],
    forwarder: Forwarder,
    attachments: Attachments,
    capabilities: Capabilities,
    passage: Passage,
    surroundings: Surroundings,
    guard: Guard,
    addresses: Callable[[], list[IPv4Interface]],
    ledger: Ledger,
    log: logging.Logger,
) -> Upkeep:
    """Put together what looks after the data plane as the start and every ADD have made it: the ground first.

    Args:
        stack: Releases what is made here.
        netlink: A socket in the node's namespace.
        netfilter: Another one.
        bridge: The switch as it was made.
        device: The overlay device as it was made.
        mtu_bytes: The MTU of both now.
        pod_mtu_bytes: The MTU of a pod's link now.
        local: The node's own address now.
        ensure_rules: Puts the nftables table in place, whole.
        forwarder: Has written the forwarding entries.
        attachments: The pods.
        capabilities: Their host ports and limits.
        passage: Our rules in other software's firewalls.
        surroundings: Other things of other software, which are told.
        guard: Keeps them from pretending.
        addresses: What the switch has to have.
        ledger: The book of troubles.
        log: Where events go.
    """
    observer = Observer(netlink, netfilter)
    node_sysctls = (
        *sysctls.NODE,
        *sysctls.interface(bridge.name),
        *sysctls.interface(device.name),
        *sysctls.switch(bridge.name),
    )
    table = RulesPart(
        ensure=ensure_rules,
        host_ports=lambda: recorded_ports(attachments.present),
        plain=lambda: plain_addresses(attachments.present),
    )
    table.expect(observer.look())
    links = PodLinks(netlink=netlink, bridge=bridge, records=lambda: attachments.present, mtu_bytes=pod_mtu_bytes)
    notices = Notices(
        lambda *entry: forwarder.contradicts(*entry) or links.contradicts(*entry), (netlink.port, netfilter.port)
    )
    stack.callback(notices.close)
    return Upkeep(
        parts=[
            SysctlPart(lambda: node_sysctls),
            SwitchPart(netlink=netlink, bridge=bridge, device=device, mtu_bytes=mtu_bytes, local=local),
            AddressPart(netlink=netlink, bridge=bridge, wanted=addresses),
            table,
            passage,
            links,
            GuardPart(guard),
            SysctlPart(lambda: _of_pods(attachments), Concern.REST),
            LimitsPart(lambda: attachments.present, capabilities),
            EntriesPart(forwarder, device),
        ],
        untouchable=[
            (Concern.LINKS, links),
            (Concern.RULES, passage),
            (surroundings.concerns, surroundings),
        ],
        ledger=ledger,
        notices=notices,
        look=observer.look,
        log=log,
    )


def _of_pods(attachments: Attachments) -> list[tuple[str, str]]:
    """The settings of the node's ends of all pods' links."""
    return [one for record in attachments.present.values() for one in sysctls.interface(record.host_ifname)]
