"""What is left to do for a call when the agent has done its part: the calls of another IPAM plugin, for the executable.

The agent never runs such a plugin itself: it has to run where the runtime is, in its namespaces, with its environment,
and may take long (docs/adr/0024-delegated-ipam.md).
"""

import json
from collections.abc import Sequence
from typing import Final

from plugin.agent.store import Record
from plugin.core.cni.ipam import IpamCall, IpamPlan
from plugin.core.cni.types import CniRequest

RECOVERED: Final = "recovered"
"""The network of a pod that was found on the switch without its record."""


def asked(request: CniRequest) -> list[IpamCall]:
    """The same verb, of the IPAM plugin that the configuration names, if it names one."""
    return [] if request.delegate is None else [IpamCall(request.delegate.kind, request.command)]


def give_back(record: Record | None, request: CniRequest | None) -> list[IpamCall]:
    """The DEL of the IPAM plugin that gave the addresses: by its record, else as the configuration says now.

    `request` None: the call is about many attachments, so this one has to be named.
    """
    attachment = None if request is not None or record is None else (record.container_id, record.ifname)
    if record is not None and record.ipam:
        ipam = json.loads(record.ipam)
        now = None if request is None or request.delegate is None else request.delegate.ipam
        return [IpamCall(str(ipam["type"]), "DEL", attachment, None if ipam == now else ipam)]
    known = record is not None and record.network != RECOVERED  # then the agent itself gave the address
    return [] if known or request is None else asked(request)


def plan(calls: Sequence[IpamCall]) -> str | IpamPlan:
    """The answer of a verb that prints nothing: these calls are left, or none."""
    return IpamPlan(tuple(calls)) if calls else ""
