"""Flask with SQLAlchemy's pool on a real PostgreSQL, and a look at that pool.

``DATABASE_URL`` names the server. ``/good/N`` and ``/slow/SECONDS/N`` answer N, by way of the database.
"""

import os

from flask import Flask
from sqlalchemy import create_engine, text

from hostline.integrations.sqlalchemy import attach
from hostline.wsgi import RequestTimeoutMiddleware

engine = create_engine(os.environ["DATABASE_URL"], pool_size=4, max_overflow=0)
attach(engine)
app = Flask(__name__)


@app.get("/good/<int:number>")
@app.get("/slow/<float:seconds>/<int:number>")
def ask(number, seconds=0.0):
    query = text("SELECT pg_sleep(:seconds)::text, CAST(:number AS integer)")
    with engine.begin() as connection:
        return str(connection.execute(query, {"seconds": seconds, "number": number}).one()[1])


@app.get("/pool")
def pool():
    return {"checked_out": engine.pool.checkedout(), "status": engine.pool.status()}


@app.get("/ready")
def ready():
    with engine.begin() as connection:  # the first of all is slow: SQLAlchemy learns about the server
        connection.execute(text("SELECT 1"))
    return "ready"


app.wsgi_app = RequestTimeoutMiddleware(app.wsgi_app)
