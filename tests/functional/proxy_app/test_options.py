"""The proxy app's options."""

import contextlib
import subprocess
import sys

import pytest

from cachemw.errors import ConfigError
from cachemw.web.apps.proxy import app_factory
from tests.upstreams import response

from .exchange import start


def test_the_ini_options_are_read(upstream):
    upstream.reply(response(b"abc"))
    conf = {"upstream": upstream.url, "timeout": "1m", "connect_timeout": "5", "pool_size": "4"}
    with contextlib.closing(app_factory({"here": "/etc"}, **conf)) as app:
        assert list(start(app)[2]) == [b"abc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'upstream' is missing"),
        ({"upstream": "images:8080"}, "'upstream' has the value 'images:8080': expected http://"),
        ({"upstream": "ftp://images/"}, "'upstream' has the value 'ftp://images/'"),
        ({"upstream": "http:///path"}, "'upstream'"),
        ({"upstream": "http://host:port/"}, "'upstream'"),
        ({"upstream": "http://user:secret@host/"}, "'upstream'"),
        ({"upstream": "http://host/?query"}, "'upstream'"),
        ({"upstream": "http://host/a b"}, "'upstream'"),
        ({"upstream": "http://h", "timeout": "0"}, "'timeout' has the value '0': expected more"),
        ({"upstream": "http://h", "timeout": "soon"}, "'timeout' has the value 'soon'"),
        ({"upstream": "http://h", "pool_size": "0"}, "'pool_size' has the value '0'"),
        ({"upstream": "http://h", "pool_size": "x"}, "'pool_size' has the value 'x'"),
        ({"upstream": "http://h", "time_out": "5"}, "'time_out'.*did you mean 'timeout'"),
    ],
)
def test_a_wrong_option_stops_the_start(options, message):
    with pytest.raises(ConfigError, match=message):
        app_factory({}, **options)


def test_without_urllib3_the_start_stops_and_says_what_to_install():
    script = (
        "import sys; sys.modules['urllib3'] = None\n"
        "from cachemw.errors import ConfigError\n"
        "from cachemw.web.apps.proxy import app_factory\n"
        "try: app_factory({}, upstream='http://host')\n"
        "except ConfigError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "pip install 'cachemw[serve]'" in done.stdout
