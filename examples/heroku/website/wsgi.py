"""What gunicorn serves: Django behind both guards, which the HOSTLINE_ variables configure."""

import os

from django.core.wsgi import get_wsgi_application

from hostline.wsgi import from_env

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "website.settings")

application = from_env(get_wsgi_application())
