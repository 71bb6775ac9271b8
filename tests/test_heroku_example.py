"""examples/heroku: what Heroku reads, and its scripts, with a `heroku` that only writes down what it is told.

tests/servers/test_heroku_servers.py runs the app.
"""

import json
import os
import re
import runpy
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement

from hostline.settings import CanonicalHostSettings, check_environment
from instructions import EXAMPLES

APP = EXAMPLES / "heroku"
MANIFEST = json.loads((APP / "app.json").read_text())


def _read(environment):
    text = (APP / "config" / f"{environment}.env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))


ENVIRONMENTS = {name: _read(name) for name in ("staging", "production")}

# The fields that Heroku's "app.json Schema" knows, and what each is; of those of an environment,
# the ones that it may replace.
FIELDS = {
    "name": str,
    "description": str,
    "keywords": list,
    "stack": str,
    "buildpacks": list,
    "addons": list,
    "formation": dict,
    "env": dict,
    "environments": dict,
}
OF_AN_ENVIRONMENT = {"addons", "buildpacks", "env", "formation", "scripts"}
OF_A_VARIABLE = {"description": str, "value": str, "required": bool, "generator": str}


def _values(env):
    return {name: about["value"] for name, about in env.items() if "value" in about}


# app.json and the environments


def test_app_json_has_fields_that_heroku_knows():
    assert {name: type(value) for name, value in MANIFEST.items()} == FIELDS
    assert MANIFEST["environments"].keys() <= {"review", "test"}
    for environment in MANIFEST["environments"].values():
        assert environment.keys() <= OF_AN_ENVIRONMENT
    for env in (MANIFEST["env"], MANIFEST["environments"]["review"]["env"]):
        for about in env.values():
            assert about["description"]
            assert all(type(value) is OF_A_VARIABLE[field] for field, value in about.items())
            assert about.get("generator", "secret") == "secret"


def test_app_json_describes_every_variable_as_the_settings_do():
    """Else: `make app-json`."""
    described = runpy.run_path(EXAMPLES.parent / "tools" / "app_json.py")["described"]
    assert described(MANIFEST) == MANIFEST
    assert list(described(MANIFEST)["env"]) == list(MANIFEST["env"])


def test_app_json_says_of_a_variable_only_what_it_can_be():
    words = re.compile(r"\b(None|callables?|dict|SplitResult|RequestDetails|[a-z]+_[a-z_]+)\b|`|[.]{3}")
    for name, about in MANIFEST["env"].items():
        assert words.search(about["description"]) is None, name


def test_a_review_app_redirects_nothing():
    env = _values(MANIFEST["env"]) | _values(MANIFEST["environments"]["review"]["env"])
    check_environment(env)
    assert env["HOSTLINE_CANONICAL_HOST"] == "off"
    assert CanonicalHostSettings.load({}, env).host is None


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_one_that_hostline_accepts(name):
    check_environment(ENVIRONMENTS[name])
    assert ENVIRONMENTS[name].keys() <= MANIFEST["env"].keys()


def test_staging_and_production_differ_in_values_alone():
    staging, production = ENVIRONMENTS.values()
    assert staging.keys() == production.keys()
    assert staging["HOSTLINE_CANONICAL_HOST"] != production["HOSTLINE_CANONICAL_HOST"]
    named = [
        path for path in APP.rglob("*.py") if re.search(r"[\"'](staging|production)[\"']", path.read_text())
    ]
    assert named == []


def test_the_python_and_the_requirements_are_ones_that_this_is_tested_with():
    pyproject = (EXAMPLES.parent / "pyproject.toml").read_text()
    version = (APP / ".python-version").read_text().strip()
    assert f'"Programming Language :: Python :: {version}"' in pyproject
    lines = (APP / "requirements.txt").read_text().splitlines()
    assert {Requirement(line).name for line in lines} == {
        "Django",
        "dj-database-url",
        "gunicorn",
        "hostline",
        "psycopg",
    }


def _commands(script):
    text = (APP / "bin" / script).read_text()
    return re.search(r"^# usage: \S+ (\S+)$", text, re.MULTILINE)[1].split("|")


def test_the_readme_tells_of_the_commands_that_there_are():
    readme = (APP / "README.md").read_text()
    known = {(script, command) for script in ENVIRONMENTS for command in _commands(script)}
    assert set(re.findall(r"\bbin/(staging|production) ([a-z][a-z-]+)", readme)) <= known
    assert all(command in readme for _, command in known)


# The scripts

HEROKU = """#!/usr/bin/env bash
echo "$*" >>"$HEROKU_CALLS"
case $1 in
  releases) echo '[{"current": true, "status": "'"${HEROKU_RELEASE:-succeeded}"'", "version": 7}]' ;;
esac
[[ -z "${HEROKU_FAILS:-}" || "$*" != *"$HEROKU_FAILS"* ]]
"""


class Checkout:
    """A clone of the app with its three remotes beside it, and the calls that heroku has got."""

    def __init__(self, folder):
        self.folder = folder / "guestbook"
        self._calls = folder / "calls"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "PATH": os.pathsep.join((str(folder), os.environ["PATH"])),
            "HEROKU_CALLS": str(self._calls),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def fill(self):
        """Make it, in an empty folder."""
        shutil.copytree(APP, self.folder, ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3"))
        heroku = self.folder.parent / "heroku"
        heroku.write_text(HEROKU)
        heroku.chmod(0o755)
        self.git("init", "--quiet", "--initial-branch=main")
        for remote in ("origin", "staging", "production"):
            path = f"../guestbook-{remote}.git"
            self.git("init", "--quiet", "--bare", path)
            self.git("remote", "add", remote, path)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=The app")

    def git(self, *arguments):
        return self._run("git", *arguments, check=True).stdout.strip()

    def script(self, name, *arguments, **environment):
        return self._run(str(self.folder / "bin" / name), *arguments, **environment)

    @property
    def calls(self):
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def has(self, remote):
        """What Heroku has got."""
        return self.git("ls-remote", remote, "refs/heads/main").partition("\t")[0]

    def tags(self, remote="."):
        found = self.git("ls-remote", "--tags", "--refs", remote)
        return [line.rpartition("/")[2] for line in found.splitlines()]

    def _run(self, *command, check=False, **environment):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment | environment,
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    Checkout(folder).fill()
    return folder


@pytest.fixture
def checkout(filled, tmp_path):
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return Checkout(tmp_path)


def scripts(test):
    """Marks a test of the scripts: each is a few dozen processes, most of them git's."""
    return pytest.mark.slow(pytest.mark.skipif(shutil.which("git") is None, reason="no git here")(test))


@scripts
@pytest.mark.parametrize("environment", ("staging", "production"))
@pytest.mark.parametrize(
    ("command", "call"),
    (
        ("console", "run --app {app} -- python manage.py shell"),
        ("migrate", "run --exit-code --app {app} -- python manage.py migrate --no-input"),
        ("tail", "logs --tail --app {app}"),
        ("backup", "pg:backups:capture --app {app}"),
        ("restart", "ps:restart --app {app}"),
    ),
)
def test_a_shortcut(checkout, environment, command, call):
    run = checkout.script(environment, command)
    assert (run.returncode, run.stderr) == (0, "")
    assert checkout.calls == [call.format(app=f"guestbook-{environment}")]


@scripts
@pytest.mark.parametrize("environment", ("staging", "production"))
def test_config_sends_the_file(checkout, environment):
    assert checkout.script(environment, "config").returncode == 0
    [call] = checkout.calls
    settings = [f"{name}={value}" for name, value in ENVIRONMENTS[environment].items()]
    assert call == f"config:set --app guestbook-{environment} {' '.join(settings)}"


@scripts
def test_a_shortcut_that_fails_says_so(checkout):
    assert checkout.script("production", "migrate", HEROKU_FAILS="migrate").returncode != 0


@scripts
@pytest.mark.parametrize("script", ("staging", "production", "deploy"))
@pytest.mark.parametrize("arguments", ((), ("everything",)))
def test_how_to_use_it(checkout, script, arguments):
    run = checkout.script(script, *arguments)
    assert run.returncode == 1
    assert run.stderr.startswith(f"usage: bin/{script} ")
    assert checkout.calls == []


@scripts
def test_production_s_data_goes_to_staging(checkout):
    run = checkout.script("staging", "copy-from-production")
    assert (run.returncode, run.stderr) == (0, "")
    staging = "guestbook-staging"
    assert checkout.calls == [
        f"pg:copy guestbook-production::DATABASE_URL DATABASE_URL --app {staging} --confirm {staging}",
        f"run --exit-code --app {staging} -- python manage.py migrate --no-input",
        f"ps:restart --app {staging}",
    ]


@scripts
@pytest.mark.parametrize(
    "command", ("copy-from-production", "copy-from-staging", "copy-production", "copy-to-production")
)
def test_staging_s_data_never_goes_to_production(checkout, command):
    run = checkout.script("production", command)
    assert run.returncode == 1
    assert checkout.calls == []


@scripts
def test_no_data_goes_from_an_app_to_itself(checkout):
    checkout.git("remote", "set-url", "staging", checkout.git("remote", "get-url", "production"))
    run = checkout.script("staging", "copy-from-production")
    assert run.returncode == 1
    assert "lead to the same app, guestbook-production" in run.stderr
    assert checkout.calls == []


@scripts
def test_a_missing_remote(checkout):
    checkout.git("remote", "remove", "staging")
    for run in (checkout.script("staging", "tail"), checkout.script("deploy", "staging")):
        assert run.returncode == 1
        assert "heroku git:remote --app NAME --remote staging" in run.stderr
    assert checkout.calls == []


@scripts
@pytest.mark.parametrize("environment", ("staging", "production"))
def test_deploy(checkout, environment):
    run = checkout.script("deploy", environment)
    assert run.returncode == 0, run.stderr
    app = f"guestbook-{environment}"
    assert checkout.has(environment) == checkout.git("rev-parse", "HEAD")
    assert checkout.calls == [
        f"releases --num 1 --json --app {app}",
        f"run --exit-code --app {app} -- python manage.py migrate --no-input",
        f"ps:restart --app {app}",
    ]
    [tag] = checkout.tags()
    assert re.fullmatch(rf"{environment}-\d{{8}}-\d{{6}}-[0-9a-f]{{7,}}", tag)
    assert checkout.tags("origin") == [tag]
    assert checkout.git("rev-parse", f"{tag}^{{commit}}") == checkout.git("rev-parse", "HEAD")
    assert run.stdout.endswith(f"{tag} is on {app}.\n")


def _refused(checkout, environment, because):
    run = checkout.script("deploy", environment)
    assert run.returncode == 1
    assert because in run.stderr
    assert (checkout.has(environment), checkout.calls, checkout.tags()) == ("", [], [])


@scripts
@pytest.mark.parametrize("environment", ("staging", "production"))
@pytest.mark.parametrize("file", ("manage.py", "new.py"))
def test_what_is_not_committed_is_not_deployed(checkout, environment, file):
    (checkout.folder / file).write_text("# changed\n")
    _refused(checkout, environment, "changes that are not committed")


@scripts
def test_production_is_deployed_from_main_alone(checkout):
    checkout.git("switch", "--quiet", "--create", "idea")
    _refused(checkout, "production", "Production is deployed from main, and this is idea.")
    checkout.git("switch", "--quiet", "--detach")
    _refused(checkout, "production", "and this is no branch.")


@scripts
def test_staging_may_have_any_branch(checkout):
    assert checkout.script("deploy", "staging").returncode == 0
    checkout.git("switch", "--quiet", "--orphan", "idea")
    checkout.git("checkout", "--quiet", "main", "--", "bin", "config")
    checkout.git("commit", "--quiet", "--message=Something else")
    assert checkout.script("deploy", "staging").returncode == 0
    assert checkout.has("staging") == checkout.git("rev-parse", "HEAD")


@scripts
def test_production_only_goes_forward(checkout):
    assert checkout.script("deploy", "production").returncode == 0
    before = checkout.has("production")
    checkout.git("commit", "--quiet", "--amend", "--message=Rewritten")
    assert checkout.script("deploy", "production").returncode != 0
    assert checkout.has("production") == before
    assert len(checkout.tags()) == 1


@scripts
@pytest.mark.parametrize(
    "trouble", ({"HEROKU_RELEASE": "failed"}, {"HEROKU_FAILS": "migrate"}, {"HEROKU_FAILS": "ps:restart"})
)
def test_a_release_that_fails_gets_no_tag(checkout, trouble):
    assert checkout.script("deploy", "production", **trouble).returncode != 0
    assert (checkout.tags(), checkout.tags("origin")) == ([], [])
