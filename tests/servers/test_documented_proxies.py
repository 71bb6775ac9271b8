"""The configurations of `docs/how-to/proxies.md`, each in a real proxy in front of a real server."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import pytest
from client import Answer, get
from launch import Server, free_port, until
from server_kind import module

from docs_pages import ROOT, blocks_of, proxy

pytestmark = [pytest.mark.server, pytest.mark.once]

PAGE = ROOT / "docs" / "how-to" / "proxies.md"
HOST = "www.example.com"
_GUNICORN = module(
    "gunicorn",
    "--config=python:gunicorn_conf",
    "--bind=127.0.0.1:{port}",
    "--threads=4",
    "behind_proxy_app:app",
)

#: Writes a configuration and says by which command the proxy runs with it.
Front = Callable[[str, str, int, Path], list[str]]


def _nginx(program: str, block: str, port: int, folder: Path) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    server = f"server {{ listen 127.0.0.1:{port}; {block} }}"
    (folder / "conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {folders}\n{server} }}"
    )
    return [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "conf")]


def _haproxy(program: str, block: str, port: int, folder: Path) -> list[str]:
    (folder / "conf").write_text(block.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    return [program, "-db", "-f", str(folder / "conf")]


def _apache2(program: str, block: str, port: int, folder: Path) -> list[str]:
    modules = Path(program).resolve().parents[1] / "lib" / "apache2" / "modules"
    loaded = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")
    (folder / "conf").write_text(
        "\n".join(
            [
                f"ServerRoot {folder}",
                "ServerName localhost",
                f"PidFile {folder}/pid",
                f"Listen 127.0.0.1:{port}",
                "ErrorLog /dev/stderr",
                *(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in loaded),
                "User nobody",
                "Group nogroup",
                block,
            ]
        )
    )
    return [program, "-DFOREGROUND", "-d", str(folder), "-f", str(folder / "conf")]


_FRONTS: dict[str, Front] = {"nginx": _nginx, "haproxy": _haproxy, "apache2": _apache2}
_LANGUAGES = {"apache2": "apache"}


@pytest.fixture(params=_FRONTS)
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Answer]]:
    """Ask the app through a proxy, configured as the page says."""
    name: str = request.param
    program = proxy(name)
    if program is None:
        pytest.skip(f"{name} is not here, so its configuration in the docs is not tried")
    (block,) = [each for each in blocks_of(PAGE) if each.language == _LANGUAGES.get(name, name)]
    app = Server(_GUNICORN, {"HOSTLINE_CANONICAL_HOST": HOST, "HOSTLINE_CANONICAL_EXEMPT_PATHS": "/ready"})
    port = free_port()
    log = (tmp_path / "log").open("w+")
    command = _FRONTS[name](
        program, block.text.replace("127.0.0.1:8000", f"127.0.0.1:{app.port}"), port, tmp_path
    )
    front = subprocess.Popen(command, stdin=DEVNULL, stdout=log, stderr=STDOUT)
    try:
        serves = until(lambda: get(port, "/ready").status == 200 or front.poll() is not None)
        log.seek(0)
        assert serves and front.poll() is None, log.read()  # noqa: PT018 - one reason, told by the log
        yield lambda path, headers=None: get(port, path, headers)
    finally:
        front.terminate()
        front.wait()
        log.close()
        print(app.log)
        app.stop()


def test_the_app_learns_when_for_whom_and_how_it_was_asked(ask):
    told = json.loads(ask("/", {"Host": HOST}).body)
    assert 0 <= told["wait"] < 60
    assert (told["host"], told["proto"]) == (HOST, "http")


def test_what_a_client_says_of_it_is_replaced(ask):
    an_hour_ago = str(int(time.time() - 3600))
    answer = ask("/", {"Host": HOST, "X-Request-Start": an_hour_ago, "X-Forwarded-Proto": "https"})
    told = json.loads(answer.body)
    assert told["wait"] < 60
    assert told["proto"] == "http"


def test_a_redirect_keeps_path_and_query_as_they_came(ask):
    answer = ask("/x%2Fy?a=1&b=%20", {"Host": "example.com"})
    assert answer.status == 301
    assert re.fullmatch(rf"http://{HOST}(:\d+)?/x%2Fy\?a=1&b=%20", answer.headers["location"])
