"""Every setting that staging, production and a review app may differ in is an environment variable.

Without any of them this runs on your own machine, on SQLite.
"""

import os
from pathlib import Path

import dj_database_url

ON_HEROKU = "DYNO" in os.environ
FOLDER = Path(__file__).parent.parent

# On Heroku there is no default: a key that is in the repository signs nothing worth signing.
SECRET_KEY = os.environ["SECRET_KEY"] if ON_HEROKU else os.environ.get("SECRET_KEY", "on my machine")
DEBUG = False

# Heroku's router hands on requests for the app's own domains alone, and hostline those for one of them.
ALLOWED_HOSTS = ["*"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ON_HEROKU

DATABASES = {
    "default": dj_database_url.config(
        default=f"sqlite:///{FOLDER / 'db.sqlite3'}",
        conn_max_age=600,
        conn_health_checks=True,
        ssl_require=ON_HEROKU,
    )
}

INSTALLED_APPS = ["guestbook"]
ROOT_URLCONF = "website.urls"
WSGI_APPLICATION = "website.wsgi.application"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
}
