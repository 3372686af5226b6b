"""Drives Debian's headless Chromium over a pipe, by the DevTools protocol, for the browser tests and the screenshots.

A pipe needs no port, no driver and no package. Each `Browser` has a profile of its own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

COMMAND: Final = "chromium"
FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
TIMEOUT_S: Final = 60.0
"""Limit of a command and of a wait, on a busy machine."""
KEYS: Final[Mapping[str, int]] = {
    "Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
    "ArrowDown": 40,
}  # fmt: skip
"""Virtual key codes by name."""
SHIFT: Final = 8
CONTROL: Final = 2

Json = Any  # a value of the protocol


def available() -> bool:
    """Returns True if Chromium is installed."""
    return shutil.which(COMMAND) is not None


class BrowserError(Exception):
    """A command failed, or a script raised."""


class Connection:
    """Sends commands, and collects events."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._next = 0
        self._results: dict[int, queue.SimpleQueue[Json]] = {}
        self.events: list[Json] = []
        self._reader = threading.Thread(target=self._read, name="browser", daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **params: Json) -> Json:
        """Runs a command; raises `BrowserError`."""
        self._next += 1
        number = self._next
        results = self._results[number] = queue.SimpleQueue()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._send, json.dumps(message).encode() + b"\0")
        answer = results.get(timeout=TIMEOUT_S)
        del self._results[number]
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self) -> None:
        rest = b""
        while data := _read_some(self._receive):
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._results[message["id"]].put(message)
                else:
                    self.events.append(message)


def _read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # it was closed
        return b""


class Page:
    """A tab, and everything that it has logged and requested."""

    def __init__(self, connection: Connection, session: str) -> None:
        self._connection = connection
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Json) -> Json:
        """Runs a command of the protocol."""
        return self._connection.call(method, self._session, **params)

    def events(self, method: str) -> list[Json]:
        """Returns the parameters of all events of a kind."""
        found = [event for event in list(self._connection.events) if event.get("sessionId") == self._session]
        return [event["params"] for event in found if event["method"] == method]

    def open(self, url: str) -> None:
        """Loads a page, until its load event."""
        loaded = len(self.events("Page.loadEventFired"))
        self.call("Page.navigate", url=url)
        wait_for(lambda: len(self.events("Page.loadEventFired")) > loaded, f"load of {url}")

    def run(self, script: str) -> Json:
        """Returns the value of a JavaScript expression, awaited; raises `BrowserError` if it throws."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(result["exceptionDetails"].get("exception", {}).get("description", str(result)))
        return result["result"].get("value")

    def wait(self, script: str) -> Json:
        """Waits until an expression is true, and returns its value."""
        return wait_for(lambda: self.run(script), script)

    def text(self, selector: str) -> str:
        """Returns the visible text of the first element."""
        text: str = self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return text

    def fill(self, selector: str, text: str) -> None:
        """Replaces the text of a control, as a user types it."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run("document.activeElement.select()")
        if text:
            self.call("Input.insertText", text=text)
        else:
            self.run("document.activeElement.value = ''")

    def click(self, selector: str) -> None:
        """Clicks the middle of the first element, which must be visible there."""
        name = json.dumps(selector)
        self.run(f"document.querySelector({name}).scrollIntoView({{block: 'center'}})")
        box = self.run(
            f"(() => {{ const e = document.querySelector({name}), b = e.getBoundingClientRect();"
            "const x = b.x + b.width / 2, y = b.y + b.height / 2;"
            "return {x, y, hit: e.contains(document.elementFromPoint(x, y))}; })()"
        )
        if not box["hit"]:
            raise BrowserError(f"{selector} is covered or outside the window")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box["x"], y=box["y"], button="left", clickCount=1)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key of `KEYS`."""
        code = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> None:
        """Sets the size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, scheme: str) -> None:
        """Sets the preferred colors: `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Writes the window as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def forget_errors(self) -> None:
        """Removes the events so far, such as expected errors."""
        self._connection.events[:] = [
            event for event in self._connection.events if event.get("sessionId") != self._session
        ]

    @property
    def requests(self) -> list[str]:
        """URLs of all requests, those that were blocked included."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    @property
    def errors(self) -> list[str]:
        """Returns the errors and warnings of the console, and the exceptions of scripts."""
        logged = [
            f"{entry['text']} {entry.get('url', '')}".strip()
            for entry in (event["entry"] for event in self.events("Log.entryAdded"))
            if entry["level"] in {"error", "warning"}
        ]
        written = [
            " ".join(str(part.get("value", part.get("description"))) for part in event["args"])
            for event in self.events("Runtime.consoleAPICalled")
            if event["type"] in {"error", "warning", "assert"}
        ]
        thrown = [
            event["exceptionDetails"].get("exception", {}).get("description", event["exceptionDetails"]["text"])
            for event in self.events("Runtime.exceptionThrown")
        ]
        return logged + written + thrown


class Browser:
    """One process of Chromium."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """Opens an empty tab in a context of its own, without cache and cookies of others."""
        context = self._connection.call("Target.createBrowserContext")["browserContextId"]
        target = self._connection.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self._connection.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            yield Page(self._connection, session)
        finally:
            self._connection.call("Target.disposeBrowserContext", browserContextId=context)


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """Starts Chromium, and ends it with the context."""
    executable = shutil.which(COMMAND)
    if executable is None:
        raise BrowserError("chromium is not installed: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder,
        contextlib.ExitStack() as stack,
    ):
        (their_input, send), (receive, their_output) = os.pipe(), os.pipe()
        for descriptor in (send, receive):
            stack.callback(os.close, descriptor)
        log = stack.enter_context(Path(folder, "log").open("wb"))
        # The protocol's pipe is at descriptors 3 and 4.
        script = f'exec "$@" 3<&{their_input} 4>&{their_output}'
        process = subprocess.Popen(  # noqa: S603  # our own command
            ["/bin/bash", "-c", script, COMMAND, executable, *FLAGS, f"--user-data-dir={folder}/profile", *flags],
            pass_fds=(their_input, their_output),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        os.close(their_input)
        os.close(their_output)
        try:
            connection = Connection(send, receive)
            yield Browser(connection)
            connection.call("Browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], Json], what: str) -> Json:
    """Waits until a condition holds, and returns its value; raises `BrowserError` after `TIMEOUT_S`."""
    ends = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise BrowserError(f"not within {TIMEOUT_S:g} s: {what}")
