"""The program `weavelab`, which `python -m testbed` is as well.

Signals are heard from the first line on: Ctrl-C while the command line is being loaded is no traceback either.
"""

import sys

from testbed.machine import interrupts


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    with interrupts.raised():
        try:
            from testbed.cli.main import main as command_line  # noqa: PLC0415 - see above

            return command_line()
        except KeyboardInterrupt as stop:
            print(interrupts.in_words(stop), file=sys.stderr)  # noqa: T201 - nothing else is loaded yet
            return interrupts.EXIT_BASE + interrupts.number_of(stop)


if __name__ == "__main__":
    sys.exit(main())
