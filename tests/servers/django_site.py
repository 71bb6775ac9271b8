"""A Django project in one module, with hostline's entry in MIDDLEWARE, for WSGI and for ASGI."""

import asyncio
import logging
import time

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path

ENDLESS = 5

logging.basicConfig(level=logging.INFO)
settings.configure(
    SECRET_KEY="only for these tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    INSTALLED_APPS=["hostline.django"],
    MIDDLEWARE=["hostline.django.RequestTimeoutMiddleware", "django.middleware.common.CommonMiddleware"],
)
django.setup()


def ready(request):
    return HttpResponse(b"ready")


def busy(request):
    end = time.monotonic() + ENDLESS
    while time.monotonic() < end:
        pass
    return HttpResponse(b"late")


async def waiting(request):
    await asyncio.sleep(ENDLESS)
    return HttpResponse(b"late")


async def blocking(request):
    """It blocks its event loop, as nobody should."""
    return busy(request)


urlpatterns = [path(view.__name__, view) for view in (ready, busy, waiting, blocking)]
wsgi = WSGIHandler()
asgi = ASGIHandler()
