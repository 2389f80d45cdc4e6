"""A person grants and refuses calls in the console, in a real browser, while official clients wait.

Needs the environment of console.sh, which calls it. The texts of a hostile client stay texts, axe-core
finds no barrier in any view, and everything can be done by keyboard. `--screenshots DIR` also writes
the pictures of docs/approvals.md.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from harness import INTEROP, ROOT, bartizan, flags_http, free_port, logs, play  # noqa: E402
import large  # noqa: E402
from webdriver import ENTER, TAB, Browser, browser  # noqa: E402

AXE = (pathlib.Path(os.environ["AXE"]) / "node_modules/axe-core/axe.min.js").read_text()
TOKEN = "a-token-of-this-run-0123456789abcdef"
RULE = """package mcp

hold contains {
	"code": "second-pair",
	"message": "a second pair of eyes",
	"ttl": "30m",
	"scopes": [{"code": "same-tool-15m", "lasts": "15m", "count": 10}],
} if {
	input.method == "tools/call"
}
"""
CLIENT_S_MAX = 60
# Tab and line ends are characters that are not seen, too, and here they are what a text would break out with.
MARKUP = '"><img src=x onerror="alert(1)"></textarea><script>alert(2)</script>'
HELD = "set_rollout"
TOOL = '<img src=x onerror="alert(3)">'
CLIENT = '<svg onload="alert(4)">a client</svg>'
REASON = 'seen </p><script>alert(5)</script> {{7*7}}'
# Every element that may be there; what else is there was injected.
ELEMENTS = (
    "A ARTICLE BODY BUTTON CODE DD DETAILS DIV DL DT FORM H1 H2 H3 HEAD HEADER HTML INPUT LABEL LI LINK MAIN META NAV OL "
    "OPTION P PRE SCRIPT SECTION SELECT SPAN STRONG SUMMARY TEXTAREA TITLE UL DATALIST"
).split()


def unseen() -> list[str]:
    """Every character of the firewall's own table of what cannot be seen."""
    table = (ROOT / "crates/gate/src/wire/unseen/table.rs").read_text()
    ranges = re.findall(r"\('\\u\{([0-9a-f]+)\}', '\\u\{([0-9a-f]+)\}', [A-Z]\w+\)", table)
    found = [chr(code) for first, last in ranges for code in range(int(first, 16), int(last, 16) + 1)]
    if len(found) < 4_000:
        raise RuntimeError(f"{len(found)} characters were found in the table")
    return found


def check(fact: object, what: str) -> None:
    if not fact:
        raise RuntimeError(what)


class Call:
    """A call of an official client, which waits for its answer in a thread."""

    def __init__(self, client: str, era: str, flag: str, url: str, work: pathlib.Path) -> None:
        self.seen: list[dict[str, object]] = []
        self.error: Exception | None = None
        name = f"scenario.console-{client}.json"
        arguments = {"key": flag, "percentage": 50, "environment": "staging"}
        step = {"name": "held", "method": "tools/call", "params": {"name": HELD, "arguments": arguments}}
        (INTEROP / name).write_text(json.dumps({"about": "See console/run.py.", "steps": [step]}))

        def playing() -> None:
            try:
                self.seen = play(client, era, name, ["http", url], work)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self.error = error

        self.thread = threading.Thread(target=playing)
        self.thread.start()

    def waits(self) -> bool:
        return self.thread.is_alive()

    def answer(self) -> str:
        """What the client saw of its call."""
        self.thread.join(CLIENT_S_MAX)
        check(not self.waits(), "the client still waits")
        if self.error:
            raise RuntimeError(str(self.error))
        return json.dumps([one for one in self.seen if "step" in one], ensure_ascii=False)


