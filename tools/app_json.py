"""Write hostline's variables, and what each means, into examples/heroku/app.json: from the settings.

A value that stands there stays.
"""

import json
import re
from pathlib import Path

from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

MANIFEST = Path(__file__).parent.parent / "examples" / "heroku" / "app.json"


def described(manifest: dict) -> dict:
    """The manifest with all of hostline's variables in its ``env``, behind those of the app."""
    env = manifest["env"]
    own = {name: about for name, about in env.items() if not name.startswith("HOSTLINE_")}
    ours = {
        name: _about(description, env.get(name, {}))
        for guard in (CanonicalHostSettings, RequestTimeoutSettings)
        for name, description in _descriptions(guard.settings())
    }
    return {**manifest, "env": {**own, **ours}}


def _descriptions(settings):
    """Of each variable, what it means; where that names another setting, the variable of that."""
    variables = {each.name: each.variable for each in settings if each.variable}
    for each in settings:
        if each.variable:
            yield each.variable, re.sub("`(.*?)`", lambda match: variables.get(match[1], match[1]), each.doc)


def _about(description: str, before: dict) -> dict:
    value = {"value": before["value"]} if "value" in before else {}
    return {"description": description, **value, "required": False}


if __name__ == "__main__":
    manifest = described(json.loads(MANIFEST.read_text()))
    MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
