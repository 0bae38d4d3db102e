"""What the suites of the proxy app share: an upstream on a real socket, and the app before it."""

import contextlib
from wsgiref.validate import validator

import pytest
import webtest

from cachemw.web.apps.proxy import ProxyApp
from tests.upstreams import PATIENCE, ScriptedUpstream


@pytest.fixture
def upstream():
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def app(upstream):
    with contextlib.closing(ProxyApp(upstream.url, timeout=PATIENCE)) as app:
        yield app


@pytest.fixture
def client(app):
    return webtest.TestApp(validator(app))


@pytest.fixture
def impatient(upstream):
    """An app that waits for a fifth of a second only."""
    with contextlib.closing(ProxyApp(upstream.url, timeout=0.2)) as app:
        yield app
