"""Be the server of an app: call it, and read its body by hand, or not to the end."""

import io

import pytest


class Response:
    """What the filter gave to a server that reads it by hand."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        return dict(self.headers)[name]

    def read(self):
        try:
            return b"".join(self.body)
        finally:
            self.close()

    def read_until(self, error):
        received = io.BytesIO()
        with pytest.raises(error):
            for chunk in self.body:
                received.write(chunk)
        self.close()
        return received.getvalue()

    def close(self):
        if hasattr(self.body, "close"):
            self.body.close()


def call(app, path, **extra):
    """Ask for an image; ``extra`` goes into the environ as it is."""
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        **extra,
    }
    body = app(environ, lambda *args: started.append(args))
    return Response(started[0][0], started[0][1], body)
