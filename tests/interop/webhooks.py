"""A held call is told to a receiver that verifies with the library of Standard Webhooks, and is granted
by the link in the message.

Needs the environment of run.sh, which calls it. The receiver is away at first: it answers 503 once, so
the message comes twice under one id. The link is opened, which must do nothing, and then its form is
sent, twice: the second time must do nothing, either.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from harness import PATIENCE_S, ROOT, bartizan, flags_http, logs, play, until
from holds import RULE, TOKEN, holds, scenario

PUBLIC = "https://approvals.example.com"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_AfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what verifies, and complains of all else."""

    got: list[tuple[str, dict[str, object]]] = []
    faults: list[str] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            Webhook(SECRET).verify(body, headers)
            self.got.append((headers["webhook-id"], json.loads(body)))
        except WebhookVerificationError as error:
            self.faults.append(f"not verified: {error}")
        for secret, changed in ((OTHER, body), (SECRET, body + b" ")):
            try:
                Webhook(secret).verify(changed, headers)
                self.faults.append("the library verifies anything")
            except WebhookVerificationError:
                pass
        self.send_response(503 if len(self.got) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ask(url: str, form: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, form, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def told(number: int) -> tuple[str, dict[str, object]]:
    """The message with this number, from 0."""
    until(f"message {number}", lambda: len(Receiver.got) > number or bool(Receiver.faults), 0.05)
    if len(Receiver.got) <= number:
        raise RuntimeError(f"message {number} never came; {Receiver.faults}")
    return Receiver.got[number]


def follow(work: pathlib.Path) -> None:
    """Grants the held call by its link, and looks at what is told."""
    faults = Receiver.faults
    (first, message), (second, again) = told(0), told(1)
    if first != second or message != again:
        faults.append(f"sent again as something else: {first} {second}")
    admin = "http://" + json.loads((work / "bartizan.yaml").read_text())["admin"]
    link = str(message["data"]["links"]["grant"]).replace(PUBLIC, admin)
    status, page = ask(link)
    if status != 200 or "search-v2" not in page or len(holds(["--admin", admin], "pending")) != 1:
        faults.append(f"the link alone: {status} {page}")
    form = urllib.parse.urlencode({"reason": "seen by a test"}).encode()
    for expected in (200, 409):
        status, page = ask(link, form)
        if status != expected:
            faults.append(f"{status} instead of {expected}: {page}")
    ended, message = told(2)
    hold = message["data"]["hold"]
    if message["type"] != "approval.ended" or ended == first or hold["answers"][0]["by"] != "chat":
        faults.append(f"the end: {ended} {message}")


def granting(work: pathlib.Path) -> None:
    try:
        follow(work)
    except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        Receiver.faults.append(repr(error))


def main() -> int:
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="bartizan-webhooks-") as directory:
        work = pathlib.Path(directory)
        rule = work / "held.rego"
        rule.write_text(RULE)
        hook = {
            "name": "receiver",
            "url": f"http://127.0.0.1:{receiver.server_port}/",
            "secret": SECRET,
            "callback": {"approver": "chat"},
        }
        further = {
            "policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule)]},
            "approvals": {
                "wait": "20s",
                "public_url": PUBLIC,
                "approvers": [{"id": "ada", "token": TOKEN}],
                "webhooks": [hook],
            },
        }
        try:
            with flags_http(work) as upstream, bartizan(work, {"url": upstream}, further=further) as url:
                thread = threading.Thread(target=granting, args=(work,))
                thread.start()
                seen = play("python-2", "auto", scenario(work, "get_flag", 1), ["http", url], work)
                thread.join()
            steps = [json.dumps(one) for one in seen if "step" in one]
            if len(steps) != 1 or "search-v2" not in steps[0]:
                Receiver.faults.append(f"the call did not pass: {steps}")
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            Receiver.faults.append(f"{error}\n{logs(work)}")
    print(f"{'FAILED' if Receiver.faults else 'ok':<7} the library of Standard Webhooks verifies, and a link grants")
    print(*Receiver.faults, sep="\n")
    return 1 if Receiver.faults else 0


if __name__ == "__main__":
    sys.exit(main())
