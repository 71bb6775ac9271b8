"""Django on a real PostgreSQL: its settings and its site, with a connection that outlives its requests.

``DATABASE_HOST`` and ``DATABASE_APPLICATION`` name the server, and this client of it. ``/good/N`` and
``/slow/SECONDS/N`` answer N, by way of the database, each in a transaction.
"""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = __name__

from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse
from django.urls import path

from hostline.integrations import django_db
from hostline.wsgi import RequestTimeoutMiddleware

SECRET_KEY = "only for these tests"
ALLOWED_HOSTS = ["*"]
DEBUG = False
ROOT_URLCONF = __name__
USE_TZ = True
LOGGING_CONFIG = None  # an error in a view is logged as anything else is: where the test shows it
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DATABASE_HOST"],
        "USER": "hostline",
        "NAME": "postgres",
        "ATOMIC_REQUESTS": True,
        "CONN_MAX_AGE": None,
        "OPTIONS": {"application_name": os.environ["DATABASE_APPLICATION"]},
    }
}


def ask(_, number, seconds="0"):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)::text, %s::integer", [float(seconds), number])
        return JsonResponse(cursor.fetchone()[1], safe=False)


@transaction.non_atomic_requests
def pool(_):
    connection.ensure_connection()
    status = connection.connection.info.transaction_status.name
    is_whole = connection.is_usable() and not connection.in_atomic_block and status == "IDLE"
    return JsonResponse({"checked_out": int(not is_whole), "status": status})


def ready(_):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return HttpResponse("ready")


urlpatterns = [
    path("good/<int:number>", ask),
    path("slow/<str:seconds>/<int:number>", ask),
    path("pool", pool),
    path("ready", ready),
]

django_db.attach()
app = RequestTimeoutMiddleware(get_wsgi_application())
