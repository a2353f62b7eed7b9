"""`python -m denserc`, the same as the command `denserc`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
