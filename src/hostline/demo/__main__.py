"""``python -m hostline.demo``: exit status 0 where all was as promised, 1 where it was not.

First a transcript of scenes; then, where somebody watches (on a terminal), the live page until
Ctrl-C. ``hostline demo`` is the same.
"""

import argparse
import platform
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
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


_NEEDED = ("fastapi", "flask", "gunicorn", "httptools", "jinja2", "uvicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; its exit status."""
    options = _options(argv)
    require_packages()
    endings, transcript = Endings(), Transcript(sys.stdout)
    try:
        if not options.no_scenes:
            perform(endings, transcript)
        if options.story is not None or options.serves:
            show_page(options, endings, transcript)
    except Ended as ended:
        return 128 + ended.signum
    except Surprise as surprise:
        transcript.surprise(str(surprise))
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hostline demo",
        description="Shows both guards at work on real servers, all of them on 127.0.0.1.",
    )
    add = parser.add_argument
    add("--no-scenes", action="store_true", help="no transcript of scenes first, only the live page")
    add(
        "--port",
        type=_number(0, 65535),
        default=0,
        help="of the live page; unless told otherwise, a free one",
    )
    add("--serve-for", type=_number(1, None), metavar="SECONDS", help="how long; on a terminal, until Ctrl-C")
    add(
        "--story",
        type=_number(1, 600),
        metavar="SECONDS",
        help="play the page's story, and print its numbers",
    )
    options = parser.parse_args(argv)
    is_watched = sys.stdin.isatty() and sys.stdout.isatty()
    options.serves = options.serve_for is not None or (is_watched and options.story is None)
    if options.no_scenes and options.story is None and not options.serves:
        parser.error("there is no terminal, so say how long the page is to be there: --serve-for SECONDS")
    return options


def _number(low: int, high: int | None) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text} is not {_range(low, high)}")
        return value

    return number


def _range(low: int, high: int | None) -> str:
    return f"{low} or more" if high is None else f"between {low} and {high}"


def require_packages() -> None:
    """Raise an ImportError that names the extra, unless all is there."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f'hostline.demo needs {", ".join(missing)}: pip install "hostline[demo]"')


def perform(endings: Endings, transcript: Transcript) -> None:
    """Play all scenes, on servers that are there for that only."""
    with ExitStack() as stack:
        servers: list[Server] = []
        for command in COMMANDS:
            server = Server(command, ENVIRONMENT)
            stack.callback(server.stop)
            servers.append(server)
        try:
            with endings.let_in():
                play(servers, transcript)
        except Surprise:
            for server in servers:
                transcript.title(f"\nThe last lines of {server.command}")
                transcript.logged(server.log.tail())
            raise
        finally:
            for server in servers:
                server.ask_to_stop()  # all at once; each is waited for later


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


def show_page(options: argparse.Namespace, endings: Endings, transcript: Transcript) -> None:
    """Serve the live page, for as long as the options say."""
    from hostline.demo.live.conductor import Conductor  # noqa: PLC0415 - not before it is known to be there

    conductor = Conductor(options.port)
    try:
        conductor.start()
        with endings.let_in():
            if options.story is not None:
                tell_story(conductor.story, options.story, transcript)
            if options.serves:
                transcript.title(f"\nNow it is your turn: {conductor.url}")
                transcript.title("Ctrl-C ends it.")
                conductor.await_end(options.serve_for)
    except Ended as ended:
        if ended.signum != signal.SIGINT or not options.serves:
            raise
        transcript.note()
    finally:
        conductor.stop()


def tell_story(
    story: Callable[[int], Mapping[str, Mapping[str, int]]], seconds: int, transcript: Transcript
) -> None:
    """Play the story, and print what came of it."""
    transcript.title(f"\nThe same requests for {seconds} s, with hostline and without")
    for side, numbers in story(seconds).items():
        counted = ", ".join(f"{name} {number}" for name, number in numbers.items())
        transcript.measured(f"{side}: {counted}")


if __name__ == "__main__":
    sys.exit(main())
