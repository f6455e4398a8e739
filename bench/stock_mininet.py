"""Stock Mininet, measured: `python -m bench.stock_mininet NODES`, started by `bench.bringup` in namespaces of its own.

Its LinuxBridge makes the switch in the network namespace that Mininet itself runs in: that must be a private one, and
the program refuses to run in the machine's. Prints one JSON object: {"up_s": ..., "down_s": ...}.

Left out, in Mininet's favour: its import, and its writing of ten sysctls of the machine, which are not ours to change.
Its limit of open files is raised as it does itself (`fixLimits`): that matters, because Debian's mnexec closes every
possible descriptor, one by one, for every host.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

OPEN_FILES_MIN = 16384


def main(nodes: int) -> int:
    """Bring up, check, take down; prints the times."""
    if Path("/proc/self/ns/net").stat().st_ino == int(os.environ["BENCH_MACHINE_NETNS"]):
        sys.stderr.write("stock Mininet must not run in the machine's own network namespace\n")
        return 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_MIN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MIN, max(hard, OPEN_FILES_MIN)))
    import_module("testbed.prompt.host")  # first: it lets Mininet be imported on every Python
    from mininet.log import setLogLevel  # noqa: PLC0415
    from mininet.net import Mininet  # noqa: PLC0415
    from mininet.nodelib import LinuxBridge  # noqa: PLC0415
    from mininet.topo import SingleSwitchTopo  # noqa: PLC0415

    setLogLevel("error")
    Mininet.inited = True
    began_s = time.monotonic()
    net: Any = Mininet(topo=SingleSwitchTopo(nodes), switch=LinuxBridge, controller=None)
    net.start()
    up_s = time.monotonic() - began_s
    loss = net.ping([net.hosts[0], net.hosts[-1]], timeout=2)
    began_s = time.monotonic()
    net.stop()
    down_s = time.monotonic() - began_s
    print(json.dumps({"up_s": up_s, "down_s": down_s, "loss": loss}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
