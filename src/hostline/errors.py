"""Every exception of hostline, one small tree.

Ordinary errors derive from :class:`HostlineError`. The one exception that is no
ordinary error is :class:`RequestTimeoutException`: it is what stops the running code,
a ``BaseException`` so that ``except Exception`` in the app does not swallow it, and it
never leaves hostline's own middleware.

Messages are constant and the numbers are attributes, so that an error tracker that
groups by message shows one issue, not one per duration.
"""

from collections.abc import Iterable


class HostlineError(Exception):
    """What every ordinary error of hostline derives from."""


class SettingsError(HostlineError, ValueError):
    """The configuration is wrong; says everything that is wrong with it at once.

    ``problems`` holds one sentence for each: the name, the value, what is allowed.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            message = "\n".join(["hostline is configured wrongly:", *(f"- {p}" for p in self.problems)])
        super().__init__(message)


class RequestTimeoutError(HostlineError, TimeoutError):
    """The request ran longer than it may (``mode="raise"``, or a response cut short).

    ``service`` is how long it ran and ``timeout`` how long it could, in seconds.
    """

    def __init__(self, *, service: float | None = None, timeout: float | None = None) -> None:
        super().__init__("The request ran longer than its timeout.")
        self.service = service
        self.timeout = timeout


class RequestExpiryError(HostlineError, TimeoutError):
    """The request had waited too long before it reached the app (``mode="raise"``).

    ``wait`` is how long it had waited and ``timeout`` the limit, in seconds.
    """

    def __init__(self, *, wait: float | None = None, timeout: float | None = None) -> None:
        super().__init__("The request had waited longer than the wait timeout.")
        self.wait = wait
        self.timeout = timeout


class RequestTimeoutException(BaseException):
    """Raised inside the app at the deadline. Do not catch it; clean up and let it pass.

    rack-timeout's name: it is no ``Error``, and no ``Exception``.
    """
