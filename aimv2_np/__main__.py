"""`python -m aimv2_np` is `aimv2-np`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
