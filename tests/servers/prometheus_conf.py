"""gunicorn's settings where Prometheus scrapes several workers: as the docs tell."""

from gunicorn_conf import control_socket_disable  # noqa: F401 - a setting, read from here
from prometheus_client import multiprocess


def child_exit(server, worker):
    """A process that has ended has no requests in flight."""
    multiprocess.mark_process_dead(worker.pid)
