"""The page of a firewall that has much: a journal with a million records, 10,000 calls that have ended, and
a held call with 1 MiB of parameters, most of it characters that are not seen.

The server here has the paths of the console and answers as docs/approvals.md says, from numbers alone:
a firewall would take hours to come to as much. What the page holds and shows must stay bounded, the rest
must be reachable, and each step must take seconds at most.
"""

import contextlib
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator

from harness import ROOT
from webdriver import Browser

FILES = ROOT / "crates/edge/src/admin/console"
MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
RECORDS = 1_000_000
ENDED = 10_000
BYTES = 1 << 20
STEP_S_MAX = 60
LARGE = "f" * 32
# As app.js, audit.js and calls.js have them.
RECORDS_MAX, CALLS_MAX, LISTED = 1000, 1000, 100


def check(fact: object, what: str) -> None:
    if not fact:
        raise RuntimeError(what)


def hold(number: int, state: str = "refused") -> dict[str, object]:
    return {
        "id": f"{number:032x}", "digest": "d", "state": state, "call": "c", "principal": "agent", "server": "flags",
        "method": "tools/call", "target": f"tool-{number}", "effect": "write", "tags": [], "environments": [], "bytes": 2,
        "revision": "r", "code": "review", "message": "m", "approvers": [], "quorum": 1, "scopes": [], "answers": [],
        "asked_unix_ms": number, "changed_unix_ms": number, "expires_unix_ms": 1 << 41, "expires_in_ms": 600_000, "waiting": 1,
    }  # fmt: skip


