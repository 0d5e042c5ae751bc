"""A server of a model, as far as a drift check asks it."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def served(profile, version="1"):
    """Serve *profile* as a model server does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("X-Model-Version", version)
            self.end_headers()
            self.wfile.write(profile.encode())

        def log_message(self, *_):
            pass

    with listening(Answer) as url:
        yield url


@contextmanager
def listening(handler):
    """Give the address of a server that answers by *handler*; it ends with the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
