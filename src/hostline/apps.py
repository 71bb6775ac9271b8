"""``"hostline"`` in ``INSTALLED_APPS``: Django looks here, and finds the app of ``"hostline.django"``."""

from hostline.django.apps import HostlineConfig

__all__ = ["HostlineConfig"]
