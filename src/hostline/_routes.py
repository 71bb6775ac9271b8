"""Which route a request has taken, by the name that its framework has for it.

A route's template (``/users/{id}``) is one of a closed set, as its path is not: fit to be
the label of a metric. Frameworks leave it in the environ or in the scope, and nobody but
an event asks for it. Nothing is imported: what is found there is asked by name.

Imports nothing of hostline.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

#: An environ or a scope.
Source: TypeAlias = Mapping[str, Any]

#: Where an app, or a framework's integration, may leave the template itself.
ROUTE = "hostline.route"
#: Where hostline's entries among Django's middlewares leave a weak reference to its request.
DJANGO_REQUEST = "hostline.django_request"


def route_of(source: Source) -> str | None:
    """The route's template; None where there is none, or none yet. Never raises."""
    try:
        found = _given(source) or _of_django(source) or _of_werkzeug(source) or _of_starlette(source)
    except Exception:  # noqa: BLE001 - what is asked here is the insides of others
        return None
    return found if isinstance(found, str) else None


def _given(source: Source) -> object:
    return source.get(ROUTE)


def _of_django(source: Source) -> object:
    reference = source.get(DJANGO_REQUEST)
    request = None if reference is None else reference()
    return getattr(getattr(request, "resolver_match", None), "route", None)


def _of_werkzeug(source: Source) -> object:
    request = source.get("werkzeug.request")  # Flask takes it away when its response is made
    return getattr(getattr(request, "url_rule", None), "rule", None)


def _of_starlette(source: Source) -> object:
    """That of Starlette or FastAPI, with those of the mounts that it is in put before it."""
    mounts, routes = _mounted(source)
    route = source.get("route")
    if route is None and "endpoint" in source:  # Starlette before 1.0 tells the endpoint alone
        endpoint = source["endpoint"]
        route = next((each for each in routes if getattr(each, "endpoint", None) is endpoint), None)
    # FastAPI makes the whole template of an included router's route when it is asked for.
    context = source.get("fastapi", {}).get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is route:
        route = context
    if route is None or hasattr(route, "routes"):  # a mount: that has been counted
        return mounts or None
    return f"{mounts}{route.path}"


def _mounted(source: Source) -> tuple[str, Iterable[Any]]:
    """The templates of the mounts that have been gone through, and the routes behind the last."""
    routes: Iterable[Any] = getattr(source.get("router"), "routes", ())
    templates = ""
    # What the mounts have taken off the path, and so with values where templates have names.
    taken = source.get("root_path", "").removeprefix(source.get("app_root_path", source.get("root_path", "")))
    while taken:
        mount, taken = next(_mounts_on(taken, routes), (None, ""))
        if mount is not None:
            templates += mount.path
            routes = mount.routes
    return templates, routes


def _mounts_on(path: str, routes: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Each mount whose template this path begins with, and what it leaves of the path."""
    for route in routes:
        if hasattr(route, "routes") and (match := route.path_regex.match(f"{path}/")) is not None:
            yield route, f"/{match['path']}".rstrip("/")
