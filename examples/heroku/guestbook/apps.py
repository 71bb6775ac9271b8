from django.apps import AppConfig

from hostline.integrations import django_db


class GuestbookConfig(AppConfig):
    name = "guestbook"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self):
        # A query that runs at the deadline is cancelled on the server.
        django_db.attach()
