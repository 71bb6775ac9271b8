"""Type-checked against the installed wheel: its types are visible there."""

from typing import assert_type

import hostline
from hostline.wsgi import from_env

assert_type(hostline.__version__, str)
assert_type(hostline.CanonicalHostSettings.load({}).status, int)
from_env(1)  # type: ignore[arg-type]
