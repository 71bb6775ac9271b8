"""The guards as Django ``MIDDLEWARE`` entries, and an app whose system checks look at them.

``MIDDLEWARE = ["hostline.django.CanonicalHostMiddleware", "hostline.django.RequestTimeoutMiddleware",
...]`` and ``INSTALLED_APPS = [..., "hostline.django"]``. They are configured in Django's
settings, under the names of the environment variables and with values of any type that an
argument may have: ``HOSTLINE_CANONICAL_HOST = None``. What is not there is taken from the
environment.

Needs Django alone.
"""

try:
    from hostline.django.canonical_host import CanonicalHostMiddleware
    from hostline.django.request_timeout import RequestTimeoutMiddleware
    from hostline.django.route import RouteMiddleware
except ImportError as error:
    raise ImportError('hostline.django needs Django: pip install "hostline[django]"') from error

__all__ = ["CanonicalHostMiddleware", "RequestTimeoutMiddleware", "RouteMiddleware"]
