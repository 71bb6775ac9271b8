"""The demo, run for real: what it says, how it ends, and that it leaves no process behind."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

pytestmark = [pytest.mark.server, pytest.mark.once]

DEMO = (sys.executable, "-m", "hostline.demo")


@pytest.fixture
def mark() -> Iterator[str]:
    """Put into the environment of a demo; in the end no process may carry it."""
    mark = uuid.uuid4().hex
    yield mark
    assert _processes_with(mark) == []


def _processes_with(mark: str) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes():
                found.append(environ.parent.joinpath("cmdline").read_text())
        except OSError:
            pass  # another user's, or gone by now
    return found


def _environment(mark: str, **more: str) -> dict[str, str]:
    return {**os.environ, "MARK_OF_THIS_DEMO": mark, **more}


def _run(mark: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=_environment(mark, **environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
    )


def _run_changed(mark: str, change: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys, hostline.demo.__main__ as demo\n{change}\nsys.exit(demo.main())"
    return _run(mark, sys.executable, "-c", program)


def test_everything_is_as_promised(mark):
    # What a developer's shell has exported for other servers is not for these.
    foreign = {"HOSTLINE_SERVICE_TIMEOUT": "0", "WEB_CONCURRENCY": "2", "GUNICORN_CMD_ARGS": "--nonsense"}
    ended = _run(mark, *DEMO, **foreign)
    told = ended.stdout
    assert ended.returncode == 0, told
    assert "\033" not in told
    for count, line in (
        (2, r"< 301 Moved Permanently, Location: http://localhost:\d+/\?page=2 \(there: 200 OK\)"),
        (2, r"< 504 Gateway Timeout, -?\d+ ms after the deadline"),
        (2, r"\| ERROR:hostline:source=hostline id=demo-slow timeout=1000ms service=1\d+ms state=timed_out"),
        (1, r'\|   File ".*hostline/demo/flask_app\.py", line \d+, in add_up'),
        (1, r'\|   File ".*hostline/demo/fastapi_app\.py", line \d+, in slow'),
        (1, r"\|     await asyncio\.sleep\(10\)"),
        (2, r"= slow views begun: 1, ended: 1"),
        (2, r"< 503 Service Unavailable, Retry-After: \d+"),
        (2, r"\| ERROR:hostline:source=hostline id=demo-late wait=40\d\d\dms timeout=30000ms state=expired"),
        (2, r"= calls of the app before: 1, after: 1"),
        (2, r"< 200 OK after \d+\.\d\d ms \(median; .*\) with hostline"),
        (2, r"< 200 OK after \d+\.\d\d ms \(median; .*\) without"),
        (1, r"All as promised\."),
    ):
        assert len(re.findall(rf"^ *{line}$", told, re.MULTILINE)) == count, f"{line}\n{told}"


def test_a_wrong_answer_is_a_surprise(mark):
    ended = _run_changed(mark, "demo.ENVIRONMENT['HOSTLINE_CANONICAL_IP_HOSTS'] = 'pass'")
    assert ended.returncode == 1
    assert re.search(
        r"SURPRISE: status of GET http://127\.0\.0\.1:\d+/\?page=2: expected 301, got 200", ended.stdout
    )


def test_a_late_answer_is_a_surprise(mark):
    ended = _run_changed(mark, "demo.ENVIRONMENT['HOSTLINE_SERVICE_TIMEOUT'] = '1.5'")
    assert ended.returncode == 1
    assert "SURPRISE: GET /slow: expected at most 250 ms after the deadline, got " in ended.stdout


def test_servers_that_do_not_start_are_a_surprise_with_the_reason(mark):
    ended = _run_changed(mark, "demo.ENVIRONMENT['HOSTLINE_SERVICE_TIMEOUT'] = 'abc'")
    assert ended.returncode == 1
    assert "HOSTLINE_SERVICE_TIMEOUT" in ended.stdout
    assert "SURPRISE: " in ended.stdout


def test_a_missing_package_is_an_import_error_that_names_the_extra(mark):
    ended = _run_changed(mark, "sys.modules['gunicorn'] = sys.modules['flask'] = None")
    assert ended.returncode == 1
    assert ended.stdout.endswith(
        'ImportError: hostline.demo needs flask, gunicorn: pip install "hostline[demo]"\n'
    )


@contextmanager
def _on_a_terminal(mark: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A demo that has the terminal to itself, and the other end of the terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen((*DEMO, *options), env=_environment(mark), stdin=its, stdout=its, stderr=its)
    os.close(its)
    try:
        yield process, ours
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)


def _read_until(terminal: int, end: str) -> str:
    """What is on the terminal, up to a text."""
    told = b""
    while end.encode() not in told:
        chunk = os.read(terminal, 1 << 16)  # raises OSError where nobody can write any more
        told += chunk
    return told.decode()


def test_on_a_terminal_it_serves_the_page_until_ctrl_c(mark):
    with _on_a_terminal(mark, "--no-scenes") as (process, terminal):
        told = _read_until(terminal, "Ctrl-C ends it.")
        assert "\033[" in told
        match = re.search(r"your turn: http://127\.0\.0\.1:(\d+)/", told)
        assert match is not None
        assert "Send a request to both" in _page(int(match[1]))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def _page(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    connection.close()
    return page


def test_the_page_alone_for_as_long_as_it_is_told(mark):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = _run(mark, *DEMO, "--no-scenes", "--serve-for", "1", "--port", str(port))
    assert ended.returncode == 0, ended.stdout
    assert f"http://127.0.0.1:{port}/" in ended.stdout
    assert "301 Moved Permanently" not in ended.stdout


def test_a_port_that_is_taken_is_a_surprise(mark):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = _run(mark, *DEMO, "--no-scenes", "--serve-for", "1", "--port", str(port))
    assert ended.returncode == 1
    assert f"SURPRISE: port {port}: expected it to be free" in ended.stdout
    assert "choose another: --port" in ended.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    (
        (("--no-scenes",), "say how long the page is to be there: --serve-for SECONDS"),
        (("--port", "70000"), "argument --port: 70000 is not between 0 and 65535"),
        (("--serve-for", "soon"), "argument --serve-for: invalid number value: 'soon'"),
    ),
)
def test_options_that_cannot_be_are_refused_with_the_reason(mark, options, told):
    ended = _run(mark, *DEMO, *options)
    assert ended.returncode == 2
    assert told in ended.stdout


def test_the_story_is_told_by_numbers(mark):
    ended = _run(mark, *DEMO, "--no-scenes", "--story", "2")
    assert ended.returncode == 0, ended.stdout
    sides = dict(re.findall(r"= (guarded|bare): (.*)", ended.stdout))
    numbers = {side: dict(re.findall(r"(\S+) (\d+)", told)) for side, told in sides.items()}
    # Ten requests, of which the fifth is the one that gets stuck.
    assert numbers["guarded"] == {
        "served": "9",
        "stopped": "1",
        "dropped": "0",
        "given-up": "0",
        "broken": "0",
        "busy": "0",
    }
    assert numbers["bare"] == {
        "served": "9",
        "stopped": "0",
        "dropped": "0",
        "given-up": "1",
        "broken": "0",
        "busy": "1",
    }


@pytest.mark.parametrize(
    ("signum", "moment", "options"),
    (
        (signal.SIGINT, "hostline", ()),  # the servers are starting
        (signal.SIGINT, "/slow, ", ()),
        (signal.SIGTERM, "/slow, ", ()),
        (signal.SIGTERM, "All as promised", ()),  # the page's servers are starting
        (signal.SIGHUP, "Ctrl-C ends it", ("--no-scenes",)),
    ),
)
def test_a_signal_ends_it_at_any_moment(mark, signum, moment, options):
    with _on_a_terminal(mark, *options) as (process, terminal):
        _read_until(terminal, moment)
        process.send_signal(signum)
        assert process.wait(20) == 128 + signum
