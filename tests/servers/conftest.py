"""Servers that are started once and serve many tests, and what their requests get stuck in."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from launch import Server
from peers import SilentPeers
from postgresql import PostgreSQL
from postgresql import missing as postgresql_missing
from server_kind import Kind

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SilentPeers]:
    peers = SilentPeers(tmp_path_factory.mktemp("peers"))
    yield peers
    peers.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    if reason := postgresql_missing():
        (pytest.fail if os.environ.get("POSTGRESQL_REQUIRED") else pytest.skip)(reason)
    postgresql = PostgreSQL()
    yield postgresql
    postgresql.stop()


@pytest.fixture(scope="session")
def _shared() -> Iterator[Callable[..., Server]]:
    """One server for each kind and environment, from the first test that asks to the last."""
    running: dict[object, Server] = {}

    def share(kind: Kind, **environment: str) -> Server:
        key = (kind.name, *sorted(environment.items()))
        if key in running and not running[key].is_running:
            running.pop(key).stop()  # a test has ended it, and failed: not the next one too
        if key not in running:
            running[key] = kind.start(**environment)
        return running[key]

    yield share
    for server in running.values():
        server.ask_to_stop()
    for server in running.values():
        server.stop()


@pytest.fixture
def share(_shared: Callable[..., Server]) -> Iterator[Serve]:
    """Have a server that other tests use too. What it logs meanwhile is shown if the test fails."""
    told: list[tuple[Server, int]] = []

    def share(kind: Kind, **environment: str) -> Server:
        if kind.missing:
            pytest.skip(kind.missing)
        server = _shared(kind, **environment)
        told.append((server, len(server.log)))
        return server

    yield share
    for server, before in told:
        print(server.log[before:])


@pytest.fixture
def start() -> Iterator[Serve]:
    """Have a server that is this test's alone."""
    with ExitStack() as stack:

        def start(kind: Kind, *options: str, **environment: str) -> Server:
            if kind.missing:
                pytest.skip(kind.missing)
            server = kind.start(*options, **environment)
            stack.callback(lambda: (print(server.log), server.stop()))
            return server

        yield start
