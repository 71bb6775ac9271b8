"""``python -m hostline.demo``: exit status 0 where all was as promised, 1 where it was not.

Where somebody watches (on a terminal) the servers go on serving afterwards, until Ctrl-C.
"""

import os
import platform
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec

from hostline import __version__
from hostline.demo.scenes import Play
from hostline.demo.servers import GUNICORN, UVICORN, Server
from hostline.demo.signals import Ended, Endings
from hostline.demo.surprise import Surprise
from hostline.demo.transcript import Transcript

SERVICE_TIMEOUT = 1
#: All the configuration that there is.
ENVIRONMENT = {
    "HOSTLINE_CANONICAL_HOST": "localhost",
    "HOSTLINE_CANONICAL_IP_HOSTS": "redirect",
    "HOSTLINE_SERVICE_TIMEOUT": str(SERVICE_TIMEOUT),
}
COMMANDS = (
    (*GUNICORN, "hostline.demo.flask_app:guarded"),
    (*UVICORN, "hostline.demo.fastapi_app:guarded"),
    (*GUNICORN, "hostline.demo.flask_app:app"),
    (*UVICORN, "hostline.demo.fastapi_app:app"),
)


def main() -> int:
    """Run the demo; its exit status."""
    require_packages()
    endings = Endings()
    with ExitStack() as stack:
        servers: list[Server] = []
        for command in COMMANDS:
            server = Server(command, ENVIRONMENT)
            stack.callback(server.stop)
            servers.append(server)
        try:
            with endings.let_in():
                return run(servers, Transcript(sys.stdout))
        except Ended as ended:
            return 128 + ended.signum
        finally:
            for server in servers:
                server.ask_to_stop()  # all at once; each is waited for later


def require_packages() -> None:
    """Raise an ImportError that names the extra, unless all is there."""
    missing = [name for name in ("fastapi", "flask", "gunicorn", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ImportError(f'hostline.demo needs {", ".join(missing)}: pip install "hostline[demo]"')


def run(servers: Sequence[Server], transcript: Transcript) -> int:
    """Play all scenes; then, on a terminal, go on serving."""
    try:
        play(servers, transcript)
        if sys.stdin.isatty() and sys.stdout.isatty():
            serve_on(servers[:2], transcript)
    except Surprise as surprise:
        for server in servers:
            transcript.title(f"\nThe last lines of {server.command}")
            transcript.logged(server.log.tail())
        transcript.surprise(str(surprise))
        return 1
    return 0


def play(servers: Sequence[Server], transcript: Transcript) -> None:
    """Both apps, all scenes."""
    flask, fastapi, bare_flask, bare_fastapi = servers
    python = f"{platform.python_implementation()} {platform.python_version()}"
    transcript.title(f"hostline {__version__} on {python}, configured by the environment alone:")
    for name, value in ENVIRONMENT.items():
        transcript.note(f"  {name}={value}")
    for server in servers:
        server.await_ready()
    Play(
        framework="Flask behind gunicorn (gthread)",
        guarded=flask,
        bare=bare_flask,
        service_timeout=SERVICE_TIMEOUT,
        slow_code="A view that computes for 10 s",
        transcript=transcript,
        caveat="a worker thread inside one blocking call, time.sleep(10) say, stops when that call returns",
    ).perform()
    Play(
        framework="FastAPI behind uvicorn",
        guarded=fastapi,
        bare=bare_fastapi,
        service_timeout=SERVICE_TIMEOUT,
        slow_code="An endpoint that awaits something for 10 s",
        transcript=transcript,
    ).perform()
    transcript.title("\nAll as promised.")


def serve_on(servers: Sequence[Server], transcript: Transcript) -> None:
    """Serve whoever opens the pages, until Ctrl-C."""
    transcript.title("\nNow it is your turn. Open one of these; what the servers log appears here.")
    for server in servers:
        transcript.note(f"  {server.url('127.0.0.1', '/')}  ({server.name})")
        server.log.follow(lambda line: transcript.logged([line]))
    transcript.title("Ctrl-C ends it.")
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except Ended as ended:
        if ended.signum != signal.SIGINT:
            raise
        transcript.note()
        return
    raise Surprise("expected the servers to serve until Ctrl-C; one has ended")


if __name__ == "__main__":
    sys.exit(main())
