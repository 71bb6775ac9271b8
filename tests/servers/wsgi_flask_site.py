"""The app behind Flask's development server."""

from flask import Flask
from wsgi_app import app

site = Flask(__name__)
site.wsgi_app = app
