"""Both guards for a Flask app, by one line: ``Hostline(app)``.

They are configured by keyword arguments, else by ``app.config`` under the names of the
environment variables (``app.config["HOSTLINE_SERVICE_TIMEOUT"] = 10``), else by the
environment. An argument is called as its variable, in lower case and without ``HOSTLINE_``.

They are put around ``app.wsgi_app``: ``app`` stays the Flask object, and its test client
goes through them as a server does. Needs Flask, for its type alone.
"""

from typing import cast

from hostline import _flat_names
from hostline._environment import PREFIX, nearest, shown
from hostline._flat_names import KEYWORDS
from hostline.settings import CanonicalHostOptions, RequestTimeoutOptions
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

try:
    from flask import Flask
except ImportError as error:
    raise ImportError('hostline.flask needs Flask: pip install "hostline[flask]"') from error

__all__ = ["Hostline"]

_ELSEWHERE = (
    "Write Hostline(app), not Hostline(app.wsgi_app); hostline.wsgi guards other WSGI apps, hostline.asgi "
    "ASGI apps, and hostline.django has the entries of Django's MIDDLEWARE."
)


class Hostline:
    """Both guards around Flask apps: the one given, or each that :meth:`init_app` is called with.

    ``Hostline(app, canonical_host="www.example.com", service_timeout=10)``. An argument that
    is ``...`` is not given. Raises one :class:`hostline.SettingsError` for all that is wrong.
    """

    def __init__(self, app: Flask | None = None, **options: object) -> None:
        unknown = [name for name in options if name not in KEYWORDS]
        if unknown:
            told = [f"{name} (the nearest is {nearest(name, KEYWORDS)})" for name in unknown]
            raise TypeError(f"Hostline has no setting called {' or '.join(told)}")
        self._options = {name: value for name, value in options.items() if value is not ...}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put both guards around the app, by what its ``config`` says now."""
        if not isinstance(cast("object", app), Flask):
            raise TypeError(f"Hostline guards a Flask app, and {shown(app)} is none. {_ELSEWHERE}")
        if "hostline" in app.extensions:
            raise RuntimeError("This Flask app has both guards already. Call Hostline(app) or init_app once.")
        config = cast("dict[str, object]", app.config)
        configured = {name: value for name, value in config.items() if name.startswith(PREFIX)}
        given = {**configured, **self._options}
        _flat_names.check(given)
        timeouts = _flat_names.arguments(given, _flat_names.TIMEOUT_FIELDS)
        hosts = _flat_names.arguments(given, _flat_names.HOST_FIELDS)
        timed = RequestTimeoutMiddleware(app.wsgi_app, **cast("RequestTimeoutOptions", timeouts))
        # The host is the outer one: a request for another is redirected however late it is.
        guarded = CanonicalHostMiddleware(timed, **cast("CanonicalHostOptions", hosts))
        app.wsgi_app = guarded  # type: ignore[method-assign]  # as Flask's documentation has it
        app.extensions["hostline"] = self
