"""Django behind both guards under WSGI; in a project of yours the last lines are those of wsgi.py.

    pip install "hostline[django,wsgi]" gunicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        gunicorn --bind 127.0.0.1:8000 --chdir examples django_wsgi:application

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: in slow
"""

import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from hostline.wsgi import from_env

settings.configure(
    SECRET_KEY="only for this example",
    ALLOWED_HOSTS=["localhost"],  # not 127.0.0.1: it is redirected before Django looks at it
    ROOT_URLCONF=__name__,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    },
)


def home(request):
    return JsonResponse({"hello": "world"})


def slow(request):
    time.sleep(3600)  # gunicorn's default worker has no threads, and so even this is broken on time


urlpatterns = [path("", home), path("slow", slow)]
application = get_wsgi_application()
application = from_env(application)
