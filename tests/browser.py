"""A headless Chromium, driven by its DevTools protocol.

Only what the tests of the dashboard and its screenshots need: open a page, look into it,
press keys, and know what went wrong in it. One thread at a time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

#: Seconds after which what was waited for will not come.
PATIENCE = 30

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root has no use for
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--lang=en",
)

#: Keys by name: what the page is told of them.
_KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    "Space": ("Space", 32, " "),
}


def program() -> str | None:
    """Give the path of a Chromium; ``None``: there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class PageError(Exception):
    """A script that was given to the page failed in it."""


class Page:
    """One page.

    :param address: of its DevTools socket.
    """

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(
            address, timeout=PATIENCE, suppress_origin=True, enable_multithread=False
        )
        self._number = 0
        #: What the console was told as a warning or worse, and uncaught exceptions.
        self.problems: list[str] = []
        #: Method and URL of all that was asked for.
        self.requests: list[tuple[str, str]] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Let go of the page."""
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something by the protocol, and wait for the answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                break
            self._note(message)
        if "error" in message:
            raise PageError(f"{method}: {message['error']}")
        return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what an event says that a test may ask for."""
        event = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{event['entry']['text']} {event['entry'].get('url')}")
            case "Network.requestWillBeSent":
                request = event["request"]
                self.requests.append((request["method"], request["url"]))

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Give the value of an expression of the page, of what it promises if it does."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and give its value."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                value = self.evaluate(expression)
            except PageError as exc:  # the page is about to become another
                value, problem = None, exc
            else:
                problem = None
            if value:
                return value
            if time.monotonic() > deadline:
                heard = [*([problem] if problem else []), *self.problems]
                raise AssertionError(f"not so after {PATIENCE} s: {expression}; {heard}")
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Give the text of the first element that matches."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        """Give the texts of all elements that match."""
        query = f"document.querySelectorAll({json.dumps(selector)})"
        return self.evaluate(f"[...{query}].map((found) => found.innerText)")

    def click(self, selector: str) -> None:
        """Focus and press the first element that matches, as a person would."""
        query = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{query}.focus(), {query}.click()")

    def type(self, selector: str, text: str) -> None:
        """Put text into a field, as if it was pasted over what is there."""
        self.evaluate(
            f"document.querySelector({json.dumps(selector)}).focus(),"
            f"document.querySelector({json.dumps(selector)}).select()"
        )
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key, for whatever has the focus."""
        code, number, text = _KEYS[key]
        named = {"key": " " if key == "Space" else key, "code": code}
        named["windowsVirtualKeyCode"] = number
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def view(self, width: int, height: int, *, scheme: str = "light", scale: float = 1) -> None:
        """Set the size of the window, and the theme that the system asks for."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self) -> bytes:
        """Give what can be seen, as PNG."""
        answer = self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


class Browser:
    """A running Chromium.

    :param port: of its DevTools.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """Open an empty page of its own, and close it."""
        target = self._ask("PUT", "new?about:blank")
        page = Page(target["webSocketDebuggerUrl"])
        try:
            yield page
        finally:
            page.close()
            self._ask("GET", f"close/{target['id']}")

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/json/{path}", method=method
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body = answer.read()
        return json.loads(body) if body.startswith((b"{", b"[")) else body


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[Browser]:
    """Run a Chromium.

    :param directory: for all that it writes.
    """
    found = program()
    assert found is not None
    port_file = directory / "DevToolsActivePort"
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [found, *_OPTIONS, f"--user-data-dir={directory}", "about:blank"],
            env={**os.environ, "HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (port_file.exists() and "\n" in port_file.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no Chromium: {(directory / 'log').read_text()}")
            time.sleep(0.05)
        yield Browser(int(port_file.read_text().split("\n")[0]))
    finally:
        # The group has all of its processes, and nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
