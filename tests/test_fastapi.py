"""FastAPI: what its documentation says of the timeout is what the timeout answers."""

import asyncio
import time

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from hostline.asgi import RESPONSES, CanonicalHostMiddleware, RequestTimeoutMiddleware
from timeouts import SHORT


@pytest.fixture
def client():
    app = FastAPI(responses=RESPONSES)

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(20)

    app.add_middleware(RequestTimeoutMiddleware, service_timeout=SHORT)
    app.add_middleware(CanonicalHostMiddleware, host="example.com")
    with TestClient(app, base_url="http://example.com", headers={"accept": "application/json"}) as client:
        yield client


def _stamp():
    return {"X-Request-Start": f"{time.time() - 60:.3f}"}


@pytest.mark.parametrize(("status", "headers"), ((504, {}), (503, _stamp())))
def test_openapi_tells_of_what_is_answered(client, status, headers):
    answer = client.get("/slow", headers=headers)
    told = client.get("/openapi.json").json()["paths"]["/slow"]["get"]["responses"][str(status)]
    assert answer.status_code == status
    assert set(told["content"]) == {answer.headers["content-type"]}
    (content,) = told["content"].values()
    types = {"string": str, "integer": int}
    body = answer.json()
    assert {name: types[each["type"]] for name, each in content["schema"]["properties"].items()} == {
        name: type(value) for name, value in body.items()
    }
    assert {name.lower() for name in told.get("headers", {})} <= set(answer.headers)


def test_the_middleware_added_last_is_the_outermost(client):
    answer = client.get("http://www.example.com/slow", headers=_stamp(), follow_redirects=False)
    assert answer.status_code == 301
