"""Do other projects' own tests pass with both guards around their apps?

    python tests/suites/run.py                     # every suite: minutes
    python tests/suites/run.py --only starlette

Each suite comes out of the source distribution of the version that is installed, is run as
it is, and once more with both guards around every app that its test clients are given; of
Django's, around its handlers, and once more as entries of MIDDLEWARE. A test that passes
bare and not guarded is a difference; one that has no explanation in ``SUITES`` ends the
program with status 1. What fails bare says nothing of hostline, and is only counted.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import hostline

HERE = Path(__file__).parent

Outcomes = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One project's tests."""

    bare: tuple[str, ...]  #: what Python is told, in the folder of the tests
    guarded: tuple[str, ...]
    folder: str = "."
    explained: Mapping[str, str] = field(default_factory=dict)  #: why, by regular expressions for test ids


PYTEST = (
    *("-m", "pytest", "-q", "--tb=short", "--timeout=60"),
    *("-pno:cacheprovider", "-poutcomes", "--continue-on-collection-errors"),
)
ASGI, WSGI = (*PYTEST, "-pguard_asgi"), (*PYTEST, "-pguard_wsgi")
DJANGO = ("asgi", "handlers", "middleware", "servers", "wsgi")
DJANGO_CLIENT = (*DJANGO, "async", "middleware_exceptions", "test_client")

REFUSED = "the app is to see a Host with {}, which the host guard answers 400: no host has such a name"
NO_REQUEST = "an environ without what every server puts into it (PEP 3333), which the guards rely on"
NOT_WSGI = "what Django's handler returns is looked at as a response; behind the guards it is an iterable"

SUITES = {
    "starlette": Suite(
        bare=(*PYTEST, "tests"),
        guarded=(*ASGI, "tests"),
        explained={
            r"::test_https_redirect_middleware\[": REFUSED.format("a port of six digits"),
            r"::test_https_redirect_middleware_without_server\[.*:65536": REFUSED.format(
                "a port above 65535"
            ),
            r"::test_https_redirect_middleware_without_server\[.*\[:::": REFUSED.format(
                "an address of ':::'"
            ),
            r"::test_trusted_host_middleware_ipv6\[.*\[v1\.foo": REFUSED.format("an address of IP version 1"),
            r"::test_trusted_host_middleware_ipv6\[.*:000080": REFUSED.format("a port of six digits"),
            r"::test_trusted_host_middleware_ipv6\[.*:(65536|100000)": REFUSED.format("a port above 65535"),
            r"::test_host_routing_rejects_invalid_hosts\[.*:evil": REFUSED.format("a port of letters"),
            r"::test_host_routing_rejects_invalid_hosts\[.*\[:::": REFUSED.format("an address of ':::'"),
            r"::test_host_routing_ignores_port\[.*:000080": REFUSED.format("a port of six digits"),
            r"::test_host_routing_ignores_port\[.*:(65536|100000)": REFUSED.format("a port above 65535"),
            r"::test_host_routing_ip_literals\[": REFUSED.format("an address of IP version 1"),
            r"::test_ipv6_base_url\[.*:0\]$": REFUSED.format("port 0"),
        },
    ),
    "fastapi": Suite(
        bare=(*PYTEST, "tests"),
        guarded=(*ASGI, "tests"),
        explained={
            r"::test_request_authority_is_only_on_spans\[http-.*:invalid-": REFUSED.format(
                "a port of letters"
            ),
            r"::test_request_authority_is_only_on_spans\[http-\[invalid-": REFUSED.format("half a bracket"),
            r"::test_request_authority_is_only_on_spans\[http-.*:99999-": REFUSED.format(
                "a port above 65535"
            ),
            r"::test_request_authority_is_only_on_spans\[http-user:": REFUSED.format("a user and a password"),
            r"::test_request_authority_is_only_on_spans\[http-.*/path-": REFUSED.format("a path"),
        },
    ),
    # The others start Werkzeug's development server as a program, which has no test client.
    "werkzeug": Suite(
        bare=(*PYTEST, "-m", "not dev_server", "tests"),
        guarded=(*WSGI, "-m", "not dev_server", "tests"),
        explained={
            r"::test_(run_wsgi_app|lazy_start_response)": NO_REQUEST,
            r"::test_type_forcing$": NO_REQUEST,
        },
    ),
    "flask": Suite(bare=(*PYTEST, "tests"), guarded=(*WSGI, "tests")),
    "django": Suite(
        folder="tests",
        bare=("-m", "guard_django", "bare", *DJANGO),
        guarded=("-m", "guard_django", "guarded", *DJANGO),
        explained={
            r"\.ExceptionHandlerTests\.test_data_upload_max_": NO_REQUEST,
            r"\.HandlerTests\.test_(bad_path_info|invalid_multipart_boundary)$": NOT_WSGI,
            r"\.WSGITest\.test_get_wsgi_application$": NOT_WSGI,
        },
    ),
    "django-entries": Suite(
        folder="tests",
        bare=("-m", "guard_django", "bare", *DJANGO_CLIENT),
        guarded=("-m", "guard_django", "entries", *DJANGO_CLIENT),
    ),
}


