"""`python -m testbed` is `weavelab`."""

import sys

from testbed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
