"""The app ``hostline.django``, for ``INSTALLED_APPS``: it registers the system checks, and nothing else."""

from django.apps import AppConfig
from django.core.checks import register

from hostline.django.checks import check_configuration, check_deployment


class HostlineConfig(AppConfig):
    """What Django finds in ``INSTALLED_APPS``."""

    name = "hostline.django"
    label = "hostline"
    verbose_name = "hostline"

    def ready(self) -> None:
        """Register the checks."""
        register(check_configuration, "hostline")
        register(check_deployment, "hostline", deploy=True)
