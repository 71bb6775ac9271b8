"""What the guards add to a request of Django's, by the handler that its servers call.

Django's own handler costs some fifty times as much as any of them, so what is compared is
what they add to it. django-enforce-host takes part where it is installed.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test.utils import override_settings
from django.urls import path

from benchmarks import wsgi_cost
from benchmarks.results import Report, Table
from benchmarks.rounds import measure
from benchmarks.scale import Scale
from benchmarks.traffic import BODY, HEROKU, HOST
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware

BARE = "Django, no middleware"
_ENFORCE_HOST = "enforce_host.EnforceHostMiddleware"


def view(request: Any) -> HttpResponse:
    del request
    return HttpResponse(BODY, content_type="text/plain")


urlpatterns = [path("", view)]


def apps() -> dict[str, Any]:
    """What is compared."""
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", ENFORCE_HOST=HOST)
        django.setup()
    compared: dict[str, Any] = {
        BARE: _handler(),
        "canonical host, around it": CanonicalHostMiddleware(_handler(), HOST),
        "canonical host, in MIDDLEWARE": _handler("hostline.django.CanonicalHostMiddleware"),
        "request timeout, around it": RequestTimeoutMiddleware(_handler()),
    }
    if find_spec("enforce_host") is not None:
        compared["reference: django-enforce-host"] = _handler(_ENFORCE_HOST)
    return compared


def _handler(*middleware: str) -> WSGIHandler:
    with override_settings(MIDDLEWARE=middleware, HOSTLINE_CANONICAL_HOST=HOST):
        return WSGIHandler()


def run(scale: Scale, report: Report, show: Callable[[str, float], object]) -> None:
    """One kind of request."""
    costs = measure(
        {name: partial(wsgi_cost.serve, app, HEROKU) for name, app in apps().items()},
        baseline=BARE,
        rounds=scale.rounds // 3 or 2,
        requests=scale.requests // 10 or 1,
        show=partial(show, "Django"),
    )
    columns = [
        ("Django, Heroku's 9 headers", ""),
        ("in all", "us"),
        ("added", "us"),
        ("quartiles apart", "us"),
    ]
    rows = [[name, cost.whole, cost.added, cost.spread] for name, cost in costs.items()]
    report.add(Table("What the guards add to a request of Django's", columns, rows))
