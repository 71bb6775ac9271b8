"""``python -m hostline``: the same as the command ``hostline``."""

import sys

from hostline.cli import main

sys.exit(main())
