"""Start the agent: `python -m plugin.agent --config /etc/weave/agent.json`."""

import argparse
import asyncio
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from plugin.agent.app import run
from plugin.agent.config import load_config
from plugin.agent.logs import set_up_logs
from plugin.core.errors import WeaveError, said_by


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit code follows plugin/core/errors.py."""
    parser = argparse.ArgumentParser(
        prog="weave-agent",
        description="The agent of one node: virtual switch, VXLAN overlay, addresses, peers.",
        epilog="example: python -m plugin.agent --config /etc/weave/agent.json",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/weave/agent.json"), help="configuration file (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    log = set_up_logs("info")
    try:
        config = load_config(arguments.config)
        log = set_up_logs(config.log_level)
        asyncio.run(run(config, log))
    except WeaveError as error:
        log.error("agent cannot run", extra={"reason": error.message, "hint": error.hint})  # noqa: TRY400 - a sentence, no traceback
        return error.exit_code
    except OSError as error:  # the kernel's own words, and before them what was tried (plugin/link/netlink.py)
        hint = "the agent needs root" if error.errno in {errno.EPERM, errno.EACCES} else "dmesg may say more"
        log.error("agent cannot run", extra={"reason": said_by(error), "hint": hint})  # noqa: TRY400
        return 3
    except Exception:
        log.exception("agent failed, this is a bug")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
