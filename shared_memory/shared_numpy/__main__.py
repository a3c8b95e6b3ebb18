"""``python -m shared_numpy``: the command ``shared-numpy``."""

import sys

from ._command.main import main

if __name__ == "__main__":
    sys.exit(main())
