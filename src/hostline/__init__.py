"""Two guards in front of any Python web app: one canonical host, no request without an end.

This is what every app may import, whatever its framework: the errors, the
settings and the deadline of the current request.
The middlewares live in a module per protocol, :mod:`hostline.wsgi`, :mod:`hostline.asgi`
and :mod:`hostline.django`. The root imports none of them: no app should load, or have to
install, the other protocol's libraries.
"""

from hostline._deadline_api import (
    checkpoint,
    current,
    deadline,
    interruptible,
    no_timeout,
    remaining,
    set_timeout,
    shield,
    timeout,
)
from hostline.errors import (
    HostlineError,
    RequestExpiryError,
    RequestTimeoutError,
    RequestTimeoutException,
    SettingsError,
)
from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

__version__ = "0.1.0"

__all__ = [
    "CanonicalHostSettings",
    "HostlineError",
    "RequestExpiryError",
    "RequestTimeoutError",
    "RequestTimeoutException",
    "RequestTimeoutSettings",
    "SettingsError",
    "__version__",
    "checkpoint",
    "current",
    "deadline",
    "interruptible",
    "no_timeout",
    "remaining",
    "set_timeout",
    "shield",
    "timeout",
]
