"""Every example, started by the command in its head as it stands there, and asked what is asked there.

The shell, the servers and the requests are real; only the port is another one.
"""

import os
import shlex
import sys
from pathlib import Path

import pytest
from launch import SOURCE, Server

from instructions import EXAMPLES, PORT, SERVED, instructions, modules_of

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.timeout(120)]

ROOT = EXAMPLES.parent
PROGRAMS = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


@pytest.fixture
def start(request, tmp_path):
    """Type a command in the repository's folder, in a shell, and wait until its server serves."""

    def start(command, **environment):
        typed = f"cd {shlex.quote(str(ROOT))}\n{command.replace(PORT, '{port}')}"
        always = {"PATH": PROGRAMS, "PYTHONPATH": str(SOURCE), "HOME": str(tmp_path)}
        server = Server(["bash", "-c", typed], {**always, **environment}, ready="/")
        request.addfinalizer(lambda: (print(server.log), server.stop()))
        return server

    return start


def check(server, asked):
    """Ask for one thing, and see what is said to be seen."""
    here = str(server.port)
    answer = server.get(asked.path, {"Host": f"{asked.host}:{here}"}, patience=60)
    assert (answer.status, answer.is_cut) == (asked.status, asked.is_cut), asked.line
    # Nobody waits for less; how much longer is not the examples' business.
    assert answer.seconds > asked.seconds - 0.1, asked.line
    if asked.header is not None:
        name, value = asked.header
        assert answer.headers[name] == value.replace(PORT, here), asked.line
    assert asked.body in answer.body.decode(), asked.line
    assert server.logs(asked.logged), asked.line


@pytest.mark.parametrize("example", SERVED, ids=lambda path: path.stem)
def test_as_typed(example, start, request):
    for module in modules_of(example):
        pytest.importorskip(module)
    head = instructions(example)
    environment = {}
    if "psycopg[binary]" in head.requirements:
        postgresql = request.getfixturevalue("postgresql")
        environment = {"PGHOST": str(postgresql.folder), "PGUSER": "hostline"}
    server = start(head.command, **environment)
    for asked in head.requests:
        check(server, asked)
    # And it has taken no harm.
    check(server, next(asked for asked in head.requests if asked.body == "hello"))
