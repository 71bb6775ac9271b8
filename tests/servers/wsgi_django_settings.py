"""The settings with which Django's development server serves the app."""

SECRET_KEY = "only for these tests"
ALLOWED_HOSTS = ["*"]
DEBUG = False
ROOT_URLCONF = "wsgi_django_settings"
WSGI_APPLICATION = "wsgi_app.app"
USE_TZ = True
urlpatterns = []
