"""A database query that is cancelled on its server at the deadline: Django with PostgreSQL.

``PGHOST``, ``PGUSER``, ``PGPASSWORD`` and ``PGDATABASE`` say which one, as for psql.

    pip install "hostline[django,wsgi]" "psycopg[binary]" gunicorn
    HOSTLINE_SERVICE_TIMEOUT=2 \
        gunicorn --bind 127.0.0.1:8000 --threads 4 --chdir examples django_database:application

    curl -i http://localhost:8000/         # 200, hello
    curl -i http://localhost:8000/report   # 504 after 2 s; the log says: in report
    curl -i http://localhost:8000/running  # 200, running": 0
"""

import os

# Else the first request would load the driver, and an import that a deadline cuts off stays half done.
import django.db.backends.postgresql.base  # noqa: F401
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import JsonResponse
from django.urls import path

from hostline.integrations import django_db
from hostline.wsgi import from_env

settings.configure(
    SECRET_KEY="only for this example",
    ALLOWED_HOSTS=["localhost"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("PGDATABASE", "postgres"),
            "CONN_MAX_AGE": 600,
        }
    },
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    },
)


def ask(query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def home(request):
    return JsonResponse({"hello": ask("SELECT 'world'")})


def report(request):
    ask("SELECT pg_sleep(3600)")


def running(request):
    """How many queries run in this database, this one not counted."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
    return JsonResponse({"running": ask(count)})


urlpatterns = [path("", home), path("report", report), path("running", running)]
django_db.attach()  # in a project of yours: in settings.py, or the ready() of an AppConfig
application = from_env(get_wsgi_application())
