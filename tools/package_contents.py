"""usage: package_contents.py SDIST WHEEL: that both hold what is in git, all of it and nothing else."""

import re
import subprocess
import sys
import tarfile
import zipfile

#: For those who work on the repository itself.
NOT_IN_SDIST = {".ci/run", ".pre-commit-config.yaml"}
MADE_BY_BUILD = {"PKG-INFO"}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def main(sdist: str, wheel: str) -> None:
    tracked = set(_lines("git", "ls-files"))
    with tarfile.open(sdist) as archive:
        files = {each.name.partition("/")[2]: each for each in archive.getmembers() if each.isfile()}
        _same(sdist, set(files), (tracked - NOT_IN_SDIST) | MADE_BY_BUILD)
        scripts = _lines("git", "ls-files", "examples/heroku/bin")
        assert all(files[name].mode & 0o111 for name in scripts), "a script of the examples cannot be run"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        package = {name for name in names if name.startswith("hostline/")}
        _same(wheel, package, {name.removeprefix("src/") for name in tracked if name.startswith("src/")})
        [metadata] = {name.partition("/")[0] for name in names - package}
        of_metadata = {name.partition("/")[2] for name in names - package}
        _same(wheel, of_metadata | {"entry_points.txt"}, METADATA)
        text = archive.read(f"{metadata}/METADATA").decode()
    relative = re.findall(r"\]\((?!https?:|#)[^)]*\)|src(?:set)?=\"(?!https?:)[^\"]*\"", text)
    assert relative == [], f"links of the description lead nowhere on the package's page: {relative}"


def _same(archive: str, found: set[str], expected: set[str]) -> None:
    assert found == expected, (
        f"{archive} lacks {sorted(expected - found)} and has {sorted(found - expected)}, which git has not. "
        "New files are to be added to git first"
    )


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("hostline: sdist and wheel hold what they should")
