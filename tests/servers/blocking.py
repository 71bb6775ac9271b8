"""What a request may be stuck in. Each call lasts the given seconds if nobody ends it.

Runs in the server's process; the peers that say nothing are in the process that started it
(``peers``), which hands over their addresses by environment variables.
"""

import os
import queue
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

if "POSTGRESQL" in os.environ:
    import psycopg


def busy(seconds: float) -> None:
    """A loop in Python."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def sleep(seconds: float) -> None:
    """time.sleep"""
    time.sleep(seconds)


def socket_read(seconds: float) -> None:
    """socket.recv"""
    with socket.create_connection(("127.0.0.1", int(os.environ["SILENT_PORT"]))) as connection:
        connection.sendall(f"{seconds}\n".encode())
        connection.recv(1)


def tls_read(seconds: float) -> None:
    """SSLSocket.recv"""
    context = ssl.create_default_context(cafile=os.environ["SILENT_TLS_CA"])
    with (
        socket.create_connection(("127.0.0.1", int(os.environ["SILENT_TLS_PORT"]))) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as wrapped,
    ):
        wrapped.sendall(f"{seconds}\n".encode())
        wrapped.recv(1)


def lock(seconds: float) -> None:
    """Lock.acquire"""
    taken = threading.Lock()
    taken.acquire()
    taken.acquire(timeout=seconds)


def queue_get(seconds: float) -> None:
    """Queue.get"""
    try:
        queue.Queue().get(timeout=seconds)
    except queue.Empty:
        pass


def run_process(seconds: float) -> None:
    """subprocess.run"""
    subprocess.run(["sleep", str(seconds)], check=True)


def postgresql(seconds: float) -> None:
    """A query of PostgreSQL's, by psycopg."""
    with psycopg.connect(os.environ["POSTGRESQL"], autocommit=True) as connection:
        connection.execute("SELECT pg_sleep(%s)", (seconds,))


CALLS: dict[str, Callable[[float], None]] = {
    call.__name__: call
    for call in (busy, sleep, socket_read, tls_read, lock, queue_get, run_process, postgresql)
}

#: From which another thread than the main one comes back only when the call returns, on
#: a CPython whose waits in C raise no asynchronous exceptions.
NOT_BREAKABLE_IN_THREADS = frozenset({"sleep", "lock", "run_process"})
