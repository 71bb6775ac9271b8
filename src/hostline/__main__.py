"""``python -m hostline``: the same as the command ``hostline``."""

import sys

from hostline.cli import main

if __name__ == "__main__":
    sys.exit(main())
