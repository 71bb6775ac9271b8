"""The names that users import, exactly: an addition is a decision, a removal breaks somebody."""

import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import hostline

ROOT = {
    "CanonicalHostSettings",
    "HostlineError",
    "RequestExpiryError",
    "RequestTimeoutError",
    "RequestTimeoutException",
    "RequestTimeoutSettings",
    "SettingsError",
    "__version__",
    "checkpoint",
    "current",
    "deadline",
    "interruptible",
    "no_timeout",
    "remaining",
    "set_timeout",
    "shield",
    "timeout",
}
ADAPTERS = {
    "hostline.wsgi": {"CanonicalHostMiddleware", "RequestTimeoutMiddleware", "from_env"},
    "hostline.asgi": {"RESPONSES", "CanonicalHostMiddleware", "RequestTimeoutMiddleware", "from_env"},
    "hostline.flask": {"Hostline"},
    "hostline.django": {"CanonicalHostMiddleware", "RequestTimeoutMiddleware", "RouteMiddleware"},
}
# What an app that only wants an error class must not pay for, or have to install.
FOREIGN = {"werkzeug", "starlette", "django", "flask", "anyio", "trio", "gevent"}


def test_root_exports_exactly():
    assert set(hostline.__all__) == ROOT


def test_root_exports_are_sorted():
    assert list(hostline.__all__) == sorted(hostline.__all__)


@pytest.mark.parametrize("name", sorted(ROOT))
def test_root_name_is_there(name):
    assert hasattr(hostline, name)


@pytest.mark.parametrize(("module", "names"), ADAPTERS.items(), ids=ADAPTERS)
def test_adapter_exports_exactly(module, names):
    adapter = importlib.import_module(module)
    assert set(adapter.__all__) == names
    assert all(hasattr(adapter, name) for name in names)


def test_root_loads_no_framework():
    script = "import sys, hostline; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not FOREIGN & set(run.stdout.split())


def test_version_is_the_distribution_s():
    assert hostline.__version__ == version("hostline")


def test_version_has_an_entry_in_the_changelog():
    changelog = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(hostline.__version__)}\]", changelog, re.MULTILINE)


def test_package_is_typed():
    assert (Path(hostline.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("module", ("hostline._wsgi_timeout", "hostline._asgi_timeout"))
def test_the_machinery_needs_no_framework(module):
    """Django's entries stand on it, and need Django alone."""
    missing = "sys.modules |= dict.fromkeys(('werkzeug', 'starlette', 'django', 'flask'))"
    subprocess.run([sys.executable, "-c", f"import sys; {missing}; import {module}"], check=True)


@pytest.mark.parametrize("module", ("hostline", "hostline.wsgi"))
def test_no_sync_app_has_to_load_asyncio(module):
    """It takes as long to load as all of hostline."""
    program = f"import sys, {module}; sys.exit('asyncio' in sys.modules or 'anyio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