class Hostile:
    """A client whose name, tool and arguments are markup, and characters that are not seen."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, ""
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": CLIENT, "version": "1"}}
        self.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        arguments = {MARKUP: [MARKUP, "</pre>", "".join(unseen())], "plain": "U+202E is only text"}
        call = {"name": TOOL, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        self.thread = threading.Thread(target=self.send, args=(message,), daemon=True)
        self.thread.start()

    def send(self, message: object) -> None:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": "2025-06-18"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=CLIENT_S_MAX) as answer:
            self.session = answer.headers.get("Mcp-Session-Id", self.session)
            answer.read()


class Console:
    """The page, and what must hold on it at all times."""

    def __init__(self, page: Browser, admin: str, pictures: pathlib.Path | None) -> None:
        self.page, self.admin, self.pictures = page, admin, pictures
        page.emulate("light")
        # Before any script of the page, in every document.
        page.devtools("Page.enable")
        page.devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.broken = []; addEventListener('securitypolicyviolation', (it) => window.broken.push("
            "it.effectiveDirective + ' ' + it.sourceFile + ' ' + it.sample))",
        )

    def open(self, fragment: str = "") -> None:
        self.page.go("about:blank")
        self.page.go(f"{self.admin}/console{fragment}")
        self.page.until("the page is there", "return document.querySelector('#token') !== null")

    def sign_in(self, token: str = TOKEN) -> None:
        self.page.until("the token can be written", "return document.activeElement.id === 'token' || (document.querySelector('#token').focus(), false)")
        self.page.type(token)
        self.page.press(ENTER)

    def waits(self, tool: str) -> str:
        """The id of the call of `tool` that is listed, once it is."""
        script = "return [...document.querySelectorAll('#calls a')].find((it) => it.querySelector('strong').textContent === arguments[0])?.dataset.id"
        return self.page.until(f"a call of {tool} is listed", script, tool)

    def shows(self, what: str, css: str, text: str) -> None:
        self.page.until(what, "return document.querySelector(arguments[0])?.innerText.includes(arguments[1])", css, text)

    def is_sound(self) -> None:
        """No text became markup, no script ran, and no policy was broken."""
        check(not self.page.has_dialog(), "a script has opened a dialog")
        broken = self.page.run("return window.broken")
        check(broken == [], f"the policy of the page was broken: {broken}")
        said = self.page.complaints()
        said = [one for one in said if "the server responded with a status of 40" not in one]
        check(said == [], f"the browser complains: {said}")
        foreign = self.page.run(
            "return [...document.querySelectorAll('*')].filter((it) => !arguments[0].includes(it.tagName)"
            " || [...it.attributes].some((one) => one.name.startsWith('on') || one.name === 'style' || one.name === 'src' && it.tagName !== 'SCRIPT')"
            ").map((it) => it.outerHTML.slice(0, 200))",
            ELEMENTS,
        )
        check(foreign == [], f"elements were injected: {foreign}")
        scripts = self.page.run("return [...document.scripts].map((it) => new URL(it.src).pathname)")
        check(scripts == ["/console/app.js"], f"scripts of the page are {scripts}")

    def barriers(self) -> list[str]:
        """What axe-core finds."""
        return self.page.run(
            f"if (!window.axe) {{ {AXE} }}\n"
            "return window.axe.run(document, {resultTypes: ['violations']}).then((all) => all.violations.map("
            "(it) => it.id + ': ' + it.help + ': ' + it.nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary).join(' | ')))"
        )

    def has_no_barriers(self, where: str, pictures: tuple[str, ...] = (), height: int = 800) -> None:
        """Looks at the view in light and dark, wide and narrow; then goes back. `pictures` are those to take."""
        self.is_sound()
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
            self.page.emulate(scheme, width, height)
            wide = self.page.run("return document.documentElement.scrollWidth - innerWidth")
            check(wide <= 0, f"{where}, {width} px: {wide} px do not fit")
            found = self.barriers()
            check(found == [], f"{where}, {scheme}, {width} px: {found}")
            name = "narrow" if (width, scheme) == (390, "dark") else scheme if width > 390 else ""
            for picture in pictures if self.pictures else ():
                if picture.endswith(name or "none"):
                    self.page.run("scrollTo(0, 0)")
                    self.page.picture(self.pictures / f"console-{picture}.png")
        self.page.emulate("light")


def sign_in(console: Console) -> None:
    console.open()
    console.has_no_barriers("sign in")
    console.sign_in("no-token-of-this-run-0123456789abcdef")
    console.shows("a wrong token is refused", "#refused", "not accepted")
    check(console.page.run("return document.querySelector('#console').hidden"), "a wrong token shows the console")
    console.sign_in()
    console.shows("nothing is held", "#status", "No call waits")
    check(TOKEN not in console.page.run("return document.documentElement.outerHTML + document.querySelector('#token').value"), "the page has the token")
    kept = console.page.run("return localStorage.length + sessionStorage.length + document.cookie.length")
    check(kept == 0, "the page keeps something")


def grant_by_keyboard(console: Console, url: str, work: pathlib.Path) -> None:
    page = console.page
    page.run("window.mark = 1")
    call = Call("python-2", "auto", "search-v2", url, work)
    console.waits(HELD)
    check(page.run("return window.mark === 1"), "the page was loaded again")
    check(call.waits(), "the client does not wait")
    page.tab_to(".call")
    page.press(ENTER)
    console.shows("the story is told", "#story", "a second pair of eyes")
    page.until("the story has the focus", "return document.activeElement.id === 'story-title'")
    for text in ("write", "go-live", "peer", "staging", "second-pair", "interop-py", "same-tool-15m"):
        console.shows(f"the story names {text}", "#story", text)
    console.shows("the arguments", "#shown", '"key": "search-v2"')
    left = "return document.querySelector('#state').textContent"
    before = page.until("a countdown", left)
    page.until("the countdown goes on", left + " !== arguments[0]", before)
    page.tab_to("#grant")
    page.press(ENTER)
    page.until("a reason is asked for", "return document.activeElement.id === 'reason'")
    check(call.waits(), "a call was granted without a reason")
    page.type("seen by a test")
    page.tab_to("#grant")
    page.press(ENTER)
    check("search-v2" in (answer := call.answer()), f"the granted client saw {answer}")
    console.shows("the answer counts", "#outcome", "Granted")
    console.shows("who answered, and why", "#answers", "ada: grant, seen by a test")
    console.shows("nothing is held any more", "#status", "No call waits")


def refuse(console: Console, url: str, work: pathlib.Path) -> None:
    page = console.page
    call = Call("typescript-2", "auto", "checkout-redesign", url, work)
    console.waits(HELD)
    page.click(".call")
    console.shows("what has changed", "#diff .removed", "search-v2")
    console.shows("what has changed", "#diff .added", "checkout-redesign")
    console.has_no_barriers("a held call", ("light", "dark", "narrow"), height=1250)
    page.click("#reason")
    page.type("not today")
    page.click("#refuse")
    answer = call.answer()
    check("Approval refused" in answer, f"the refused client saw {answer}")
    console.shows("the answer counts", "#outcome", "Refused")


def markup_stays_text(console: Console, url: str) -> None:
    page = console.page
    one = Call("typescript-1", "legacy", "search-v2", url, pathlib.Path(os.environ["WORK"]))
    console.waits(HELD)
    page.click(".call")
    console.shows("the first call", "#shown", "search-v2")
    page.click("#reason")
    page.type("half a rea")
    Hostile(url)
    hold = console.waits(TOOL)
    console.shows("the status names it", "#status", TOOL)
    check(page.run("return document.activeElement.id + document.activeElement.value") == "reasonhalf a rea", "the focus was lost")
    page.type("son")
    page.click("#refuse")
    one.answer()
    page.run("location.hash = 'hold=' + arguments[0]", hold)
    for where, text in (("#story-title", TOOL), ("#facts", CLIENT), ("#shown", json.dumps(MARKUP)), ("#shown", "</pre>")):
        console.shows(f"{text} is a text", where, text)
    marks = page.run("return [...document.querySelectorAll('#shown .unseen')].map((it) => it.textContent)")
    # JSON has escapes of its own for the controls up to U+001F.
    wanted = [f"U+{ord(one):04X}" for one in unseen() if ord(one) > 0x1F]
    check(marks == wanted, f"{len(marks)} of {len(wanted)} unseen characters are marked")
    console.is_sound()
    page.click("#reason")
    page.type(REASON)
    page.click("#grant")
    console.shows("the reason is a text", "#answers", REASON)
    console.has_no_barriers("a call of a hostile client")


def history(console: Console) -> None:
    page = console.page
    page.run("const it = document.querySelector('#states'); it.value = 'ended'; it.dispatchEvent(new Event('change'))")
    page.until("four calls have ended", "return document.querySelectorAll('#calls a').length === 4")
    for state in ("granted, and sent", "refused"):
        console.shows(f"one was {state}", "#calls", state)
    console.has_no_barriers("history")


def address_of_a_call(console: Console) -> None:
    page = console.page
    hold = page.run("return [...document.querySelectorAll('#calls a')].find((it) => it.innerText.includes('checkout') || it.innerText.includes('refused')).dataset.id")
    console.open(f"#hold={hold}")
    console.sign_in()
    page.until("the call that the address names", "return document.querySelector('#names').textContent.includes(arguments[0])", hold)
    console.shows("how it ended", "#state", "refused")
    # A sign-in at an issuer that fails keeps it, too.
    console.open(f"#failed=denied&hold={hold}")
    console.shows("why nobody is signed in", "#refused", "did not sign you in")
    check(page.run("return location.hash") == f"#hold={hold}", "the address lost the call")
    console.sign_in()
    page.until("the call that the address names", "return document.querySelector('#names').textContent.includes(arguments[0])", hold)
    page.run("location.hash = 'hold=00000000000000000000000000000000'")
    console.shows("an unknown call", "#story", "There is no such held call")
    for odd in ("hold=../approvals", "hold=%", "hold=", "<img src=x onerror=alert(6)>"):
        page.run("location.hash = arguments[0]", odd)
        console.shows(f"{odd} names no call", "#story", "No call chosen")
    console.is_sound()


def audit(console: Console, url: str) -> None:
    page = console.page
    page.run("location.hash = 'audit'")
    console.shows("records", "#records", "set_rollout")
    console.shows("answers of approvers", "#records", "answer of ada")
    console.shows("what a client wrote is text", "#records", TOOL)
    check(page.run("return document.querySelector('#view-calls').hidden"), "both views are shown")
    page.run("document.querySelector('#records summary').focus()")
    page.press(ENTER)
    console.shows("a whole record", "#records pre", '"prev": "')
    console.has_no_barriers("audit", ("audit-light",))
    # Live: while a record has the focus, the next ones come.
    count = "return document.querySelectorAll('#records li').length"
    before = page.run(count)
    Hostile(url)
    page.until("further records are shown", count + " > arguments[0]", before)
    check(page.run("return document.activeElement.tagName === 'SUMMARY'"), "the focus was lost")
    filters = (
        ("tool", TOOL, TOOL), ("rule", "second-pair", "second-pair"), ("effect", "write", HELD), ("decision", "deny", "denied"),
        ("server", "peer", "peer"), ("principal", "agent", "agent"), ("event", "approval", "answer of ada"),
    )
    for name, value, seen in filters:
        page.run("const it = document.querySelector('#by-' + arguments[0]); it.value = arguments[1]; it.form.requestSubmit()", name, value)
        page.until(
            f"every record has {value}",
            "const all = [...document.querySelectorAll('#records li')]; return all.length > 0 && all.every((it) => it.innerText.includes(arguments[0]))",
            seen,
        )
        page.click("#filters [type=reset]")
        page.until("all are shown again", "return [...document.querySelectorAll('#records li')].some((it) => it.innerText.includes('start'))")
    page.run("document.querySelector('#by-tool').value = 'no such tool'; document.querySelector('#filters').requestSubmit()")
    console.shows("nothing is found", "#audit-status", "0 records")
    console.is_sound()


def servers(console: Console) -> None:
    page = console.page
    page.run("document.activeElement.blur()")
    page.tab_to("#to-servers")
    page.press(ENTER)
    for text in ("flag-service", "staging", "Streamable HTTP", "/mcp", "no lock file", "enforce"):
        console.shows(f"servers with {text}", "#view-servers", text)
    shown = page.run("return document.querySelector('#policy').innerText")
    check(re.search(r"sha256:[0-9a-f]{16}", shown), f"the policy is {shown}")
    console.has_no_barriers("servers", ("servers-light",))


def signs_out(console: Console) -> None:
    page = console.page
    page.click("#leave")
    left = page.until("the form is there again", "return !document.querySelector('#enter').hidden && document.body.textContent")
    for text in (HELD, TOOL, "flag-service", "ada"):
        check(text not in left, f"{text} is still in the page")


def the_policy_is_there(console: Console) -> None:
    """Shows that the checks above would find what they look for."""
    page = console.page
    said = page.run("try { document.body.innerHTML += '<p>'; return 'done' } catch (error) { return error.name }")
    check(said == "TypeError", f"markup from text: {said}")
    page.run("try { const it = document.createElement('script'); it.textContent = 'alert(7)'; document.head.append(it) } catch {}")
    page.run("const it = document.createElement('img'); it.src = arguments[0]; document.body.append(it)", f"{console.admin}/readyz")
    page.until("all three are noticed", "return window.broken.length >= 3")
    check(page.complaints() != [], "the browser says nothing of it")
    check(not page.has_dialog(), "an inline script has run")
    page.run("const it = document.createElement('input'); it.id = 'bare'; document.querySelector('main').append(it)")
    check("label" in str(console.barriers()), "a field without a label is no barrier")


@contextlib.contextmanager
def firewall(work: pathlib.Path) -> Iterator[tuple[str, str]]:
    rule = work / "held.rego"
    rule.write_text(RULE)
    admin = f"127.0.0.1:{free_port()}"
    further = {
        "admin": admin,
        "policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule)]},
        "approvals": {"wait": f"{CLIENT_S_MAX}s", "approvers": [{"id": "ada", "token": TOKEN}]},
    }
    with flags_http(work) as upstream:
        server = {"url": upstream, "pack": "flag-service", "environment": "staging"}
        with bartizan(work, server, further=further) as url:
            yield url, f"http://{admin}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=pathlib.Path, help="write the pictures of the documentation there")
    pictures = parser.parse_args().screenshots
    with tempfile.TemporaryDirectory(prefix="bartizan-console-") as directory:
        work = pathlib.Path(directory)
        os.environ["WORK"] = directory
        try:
            with firewall(work) as (url, admin), browser(work) as page:
                console = Console(page, admin, pictures)
                steps = {
                    "signs in": lambda: sign_in(console),
                    "grants by keyboard while python-2 waits": lambda: grant_by_keyboard(console, url, work),
                    "refuses while typescript-2 waits": lambda: refuse(console, url, work),
                    "markup of a client stays text": lambda: markup_stays_text(console, url),
                    "ended calls": lambda: history(console),
                    "the address of a call": lambda: address_of_a_call(console),
                    "audit": lambda: audit(console, url),
                    "servers": lambda: servers(console),
                    "signs out": lambda: signs_out(console),
                    "the page's policy": lambda: the_policy_is_there(console),
                    "much of everything": lambda: large.usable(page, TOKEN),
                }
                for name, step in steps.items():
                    try:
                        step()
                    except (RuntimeError, OSError) as error:
                        print(f"FAILED  {name}: {error}", flush=True)
                        raise
                    print(f"ok      {name}", flush=True)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"FAILED  {error}\n{logs(work)}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
