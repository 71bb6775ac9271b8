"""The WSGI servers under test: how each is started, and in what it runs the app."""

import sys
from dataclasses import dataclass

import server_kind
from launch import program
from server_kind import module

#: The app that all of them serve.
APP = "wsgi_app:app"


@dataclass(frozen=True, eq=False)
class Kind(server_kind.Kind):
    """A WSGI server."""

    #: "main" and "thread": in the process's main thread, in another; "mixed": in either.
    runs_in: str
    keeps_alive: bool = True
    #: Whether a client can tell that a body of no declared length has been cut.
    shows_cut: bool = True
    has_write: bool = True

    @property
    def missing(self) -> str:
        """Why it cannot be tested here; empty if it can."""
        if self.package == "uWSGI":
            return (
                ""
                if program("uwsgi")
                else "uWSGI is not there: it has to be compiled (extra servers-compiled)"
            )
        return super().missing


# control_socket_disable: two gunicorns would quarrel about one socket in the home directory.
_GUNICORN = module("gunicorn", "--config=python:gunicorn_conf", "--bind=127.0.0.1:{port}", "--workers=1", APP)
_UWSGI = (
    program("uwsgi") or "uwsgi",
    "--http-socket=127.0.0.1:{port}",
    f"--home={sys.prefix}",
    f"--module={APP}",
    "--need-app",
    "--die-on-term",
)
_DJANGO = module("django", "runserver", "--noreload", "127.0.0.1:{port}")
_DJANGO_SETTINGS = {"DJANGO_SETTINGS_MODULE": "wsgi_django_settings"}
_FLASK = module("flask", "--app=wsgi_flask_site:site", "run", "--host=127.0.0.1", "--port={port}")

GUNICORN_SYNC = Kind("gunicorn sync", "gunicorn", _GUNICORN, "main", keeps_alive=False)
GUNICORN_GTHREAD = Kind(
    "gunicorn gthread", "gunicorn", (*_GUNICORN, "--worker-class=gthread", "--threads=4"), "thread"
)
GUNICORN_GEVENT = Kind(
    "gunicorn gevent", "gunicorn", (*_GUNICORN, "--worker-class=gevent"), "greenlet", requires=("gevent",)
)
UWSGI = Kind("uWSGI", "uWSGI", _UWSGI, "main", keeps_alive=False, shows_cut=False)
UWSGI_THREADS = Kind(
    "uWSGI --threads --master",
    "uWSGI",
    (*_UWSGI, "--master", "--threads=4"),
    "mixed",
    keeps_alive=False,
    shows_cut=False,
)
WAITRESS = Kind("waitress", "waitress", module("waitress", "--listen=127.0.0.1:{port}", APP), "thread")
GRANIAN = Kind(
    "granian (wsgi)",
    "granian",
    module("granian", "--interface=wsgi", "--host=127.0.0.1", "--port={port}", "--blocking-threads=4", APP),
    "thread",
    shows_cut=False,
    has_write=False,
)
CHEROOT = Kind("cheroot", "cheroot", module("cheroot", "--bind=127.0.0.1:{port}", APP), "thread")
FLASK = Kind("Flask's, threaded", "Flask", (*_FLASK, "--with-threads"), "thread", keeps_alive=False)
FLASK_NO_THREADS = Kind(
    "Flask's, not threaded",
    "Flask",
    (*_FLASK, "--without-threads"),
    "main",
    keeps_alive=False,
    shows_cut=False,
)
DJANGO = Kind(
    "Django's, threaded", "Django", _DJANGO, "thread", shows_cut=False, environment=_DJANGO_SETTINGS
)
DJANGO_NO_THREADS = Kind(
    "Django's, --nothreading",
    "Django",
    (*_DJANGO, "--nothreading"),
    "main",
    keeps_alive=False,
    shows_cut=False,
    environment=_DJANGO_SETTINGS,
)

ALL = (
    GUNICORN_SYNC,
    GUNICORN_GTHREAD,
    GUNICORN_GEVENT,
    UWSGI,
    UWSGI_THREADS,
    WAITRESS,
    GRANIAN,
    CHEROOT,
    FLASK,
    FLASK_NO_THREADS,
    DJANGO,
    DJANGO_NO_THREADS,
)
