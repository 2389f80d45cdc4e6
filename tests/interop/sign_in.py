"""A person signs in at a real issuer, oidc-provider from npm, and grants a call that a client waits for.

Needs the environment of run.sh, which calls it. The browser is this script: it keeps cookies, follows
redirects and fills in the issuer's own pages. Beside the happy path: an issuer that is not there yet, a
person in no group, half a session, another origin, signing out, and an issuer with a new key.
"""

import html.parser
import http.cookiejar
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

from harness import INTEROP, PATIENCE_S, ROOT, bartizan, flags_http, free_port, logs, play, serving, until
from holds import RULE, TOKEN

SECRET = "a-secret/of+this:run-0123456789"
# Between attempts to sign in: failures of one address are limited to 20 a minute.
PAUSE_S = 1.5
NODE = next((INTEROP / "node_modules").glob("node-linux-*/bin/node"), "node")


CALL = {"method": "tools/call", "params": {"name": "get_flag", "arguments": {"key": "search-v2"}}}


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes, and its hidden fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = dict(attrs)
        if tag == "form" and not self.action:
            self.action = at.get("action") or ""
        if tag == "input" and at.get("type") == "hidden":
            self.fields[at.get("name") or ""] = at.get("value") or ""


class Browser:
    """Cookies, and the key that the page of approvers has."""

    def __init__(self, console: str) -> None:
        self.console = console
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar)
        )
        self.key = ""

    def sign_in(self, person: str, hold: str = "") -> str:
        """What the page is told after the `#` in the end, without the key. `hold` is the call that the person came for."""
        query = urllib.parse.urlencode({"hold": hold})
        reply = self.opener.open(f"{self.console}/console/sign-in?{query}", timeout=PATIENCE_S)
        for _ in range(4):
            url = urllib.parse.urlsplit(reply.url)
            if f"{url.scheme}://{url.netloc}" == self.console:
                told, joint, rest = url.fragment.partition("&")
                what, _, self.key = told.partition("=")
                return url.fragment if what == "failed" else what + joint + rest
            form = Form(reply.read().decode())
            fields = {**form.fields, "login": person, "password": "any"}
            action = urllib.parse.urljoin(reply.url, form.action)
            reply = self.opener.open(action, urllib.parse.urlencode(fields).encode(), timeout=PATIENCE_S)
        raise RuntimeError(f"the issuer asks without end: {reply.url}")

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, object]]:
        """Status and answer to what the page sends."""
        sent = {"X_Bartizan_Session": self.key, "Origin": self.console, "Content_Type": "application/json", **headers}
        sent = {name.replace("_", "-"): value for name, value in sent.items() if value}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.console}{path}", data, sent)
        try:
            with self.opener.open(request, timeout=PATIENCE_S) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{what}: {found!r}, not {wanted!r}")


def granted(browser: Browser, work: pathlib.Path, url: str) -> None:
    """A client waits for its call, and goes on when the person has granted it."""
    steps = {"about": "See sign_in.py.", "steps": [{"name": "held", **CALL}]}
    file = work / "scenario.json"
    file.write_text(json.dumps(steps))
    seen: list[object] = []
    client = threading.Thread(
        target=lambda: seen.extend(play("typescript-2", "auto", str(file), ["http", url], work))
    )
    client.start()
    waiting = until("a held call", lambda: browser.ask("/approvals")[1].get("approvals"))
    path = f"/approvals/{waiting[0]['id']}"  # type: ignore[index]
    digest = browser.ask(path)[1]["approval"]["digest"]  # type: ignore[index]
    answer = {"digest": digest, "reason": "seen by a test"}
    expect("without the key", browser.ask(f"{path}/grant", answer, X_Bartizan_Session="")[0], 401)
    expect("with another key", browser.ask(f"{path}/grant", answer, X_Bartizan_Session="A" * 43)[0], 401)
    expect("of another origin", browser.ask(f"{path}/grant", answer, Origin="http://evil.example")[0], 403)
    expect("of no origin", browser.ask(f"{path}/grant", answer, Origin="")[0], 403)
    status, said = browser.ask(f"{path}/grant", answer)
    expect("the grant", (status, said.get("approval", {}).get("state")), (200, "granted"))  # type: ignore[attr-defined]
    client.join()
    if "search-v2" not in json.dumps(seen):
        raise RuntimeError(f"the client saw {seen}")
    spent = until("the spent call", lambda: browser.ask("/approvals?state=spent")[1].get("approvals"))
    expect("who granted", spent[0]["answers"][0]["by"], "test:ann")  # type: ignore[index]


def played(work: pathlib.Path) -> None:
    rule = work / "held.rego"
    rule.write_text(RULE.replace('"ttl": "5m"', '"ttl": "5m", "approvers": ["on-call"]'))
    port, admin = free_port(), free_port()
    console = f"http://127.0.0.1:{admin}"
    further = {
        "admin": f"127.0.0.1:{admin}",
        "policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule)]},
        "approvals": {
            "wait": "20s",
            "public_url": console,
            "approvers": [{"id": "ada", "token": TOKEN}],
            "oidc": {
                "issuer": f"http://127.0.0.1:{port}",
                "name": "test",
                "client_id": "bartizan",
                "client_secret": "${env:OIDC_SECRET}",
                "scopes": ["email", "groups"],
                "principal_claims": "email",
                "groups": {"on-call": "sre-on-call"},
            },
        },
    }
    os.environ["OIDC_SECRET"] = SECRET
    script = [str(NODE), str(INTEROP / "oidc_provider.mjs"), str(port), f"{console}/console/callback", SECRET]
    with flags_http(work) as upstream, bartizan(work, {"url": upstream}, further=further) as url:
        ann = Browser(console)
        expect("an issuer that is not there", ann.sign_in("ann"), "failed=unavailable")
        token = {"Authorization": f"Bearer {TOKEN}", "X_Bartizan_Session": ""}
        expect("a token meanwhile", ann.ask("/approvals", **token)[0], 200)
        with serving(script, port, work / "issuer.log"):
            until("a sign-in", lambda: ann.sign_in("ann") == "signed-in", PAUSE_S)
            expect("who", ann.ask("/console/session"), (200, {"id": "test:ann", "groups": ["on-call"]}))
            granted(ann, work, url)
            hold = "5b0c1d9e7f2a4c6d8e9fa0b1c2d3e4f5"
            expect("who came for a call", ann.sign_in("ann", hold), f"signed-in&hold={hold}")
            expect("who came for something else", ann.sign_in("ann", "//evil.example"), "signed-in")
            expect("somebody in no group", Browser(console).sign_in("eve"), "failed=no-group")
            expect("likewise, for a call", Browser(console).sign_in("eve", hold), f"failed=no-group&hold={hold}")
            kept = {cookie.name: cookie.value for cookie in ann.jar}["bartizan-session"]
            expect("signing out", ann.ask("/console/sign-out", {}), (200, {"signed_out": True}))
            left = ann.ask("/console/session", Cookie=f"bartizan-session={kept}")[0]
            expect("a session that is over", left, 401)
        with serving(script, port, work / "issuer.log"):
            until("a sign-in with a new key", lambda: Browser(console).sign_in("ann") == "signed-in", PAUSE_S)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bartizan-sign-in-") as directory:
        work = pathlib.Path(directory)
        try:
            played(work)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            print(f"FAILED  a person signs in at oidc-provider: {error}\n{logs(work)}")
            return 1
    print("ok      a person signs in at oidc-provider, grants a held call and signs out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
