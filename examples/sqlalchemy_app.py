"""A database query that is cancelled at the deadline: Flask with SQLAlchemy and SQLite.

    pip install "hostline[flask,sqlalchemy]" gunicorn
    HOSTLINE_SERVICE_TIMEOUT=2 gunicorn --bind 127.0.0.1:8000 --threads 4 --chdir examples sqlalchemy_app:app

    curl -i http://localhost:8000/        # 200, hello
    curl -i http://localhost:8000/report  # 504 after 2 s; the log says: in report

Without ``attach`` the answer comes only when the query does: a thread cannot be stopped while it
waits for the database. With another driver it is the same: PostgreSQL is told to cancel the query.
"""

import logging

from flask import Flask
from sqlalchemy import create_engine, text

from hostline.integrations.sqlalchemy import attach
from hostline.wsgi import from_env

logging.basicConfig(level=logging.INFO)
engine = create_engine("sqlite://")
attach(engine)
app = Flask(__name__)
app.wsgi_app = from_env(app.wsgi_app)

ENDLESS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")


@app.get("/")
def home():
    with engine.begin() as connection:
        return {"hello": connection.execute(text("SELECT 'world'")).scalar()}


@app.get("/report")
def report():
    with engine.begin() as connection:
        return {"rows": connection.execute(ENDLESS).scalar()}
