"""One request of each kind, which every sink is shown with, behind both guards and Flask.

Real but for the server: the guards, the framework and its routes, the abort, the observers.
"""

import time
from typing import Any

from flask import Flask

import hostline
from hostline.wsgi import CanonicalHostMiddleware, RequestTimeoutMiddleware
from timeouts import SHORT, linger

CANONICAL, OTHER = "www.example.com", "example.com"
WAITED = 40  # seconds: more than the 30 that a request may wait


def hurry() -> None:
    """Give the request that asks a short limit: it has been routed, however slow the machine."""
    request = hostline.current()
    assert request is not None
    hostline.set_timeout(request.service + SHORT)


def be_late() -> None:
    """Be slow, and timed out in this call and not before."""
    hurry()
    linger()


def shop(*observers: Any, **options: Any) -> Flask:
    """An app of two routes, one of them slow, that tells these observers."""
    app = Flask("shop")

    @app.route("/orders/<int:number>", methods=["GET", "POST", "PURGE"])
    def order(number: int) -> str:
        return f"order {number}"

    @app.get("/reports/<int:year>")
    def report(year: int) -> str:
        be_late()  # the slow line
        return f"report {year}"

    app.wsgi_app = RequestTimeoutMiddleware(app.wsgi_app, observers=observers, **options)  # type: ignore[method-assign]
    app.wsgi_app = CanonicalHostMiddleware(app.wsgi_app, CANONICAL, observers=observers)  # type: ignore[method-assign]
    return app


def stamp(waited: float) -> str:
    """The X-Request-Start of a request that has waited so long."""
    return f"t={(time.time() - waited) * 1000:.0f}"


def ask(app: Any, path: str, *, host: str = CANONICAL, waited: float = 0.2, method: str = "GET") -> int:
    """Ask for a page; the status of the answer."""
    headers = {"Host": host, "X-Request-Start": stamp(waited), "X-Request-ID": "9e0b71ad"}
    with app.test_client().open(path, method=method, headers=headers) as answer:
        return int(answer.status_code)


def ask_for_one_of_each(app: Any) -> None:
    """One is completed, one timed out, one expired, one redirected."""
    assert ask(app, "/orders/7") == 200
    assert ask(app, "/reports/2026") == 504
    assert ask(app, "/orders/8", waited=WAITED) == 503
    assert ask(app, "/orders/9", host=OTHER) == 301