def large() -> dict[str, object]:
    text = "\u200b\u202ex" * (BYTES // 9)
    params = json.dumps({"name": "write_file", "arguments": {"end": "the end", "text": text}}, ensure_ascii=False)
    return {**hold(0, "pending"), "id": LARGE, "target": "write_file", "bytes": len(params.encode()), "shown": params}


def record(seq: int) -> dict[str, object]:
    return {"seq": seq, "time": "2026-11-30T14:00:00.000000Z", "event": "notice", "server": "flags", "method": f"m{seq}"}


class Firewall(http.server.BaseHTTPRequestHandler):
    """Answers from numbers; `asked` has what was asked for."""

    asked: list[str] = []

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        Firewall.asked.append(self.path)
        file = FILES / ("index.html" if url.path == "/console" else url.path.removeprefix("/console/"))
        if url.path.startswith("/console") and file.is_file():
            self.reply(file.read_bytes(), MEDIA[file.suffix])
        elif url.path.endswith("/changes"):
            time.sleep(1)  # nothing changes, but the page reads again
            self.reply(json.dumps({"change": 1}).encode())
        elif (answer := self.answer(url.path, query)) is not None:
            self.reply(json.dumps(answer).encode())
        else:
            self.send_error(404)

    def answer(self, path: str, query: dict[str, str]) -> dict[str, object] | None:
        if path == "/console/options":
            return {"sign_in": None}
        if path == f"/approvals/{LARGE}":
            return {"approval": large()}
        if path == "/approvals" and query.get("state", "pending") == "pending":
            pending = {name: value for name, value in large().items() if name != "shown"}
            return {"approver": "ada", "change": 1, "approvals": [pending], "more": 0}
        if path == "/approvals":
            end = int(query["before"], 16) if "before" in query else ENDED
            first = max(0, end - int(query["max"]))
            return {"approver": "ada", "change": 1, "approvals": [hold(one) for one in range(first, end)], "more": first}
        if path == "/audit" and "tool" in query:
            # A tool that occurs nowhere near: a reading finds nothing, and says where to go on.
            at = int(query.get("before", "500-0").split("-")[0])
            return {"change": RECORDS, "older": f"{at - 1}-0" if at > 0 else None, "unreadable": 0, "records": [record(1)] if at == 480 else []}
        if path == "/audit" and "after" in query:
            return {"change": RECORDS, "older": None, "unreadable": 0, "records": []}
        if path == "/audit":
            end = int(query["before"].split("-")[0]) if "before" in query else RECORDS
            first = max(0, end - 200)
            return {"change": RECORDS, "older": f"{first}-0" if first else None, "unreadable": 0, "records": [record(one + 1) for one in reversed(range(first, end))]}
        return None

    def reply(self, body: bytes, media: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the page no longer waits for it
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def firewall() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Firewall)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def history(page: Browser) -> None:
    page.run("const it = document.querySelector('#states'); it.value = 'ended'; it.dispatchEvent(new Event('change'))")
    count = "return document.querySelectorAll('#calls li').length"
    page.until("the newest ended calls", f"{count} === arguments[0]", LISTED)
    for number in range(2, CALLS_MAX // LISTED + 1):
        page.click("#older-calls")
        page.until(f"older calls, {number}", f"{count} === arguments[0]", number * LISTED)
    check(page.run("return document.querySelector('#older-calls').hidden"), "more calls than may be can be listed")
    first = page.run("return document.querySelector('#calls li strong').textContent")
    check(first == f"tool-{ENDED - 1}", f"the newest call is not the first one: {first}")
    said = page.run("return document.querySelector('#status').textContent")
    check(f"{ENDED - CALLS_MAX} older ones" in said, f"the status is {said}")
    page.run("const it = document.querySelector('#states'); it.value = 'pending'; it.dispatchEvent(new Event('change'))")


def held(page: Browser) -> None:
    page.run("location.hash = 'hold=' + arguments[0]", LARGE)
    page.until("the beginning is shown", "return !document.querySelector('#rest').hidden")
    drawn = page.run("return document.querySelector('#shown').textContent.length")
    check(drawn < 1_000_000, f"{drawn} characters are drawn at once")
    elements = page.run("return document.querySelectorAll('*').length")
    check(elements < 15_000, f"{elements} elements")
    # Nobody grants what is not shown.
    page.run("document.querySelector('#reason').value = 'seen'")
    page.click("#grant")
    page.until("it says so", "return document.querySelector('#failed').textContent.includes('Show all')")
    page.click("#show-all")
    page.until("all is shown", "return document.querySelector('#rest').hidden")
    text = page.run("return document.querySelector('#shown').textContent")
    check("the end" in text and text.count("[U+200B]") + text.count("U+200BU+202E") > 100_000, "not all of it is shown")
    elements = page.run("return document.querySelectorAll('*').length")
    check(elements < 15_000, f"{elements} elements once all is shown")
    asked = sum(one == f"/approvals/{LARGE}" for one in Firewall.asked)
    time.sleep(3)
    again = sum(one == f"/approvals/{LARGE}" for one in Firewall.asked)
    check(again == asked, "a large call is read again though nothing has become of it")
    check(page.run("return document.querySelector('#rest').hidden"), "what was shown is hidden again")


def audit(page: Browser) -> None:
    page.run("location.hash = 'audit'")
    count = "return document.querySelectorAll('#records li').length"
    page.until("the newest records", f"{count} === 200")
    seq = "return document.querySelector('#records li:last-child .subject').textContent"
    for number in range(2, 12):
        page.click("#older")
        page.until(f"older records, {number}", f"{seq} === arguments[0]", f"flags m{RECORDS - 200 * number + 1}")
        shown = page.run(count)
        check(shown == min(200 * number, RECORDS_MAX), f"{shown} records are shown")
    check("m1000000" not in page.text(), "the newest records did not go")
    page.click("#live")
    page.until("the newest records again", "return document.querySelector('#records .subject').textContent === 'flags m1000000'")
    # One press goes far back for what is rare.
    page.run("document.querySelector('#by-tool').value = 'rare'; document.querySelector('#filters').requestSubmit()")
    page.until("nothing yet", f"{count} === 0 && !document.querySelector('#older').hidden")
    page.click("#older")
    page.until("nothing still", "return document.querySelector('#audit-status').textContent.includes('press again')")
    page.click("#older")
    page.until("the one record", f"{count} === 1")


def usable(page: Browser, token: str) -> None:
    """Does what people do, each in a bounded time."""
    with firewall() as url:
        page.go(f"{url}/console")
        page.until("the form", "return document.querySelector('#token') !== null")
        page.run("document.querySelector('#token').value = arguments[0]; document.querySelector('#enter').requestSubmit()", token)
        page.until("the held call", "return document.querySelectorAll('#calls li').length === 1")
        for name, step in (("history", history), ("a large call", held), ("a large journal", audit)):
            began = time.monotonic()
            step(page)
            took = time.monotonic() - began
            check(took < STEP_S_MAX, f"{name}: {took:.1f} s")
            page.run("document.querySelector('#filters').reset()")
        page.go("about:blank")
