"""Write hostline's variables, and what each means, into examples/heroku/app.json: from the settings.

A value that stands there stays.
"""

import json
from pathlib import Path

from hostline.settings import CanonicalHostSettings, RequestTimeoutSettings

MANIFEST = Path(__file__).parent.parent / "examples" / "heroku" / "app.json"


def described(manifest: dict) -> dict:
    """The manifest with all of hostline's variables in its ``env``, behind those of the app."""
    env = manifest["env"]
    own = {name: about for name, about in env.items() if not name.startswith("HOSTLINE_")}
    every = (*CanonicalHostSettings.settings(), *RequestTimeoutSettings.settings())
    ours = {each.variable: _about(each, env.get(each.variable, {})) for each in every if each.variable}
    return {**manifest, "env": {**own, **ours}}


def _about(setting, before: dict) -> dict:
    value = {"value": before["value"]} if "value" in before else {}
    return {"description": setting.doc.replace("`", ""), **value, "required": False}


if __name__ == "__main__":
    manifest = described(json.loads(MANIFEST.read_text()))
    MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
