"""The commands of `docs/how-to/servers.md`: each is started as it stands there, and has to abort."""

import sys
from collections.abc import Iterator

import pytest
from launch import Server, program

from docs_pages import ROOT, Block, blocks_of

pytestmark = [pytest.mark.server, pytest.mark.once]

PAGE = ROOT / "docs" / "how-to" / "servers.md"
#: What a command is given besides, to run here: the app of these tests, and no limit that takes long to test.
APPS = {"app:app": "wsgi_app:app", "asgi:app": "asgi_app:app"}
PLACES = {"127.0.0.1:8000": "127.0.0.1:{port}", "8000": "{port}"}
BESIDES = {
    "gunicorn": ("--config=python:gunicorn_conf",),  # two of them would quarrel about one control socket
    "uwsgi": (f"--home={sys.prefix}", "--die-on-term"),
}
LIMIT = "300ms"
#: How long the app would go on, and before when an answer has not waited for that.
LASTS, SOON = 9, 7


def _command(words: list[str]) -> list[str]:
    found = program(words[0])
    if found is None:
        pytest.skip(f"{words[0]} is not here")
    rest = [_here(word) for word in words[1:]]
    return [found, *BESIDES.get(words[0], ()), *rest]


def _here(word: str) -> str:
    if word in APPS:
        return APPS[word]
    for written, here in PLACES.items():
        if word.endswith(written):
            return word.removesuffix(written) + here
    return word


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    block: Block = request.param
    ((variables, words),) = block.commands
    server = Server(_command(words), {**variables, "HOSTLINE_SERVICE_TIMEOUT": LIMIT})
    yield server
    print(server.log)
    server.stop()


def _started() -> list[Block]:
    return [block for block in blocks_of(PAGE) if block.language == "sh"]


def _name(block: Block) -> str:
    (_, words), *_ = block.commands
    return f"{words[0]}-{block.line}"


@pytest.mark.parametrize("server", _started(), indirect=True, ids=_name)
def test_it_serves_and_a_stuck_request_is_answered_504(server):
    is_asgi = "asgi_app:app" in server.process.args
    answer = server.get(f"/{'sync' if is_asgi else 'block'}?call=busy&seconds={LASTS}")
    assert answer.status == 504
    assert answer.seconds < SOON
    assert server.get("/ready").status == 200


def test_every_server_of_the_table_has_a_command():
    programs = {words[0] for block in _started() for _, words in block.commands}
    assert programs == {
        "gunicorn",
        "uvicorn",
        "hypercorn",
        "granian",
        "waitress-serve",
        "uwsgi",
        "cheroot",
        "daphne",
    }
