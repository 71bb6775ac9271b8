"""Type-checked, never run: the Flask extension as users write it."""

from typing import assert_type

from flask import Flask

from hostline.flask import Hostline

app = Flask(__name__)
assert_type(Hostline(app), Hostline)
extension = Hostline(canonical_host="www.example.com", service_timeout=10)
extension.init_app(app)

extension.init_app(app.wsgi_app)  # type: ignore[arg-type]
