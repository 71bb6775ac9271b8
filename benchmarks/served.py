"""The apps that the servers serve: bare, and behind both middlewares."""

from benchmarks.traffic import HOST, asgi_app, wsgi_app
from hostline import asgi, wsgi

wsgi_bare = wsgi_app
wsgi_both = wsgi.CanonicalHostMiddleware(wsgi.RequestTimeoutMiddleware(wsgi_app), HOST)
asgi_bare = asgi_app
asgi_both = asgi.CanonicalHostMiddleware(asgi.RequestTimeoutMiddleware(asgi_app), HOST)