def tell(text: str) -> None:
    """Say how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def source_of(name: str, folder: Path) -> Path:
    """The unpacked source distribution of the installed version."""
    # Not `--no-binary :all:`: what is needed to build it may come as wheels.
    wanted = (f"--no-binary={name}", "--no-deps", f"--dest={folder}", f"{name}=={version(name)}")
    subprocess.run([sys.executable, "-m", "pip", "download", "-qq", *wanted], check=True)
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), folder, filter="data")
    return next(each for each in folder.iterdir() if each.is_dir())


def run(command: tuple[str, ...], folder: Path, log: Path) -> Outcomes:
    """How each test ends."""
    found = log.with_suffix(".json")
    path = [str(HERE), os.environ.get("PYTHONPATH", "")]
    environ = os.environ | {"PEERS_OUTCOMES": str(found), "PYTHONPATH": os.pathsep.join(filter(None, path))}
    with log.open("w", encoding="utf-8") as output:
        subprocess.run(
            [sys.executable, *command], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    if not found.exists():
        sys.exit(f"The tests came to no end:\n{log.read_text(encoding='utf-8')[-5000:]}")
    outcomes: Outcomes = json.loads(found.read_text(encoding="utf-8"))
    return outcomes


def differences(bare: Outcomes, guarded: Outcomes) -> Iterator[str]:
    """The tests that are no longer what they are bare: passed, or expected to fail."""
    for test, outcome in bare.items():
        if outcome in {"passed", "xfailed"} and guarded.get(test) != outcome:
            yield test


def why(suite: Suite, test: str) -> str | None:
    """The explanation, if there is one."""
    return next((reason for pattern, reason in suite.explained.items() if re.search(pattern, test)), None)


def count(outcomes: Outcomes, *wanted: str) -> int:
    """How many tests ended so."""
    return sum(outcome in wanted for outcome in outcomes.values())


def try_suite(name: str, folder: Path) -> tuple[str, list[str]]:
    """Its line of the table, and what is to be said of each difference."""
    suite = SUITES[name]
    project = name.partition("-")[0]
    folder.mkdir()
    source = source_of(project, folder)
    tell(f"{source.name}: bare")
    bare = run(suite.bare, source / suite.folder, folder / "bare.txt")
    tell(f"{source.name}: guarded")
    guarded = run(suite.guarded, source / suite.folder, folder / "guarded.txt")
    found = {test: why(suite, test) for test in differences(bare, guarded)}
    unexplained = sum(reason is None for reason in found.values())
    cells = [
        f"{name} {version(project)}",
        count(bare, "passed", "xfailed"),
        count(guarded, "passed", "xfailed"),
        count(bare, "failed", "error", "xpassed"),
        count(bare, "skipped"),
        len(found),
        unexplained,
    ]
    said = [
        f"{name}: {test}: {guarded.get(test)}: {reason or 'NOT EXPLAINED'}" for test, reason in found.items()
    ]
    return "| " + " | ".join(map(str, cells)) + " |", said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(SUITES)}")
    parser.add_argument(
        "--keep", metavar="FOLDER", type=Path, help="a new folder, to look at what the tests say"
    )
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(SUITES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        tried = [try_suite(name, folder / name) for name in names]
    print(f"CPython {platform.python_version()}, hostline {hostline.__version__}, {platform.system()}.\n")
    print("| suite | passed bare | passed guarded | failed bare | skipped bare | differences | unexplained |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(line for line, _ in tried))
    said = [each for _, differing in tried for each in differing]
    print("", *said, sep="\n")
    return int(any(each.endswith("NOT EXPLAINED") for each in said))


if __name__ == "__main__":
    sys.exit(main())
