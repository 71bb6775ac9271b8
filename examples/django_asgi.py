"""Django behind both guards under ASGI, with an async and a sync view.

In a project of yours the last lines are those of asgi.py.

    pip install "hostline[django,asgi]" uvicorn
    HOSTLINE_CANONICAL_HOST=localhost HOSTLINE_CANONICAL_IP_HOSTS=redirect HOSTLINE_SERVICE_TIMEOUT=2 \
        uvicorn --port 8000 --lifespan off --app-dir examples django_asgi:application

    curl -i http://127.0.0.1:8000/      # 301, location: http://localhost:8000/
    curl -i http://localhost:8000/      # 200, hello
    curl -i http://localhost:8000/slow  # 504 after 2 s; the log says: state=timed_out
    curl -i http://localhost:8000/busy  # 504 after 2 s; the log says: in busy
"""

import asyncio

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

from hostline.asgi import from_env

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


async def home(request):
    return JsonResponse({"hello": "world"})


async def slow(request):
    await asyncio.sleep(3600)


def busy(request):
    total = 0
    while True:
        total += 1


urlpatterns = [path("", home), path("slow", slow), path("busy", busy)]
application = get_asgi_application()
application = from_env(application)
