"""hostline's settings among Django's."""

from django.conf import settings

from hostline._environment import PREFIX


def given() -> dict[str, object]:
    """All of Django's settings that are for hostline."""
    names = (name for name in dir(settings) if name.startswith(PREFIX))
    return {name: getattr(settings, name) for name in names}
