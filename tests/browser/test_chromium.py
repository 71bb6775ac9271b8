"""That the browser of these tests is what they take it for."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.server]

_PAGE = b"""<!doctype html><title>Hello</title><link rel="icon" href="data:,">
<p>Hello</p><script>console.error("oops " + location.host)</script><img src="http://elsewhere.example/x.png">"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host = self.headers["Host"]
        self.send_response(301 if self.path == "/old" else 200)
        self.send_header("Location", f"http://{host.replace('old', 'new')}/")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_every_name_is_this_machine_and_everything_is_told(chromium, port):
    chromium.driver.get(f"http://old.example:{port}/old")
    assert chromium.driver.current_url == f"http://new.example:{port}/"
    assert chromium.driver.title == "Hello"
    assert (301, f"http://old.example:{port}/old") in chromium.responses()
    assert (200, f"http://new.example:{port}/") in chromium.responses()
    assert "http://elsewhere.example/x.png" in chromium.requests()
    assert any(f"oops new.example:{port}" in line for line in chromium.console())


def test_it_has_the_size_and_the_preferences_that_it_is_told(chromium):
    chromium.set_size(360, 640)
    chromium.prefer(prefers_color_scheme="dark")
    asked = "return [innerWidth, innerHeight, matchMedia('(prefers-color-scheme: dark)').matches]"
    assert chromium.driver.execute_script(asked) == [360, 640, True]
