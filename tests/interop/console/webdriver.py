"""A browser by WebDriver (https://www.w3.org/TR/webdriver2/): chromium through its chromedriver.

As little of it as the test needs, over HTTP by hand. Scripts run by the driver, so the policy of the
page stays as it is.
"""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from harness import free_port, serving

PATIENCE_S = 30
REQUEST_S_MAX = 60
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER = "\ue004", "\ue006"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, and open pages of this program alone
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-GB",
    "--window-size=1280,900",
]


class Browser:
    def __init__(self, driver: str, session: str) -> None:
        self.session = f"{driver}/session/{session}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return ask(method, self.session + path, body)

    def go(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What `script` returns; a promise is waited for."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, what: str, script: str, *arguments: object) -> Any:
        """Waits until `script` returns something that is true."""
        until = time.monotonic() + PATIENCE_S
        while not (found := self.run(script, *arguments)):
            if time.monotonic() > until:
                raise RuntimeError(f"never: {what}\n{self.text()}")
            time.sleep(0.05)
        return found

    def press(self, *keys: str) -> None:
        """Presses each key, and leaves it again."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def type(self, text: str) -> None:
        self.press(*text)

    def click(self, css: str) -> None:
        element = self.ask("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]
        self.ask("POST", f"/element/{element}/click", {})

    def text(self) -> str:
        """What a person can see of the page."""
        return self.run("return document.body.innerText")

    def tab_to(self, css: str, most: int = 40) -> int:
        """Goes on by Tab until what `css` selects has the focus; after how many presses."""
        for presses in range(1, most + 1):
            self.press(TAB)
            if self.run("return document.activeElement.matches(arguments[0])", css):
                return presses
        raise RuntimeError(f"{css} is not reached by {most} times Tab")

    def emulate(self, scheme: str, width: int = 1280, height: int = 900) -> None:
        """A preferred colour scheme, and a window."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def devtools(self, command: str, **parameters: object) -> Any:
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, file: pathlib.Path) -> None:
        file.write_bytes(b64decode(self.ask("GET", "/screenshot")))

    def has_dialog(self) -> bool:
        try:
            self.ask("GET", "/alert/text")
        except RuntimeError as error:
            if "no such alert" in str(error):
                return False
            raise
        return True

    def complaints(self) -> list[str]:
        """What the browser has said since the last time, such as of a policy that was broken."""
        return [f"{one['level']}: {one['message']}" for one in self.ask("POST", "/se/log", {"type": "browser"})]


def ask(method: str, url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_S_MAX) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.read().decode(errors='replace')[:2_000]}") from error


@contextlib.contextmanager
def browser(work: pathlib.Path) -> Iterator[Browser]:
    port = free_port()
    driver = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="bartizan-browser-", ignore_cleanup_errors=True) as profile:
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}, "unhandledPromptBehavior": "ignore"}
        with serving(["chromedriver", f"--port={port}"], port, work / "chromedriver.log"):
            opened = ask("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
            one = Browser(driver, opened["sessionId"])
            try:
                yield one
            finally:
                with contextlib.suppress(RuntimeError, OSError, subprocess.SubprocessError):
                    one.ask("DELETE", "")
