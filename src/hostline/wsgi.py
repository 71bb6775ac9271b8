"""The guards as WSGI middlewares.

An adapter reads the environ, asks ``_hosts`` and writes a ``_responses.Response``; it
decides nothing. Needs Werkzeug, which every WSGI framework that is not Django has.
"""

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Self, Unpack, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hostline import _wsgi_exchange
from hostline._authority import Authority
from hostline._host_guard import HostGuard
from hostline._hosts import Asked
from hostline._protocols import check_wsgi_app
from hostline._responses import PAGES, host_response
from hostline._wsgi_exchange import media_type, octets, send, target
from hostline._wsgi_timeout import RequestTimeoutMiddleware
from hostline.settings import CanonicalHostKeywords, check_environment

try:
    from werkzeug.datastructures import MIMEAccept
    from werkzeug.http import parse_accept_header
except ImportError as error:
    raise ImportError('hostline.wsgi needs Werkzeug: pip install "hostline[wsgi]"') from error

__all__ = ["CanonicalHostMiddleware", "RequestTimeoutMiddleware", "from_env"]


def _best_match(accept: str, offers: Sequence[str]) -> str | None:
    return parse_accept_header(accept, MIMEAccept).best_match(offers)


_wsgi_exchange.negotiate = _best_match


class CanonicalHostMiddleware:
    """Redirects each request for another host to the canonical one.

    What is not given is taken from the environment (``HOSTLINE_CANONICAL_HOST``...), then
    from the defaults. Without a host the result is ``app`` itself, so that a middleware
    that does nothing costs nothing.
    """

    __slots__ = ("_app", "_guard", "_host_key", "_known", "_scheme", "_scheme_key")

    _app: WSGIApplication
    _guard: HostGuard
    _host_key: str  # where the host is, if it is where the settings say
    _known: set[str]  # of the guard, which says who may touch it
    _scheme: str | None
    _scheme_key: str  # where the scheme is, if it is where the settings say

    def __new__(
        cls,
        app: WSGIApplication,
        host: str | Authority | None | EllipsisType = ...,
        **options: Unpack[CanonicalHostKeywords],
    ) -> Self:
        """The guarded app; without a host, the app."""
        # No __init__: Python would call it on whatever is returned here, that is also on
        # another instance, the app of one that has no host.
        check_wsgi_app(app, "CanonicalHostMiddleware")
        guard = HostGuard.load({"host": host, **options})
        if guard is None:
            return cast("Self", app)
        self = super().__new__(cls)
        settings = guard.rules.settings
        self._app = app
        self._guard = guard
        self._known = guard.known
        self._host_key = "HTTP_X_FORWARDED_HOST" if settings.trust_forwarded_host else "HTTP_HOST"
        forwarded = settings.trust_forwarded_proto
        self._scheme_key = "HTTP_X_FORWARDED_PROTO" if forwarded else "wsgi.url_scheme"
        self._scheme = settings.scheme
        return self

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, or have the app answer."""
        # The hot path: two look-ups settle nearly every request that is where it belongs.
        if environ.get(self._host_key) in self._known and (
            self._scheme is None or environ.get(self._scheme_key) == self._scheme
        ):
            return self._app(environ, start_response)
        refusal = self._guard.refusal(_asked(environ), environ)
        if refusal is None:
            return self._app(environ, start_response)
        cache_control = self._guard.rules.settings.cache_control
        return send(
            host_response(refusal, media_type(environ, PAGES), cache_control), environ, start_response
        )


def _asked(environ: WSGIEnvironment) -> Asked:
    path, query = target(environ)
    return Asked(
        method=environ["REQUEST_METHOD"],
        scheme=environ["wsgi.url_scheme"],
        host=octets(environ, "HTTP_HOST"),
        forwarded_host=octets(environ, "HTTP_X_FORWARDED_HOST"),
        forwarded_proto=octets(environ, "HTTP_X_FORWARDED_PROTO"),
        path=path,
        query=query,
        request_id=octets(environ, "HTTP_X_REQUEST_ID"),
    )


def from_env(app: WSGIApplication) -> WSGIApplication:
    """``app`` behind both guards, configured by environment variables alone.

    The host comes first: a request for another host is redirected however late it is.
    Raises one :class:`hostline.SettingsError` for all that is wrong with the variables.
    """
    check_environment()
    return CanonicalHostMiddleware(RequestTimeoutMiddleware(app))
