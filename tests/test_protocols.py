"""What a guard takes for an app: the wrong protocol is told at once, and nothing that may be right."""

import inspect
from functools import partial, wraps

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler
from fastapi import FastAPI
from flask import Flask, current_app
from werkzeug.local import LocalProxy

from exchanges import django  # noqa: F401 - configures Django
from hostline import asgi, wsgi


def wsgi_app(environ, start_response):
    raise AssertionError("no request is made")


async def asgi_app(scope, receive, send):
    raise AssertionError("no request is made")


class WsgiClass:
    def __init__(self, environ, start_response):
        raise AssertionError("no request is made")


@wraps(asgi_app)
def wsgi_in_the_clothes_of_asgi(environ, start_response):
    raise AssertionError("no request is made")


@wraps(wsgi_app)
async def asgi_in_the_clothes_of_wsgi(*arguments):
    raise AssertionError("no request is made")


class Unreadable:
    """No signature can be had of it, as of some callables in C."""

    @property
    def __signature__(self):
        raise NameError("annotation")

    def __call__(self, *arguments):
        raise AssertionError("no request is made")


FLASK = Flask("app")
WSGI = (
    wsgi_app,
    FLASK,
    FLASK.wsgi_app,
    partial(lambda setting, environ, start_response: None, 1),
    WsgiClass,
    WSGIHandler(),
    wsgi_in_the_clothes_of_asgi,
)
ASGI = (
    asgi_app,
    FastAPI(),
    partial(FastAPI()),
    lambda scope, receive, send: None,
    ASGIHandler(),
    asgi.RequestTimeoutMiddleware(asgi_app),
    asgi_in_the_clothes_of_wsgi,
)
UNTOLD = (Unreadable(), print, lambda *arguments: None, LocalProxy(lambda: FLASK), current_app)
GUARDS = ("RequestTimeoutMiddleware", "CanonicalHostMiddleware", "from_env")


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("app", (*WSGI, *UNTOLD), ids=type)
def test_what_may_be_a_wsgi_app_is_taken(app, guard):
    getattr(wsgi, guard)(app)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("app", (*ASGI, *UNTOLD), ids=type)
def test_what_may_be_an_asgi_app_is_taken(app, guard):
    getattr(asgi, guard)(app)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("app", ASGI, ids=type)
def test_an_asgi_app_is_no_wsgi_app(app, guard):
    with pytest.raises(TypeError, match=r" is an ASGI app: use hostline\.asgi, not hostline\.wsgi\.$"):
        getattr(wsgi, guard)(app)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize(
    "app", [app for app in WSGI if inspect.signature(app, follow_wrapped=False)], ids=type
)
def test_a_wsgi_app_is_no_asgi_app(app, guard):
    with pytest.raises(TypeError, match=r" is a WSGI app: use hostline\.wsgi, not hostline\.asgi\.$"):
        getattr(asgi, guard)(app)


@pytest.mark.parametrize("guards", (wsgi, asgi), ids=("wsgi", "asgi"))
@pytest.mark.parametrize(
    ("app", "fault"),
    ((None, "None cannot be called"), ("app", "'app' cannot be called"), (lambda: None, "does not take")),
    ids=("none", "text", "factory"),
)
def test_what_is_no_app_at_all(guards, app, fault):
    with pytest.raises(TypeError, match=rf"^{guards.__name__}\.CanonicalHostMiddleware guards .+{fault}"):
        guards.CanonicalHostMiddleware(app)


async def _async_view(request):
    raise AssertionError("no request is made")


@pytest.mark.parametrize("guards", (wsgi, asgi), ids=("wsgi", "asgi"))
@pytest.mark.parametrize("guard", GUARDS[:2])
@pytest.mark.parametrize("view", (lambda request: None, _async_view), ids=("sync", "async"))
def test_as_an_entry_of_django_s_middleware(guards, guard, view):
    get_response = convert_exception_to_response(view)
    with pytest.raises(TypeError, match=rf"In Django's MIDDLEWARE, write hostline\.django\.{guard}\.$"):
        getattr(guards, guard)(get_response)
