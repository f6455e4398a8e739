"""What no schema can state about a topology: names, ranges, reachability, and what the steps of a scenario ask for.

Third phase of ``testbed.topology.load``. ``check`` is the table of contents; each rule is a generator of findings and
knows nothing of files: it names the path of the value that is wrong, and the loader finds its line.
"""

from testbed.topology import network_rules, step_rules
from testbed.topology.model import Topology
from testbed.topology.text import Finding


def check(topology: Topology) -> list[Finding]:
    """Every finding. Rules on scenarios are asked last and only of a lab that could be built."""
    found = [finding for rule in network_rules.RULES for finding in rule(topology)]
    return found or [finding for rule in step_rules.RULES for finding in rule(topology)]
