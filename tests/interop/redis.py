"""Two firewalls over one Redis, which is killed while a call is held.

Needs the environment of redis.sh, which calls it: BARTIZAN (the binary), REDIS (the server), ROOT (the
checkout). Every process that it starts listens on loopback only and is ended by its own handle.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(os.environ["ROOT"])
BARTIZAN, REDIS = os.environ["BARTIZAN"], os.environ["REDIS"]
TOKEN = "a-token-of-this-run-0123456789abcdef"
KEY = "a-key-of-this-run-0123456789abcdefgh"
PASSWORD = "a-password-of-this-run"
PATIENCE_S = 20
POLICY = """package mcp

hold contains {"code": "second-pair", "message": "a second pair of eyes", "ttl": "5m"} if {
	input.tool.name == "get_flag"
}

limit contains {"code": "lists", "key": input.principal.id, "rate": "40/h", "window": "fixed"} if {
	input.tool.name == "list_flags"
}
"""
# How many calls of `list_flags` that rule lets through.
QUOTA = 40
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "redis.py", "version": "1"},
}

Answer = dict[str, object]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, holds: Callable[[], object]) -> object:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.05)
    raise RuntimeError(f"not in time: {what}")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Process:
    """A process that listens on a port, and is ended with the block."""

    def __init__(self, command: list[str], port: int, log: pathlib.Path) -> None:
        self.command, self.port, self.log = command, port, log

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        until(f"{self.command[0]} on {self.port}", lambda: self.process.poll() is not None or listens(self.port))
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command} ended with {self.process.returncode}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Process":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def order(port: int, *words: str) -> str:
    """The first line of what the store answers to a command of its operator."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        for command in (["AUTH", PASSWORD], list(words)):
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
            connection.sendall(f"*{len(parts)}\r\n{''.join(parts)}".encode())
            line = connection.makefile("rb").readline().decode().strip()
            if line.startswith("-"):
                raise RuntimeError(f"{command[0]}: {line}")
    return line


def own_user() -> list[str]:
    """The user that docs/approvals.md describes: its name and rights."""
    lines = (ROOT / "docs/approvals.md").read_text().splitlines()
    command = next(line for line in lines if "ACL SETUSER" in line)
    return command.replace(">PASSWORD", f">{PASSWORD}").split()[2:]


def certificates(work: pathlib.Path) -> pathlib.Path:
    """A folder with a CA of our own (`ca.pem`), and a certificate of its for `localhost` (`server.pem`, `server.key`)."""
    folder = work / "tls"
    folder.mkdir()
    made = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=CA of a test")
    made("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    made(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", "server.pem", "-days", "2", "-extfile", "names",
    )
    return folder


def tls_store(work: pathlib.Path) -> Process:
    """A store that is spoken to over TLS alone."""
    port, folder = free_port(), certificates(work)
    command = [
        REDIS, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem",
        "--tls-auth-clients", "no", "--requirepass", PASSWORD,
    ]
    return Process(command, port, work / "redis-tls.log")


def over_tls(work: pathlib.Path, pool: concurrent.futures.Executor) -> None:
    with tls_store(work) as store:
        url = {"url": f"rediss://localhost:{store.port}/1"}
        trusted = url | {"ca_file": str(work / "tls" / "ca.pem")}
        with stage(work, store.port, **trusted) as (a, b):
            expect("both have the store", not a.is_degraded() and not b.is_degraded())
            answered_by_the_other(a, b, pool)
        (work / "system").mkdir()
        strangers = url | {"url": f"rediss://127.0.0.1:{store.port}/1", "ca_file": trusted["ca_file"]}
        for what, user in [("a CA that is not the system's", url), ("a certificate of another name", strangers)]:
            folder = work / "system" / str(len(user))
            folder.mkdir()
            with stage(folder, store.port, **user) as (a, _):
                until(f"{what} is not trusted", a.is_degraded)
                expect("nothing is held", not passed(a.call("get_flag", {"key": "search-v2"})))


def redis(work: pathlib.Path) -> Process:
    port, folder = free_port(), work / "redis"
    folder.mkdir()
    command = [
        REDIS, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD,
        "--user", *own_user(),
    ]
    return Process(command, port, work / "redis.log")


class Firewall:
    """A `bartizan run`."""

    def __init__(self, name: str, work: pathlib.Path, upstream: int, store: int, wait: str, user: Answer) -> None:
        self.listen, self.admin, self.state = free_port(), free_port(), work / f"{name}.state"
        policy = work / "held.rego"
        policy.write_text(POLICY)
        config = {
            "listen": f"127.0.0.1:{self.listen}",
            "admin": f"127.0.0.1:{self.admin}",
            "state": str(self.state),
            "policy": {"paths": [str(ROOT / "policies/examples/open"), str(policy)]},
            "servers": {"flags": {"path": "/mcp", "url": f"http://127.0.0.1:{upstream}/mcp"}},
            "approvals": {"wait": wait, "approvers": [{"id": "ada", "token": TOKEN}]},
            "replicas": {"url": f"redis://127.0.0.1:{store}/1", "password": PASSWORD, "keys": KEY} | user,
        }
        file = work / f"{name}.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        self.process = Process([BARTIZAN, "run", "-c", str(file)], self.listen, work / f"{name}.log")

    def __enter__(self) -> "Firewall":
        self.process.start()
        until(f"{self.process.log.name}: ready", self.is_ready)
        return self

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/readyz")[0] == 200
        return False

    def __exit__(self, *error: object) -> None:
        self.process.__exit__(*error)

    def call(self, tool: str, arguments: dict[str, object], state: str | None = None) -> Answer:
        """The answer to one call: of the modern era, over HTTP."""
        params = {"name": tool, "arguments": arguments, "_meta": META, **({"requestState": state} if state else {})}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        headers = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.listen, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/mcp", body, headers)
            text = connection.getresponse().read().decode()
        data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return json.loads(data[-1] if data else text)

    def ask(self, method: str, path: str, body: Answer | None = None) -> tuple[int, Answer]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body else None, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def pending(self) -> list[Answer]:
        return self.ask("GET", "/approvals")[1]["approvals"]

    def one_pending(self) -> Answer:
        found = until("a held call", self.pending)
        if len(found) != 1:
            raise RuntimeError(f"held are {found}")
        return found[0]

    def answer(self, verdict: str, hold: Answer) -> int:
        body = {"reason": "seen by a test"} | ({"digest": hold["digest"]} if verdict == "grant" else {})
        return self.ask("POST", f"/approvals/{hold['id']}/{verdict}", body)[0]

    def is_degraded(self) -> bool:
        status, report = self.ask("GET", "/readyz")
        if status != 200 or not report["ready"]:
            raise RuntimeError(f"not ready: {report}")
        return "replicas" in report.get("degraded", {})

    def notes(self) -> list[str]:
        """What the journal says of the store."""
        lines = [line for file in sorted((self.state / "journal").glob("*")) for line in file.read_text().splitlines()]
        return [line for line in lines if '"store"' in line]


def passed(answer: Answer) -> bool:
    result = answer.get("result")
    return isinstance(result, dict) and not result.get("isError") and "search" in json.dumps(result)


def expect(what: str, is_so: bool, shown: object = "") -> None:
    if not is_so:
        raise RuntimeError(f"{what}: {shown}")


def answered_by_the_other(a: Firewall, b: Firewall, pool: concurrent.futures.Executor) -> None:
    waiting = pool.submit(a.call, "get_flag", {"key": "search-v2"})
    hold = b.one_pending()
    expect("the same call is held on both", a.one_pending()["id"] == hold["id"])
    expect("granted on the other one", b.answer("grant", hold) == 200)
    answer = waiting.result(PATIENCE_S)
    expect("the call passes", passed(answer), answer)


def spent_once(a: Firewall, b: Firewall, pool: concurrent.futures.Executor) -> None:
    """Eight calls with the same bytes at once, four on each: one hold, and one passes for its grant."""
    waiting = [pool.submit(which.call, "get_flag", {"key": "search-v2"}) for which in [a, b] * 4]
    first = a.one_pending()
    until("all wait", lambda: a.one_pending()["waiting"] + b.one_pending()["waiting"] == 8)
    expect("granted", a.answer("grant", first) == 200)
    again = until("a new hold", lambda: [one for one in b.pending() if one["id"] != first["id"]])
    expect("the others share one", len(again) == 1, again)
    until("one passes", lambda: sum(one.done() for one in waiting) == 1)
    until("the others wait", lambda: a.one_pending()["waiting"] + b.one_pending()["waiting"] == 7)
    expect("refused", b.answer("refuse", again[0]) == 200)
    answers = [one.result(PATIENCE_S) for one in waiting]
    expect("one has passed", sum(map(passed, answers)) == 1, answers)


class Trouble:
    """How a store can fail, and how it is mended."""

    def __init__(self, name: str, begin: Callable[[], object], end: Callable[[], object], note: str = "lost") -> None:
        self.name, self.begin, self.end, self.note = name, begin, end, note


def troubles(store: Process) -> list[Trouble]:
    tell = lambda *words: lambda: order(store.port, *words)
    nowhere = str(free_port())
    return [
        Trouble("killed", store.kill, store.start),
        Trouble("full", tell("CONFIG", "SET", "maxmemory", "1"), tell("CONFIG", "SET", "maxmemory", "0"), "OOM"),
        Trouble(
            "a copy that may only be read",
            tell("REPLICAOF", "127.0.0.1", nowhere), tell("REPLICAOF", "NO", "ONE"), "READONLY",
        ),
        Trouble(
            "one whose user may run no script",
            tell("ACL", "SETUSER", "default", "-eval", "-evalsha"), tell("ACL", "SETUSER", "default", "+@all"), "NOPERM",
        ),
        Trouble(
            "hung", lambda: store.process.send_signal(signal.SIGSTOP), lambda: store.process.send_signal(signal.SIGCONT),
            "in time",
        ),
    ]


def away(a: Firewall, b: Firewall, trouble: Trouble, pool: concurrent.futures.Executor) -> None:
    told = [len(firewall.notes()) for firewall in (a, b)]
    waiting = pool.submit(a.call, "get_flag", {"key": "search-v2", "environment": trouble.name})
    hold = b.one_pending()
    trouble.begin()
    try:
        until("both say so", lambda: a.is_degraded() and b.is_degraded())
        expect("nothing is granted", b.answer("grant", hold) == 503)
        new = a.call("get_flag", {"key": "checkout"})
        expect("no new call is held", not passed(new), new)
        listed = a.call("list_flags", {})
        expect("other calls pass", "result" in listed, listed)
        expect("the held call waits", not waiting.done())
    finally:
        trouble.end()
    until("both work again", lambda: not a.is_degraded() and not b.is_degraded())
    expect("granted", until("granted", lambda: b.answer("grant", hold) == 200) is True)
    waiting.result(PATIENCE_S)
    for firewall, before in zip((a, b), told):
        notes = firewall.notes()[before:]
        expect("lost and back are recorded", len(notes) == 2 and "works again" in notes[1], notes)
        expect("the journal says why", "lost" in notes[0] and trouble.note in notes[0], notes[0])


def flushed(a: Firewall, b: Firewall, store: Process, pool: concurrent.futures.Executor) -> None:
    """A store that has forgotten its scripts is given them again: nobody notices."""
    told = len(a.notes())
    order(store.port, "SCRIPT", "FLUSH")
    answered_by_the_other(a, b, pool)
    expect("nothing is recorded", len(a.notes()) == told, a.notes())


def gone_on(a: Firewall, b: Firewall) -> None:
    """A call that one firewall has held, and whose client was told to call again, goes on at the other."""
    told = a.call("get_flag", {"key": "search-v2"})["result"]
    expect("told to call again", told.get("resultType") == "input_required", told)
    hold = b.one_pending()
    expect("granted", a.answer("grant", hold) == 200)
    until("the other knows", lambda: b.ask("GET", f"/approvals/{hold['id']}")[1]["approval"]["state"] == "granted")
    answer = b.call("get_flag", {"key": "search-v2"}, told["requestState"])
    expect("the call passes", passed(answer), answer)
    late = a.call("get_flag", {"key": "search-v2"}, told["requestState"])
    expect("once", not passed(late), late)


def counted_together(a: Firewall, b: Firewall, store: Process, pool: concurrent.futures.Executor) -> None:
    """Sixteen clients, half at each firewall, get the quota together; each firewall half of it alone."""

    def let_through(which: list[Firewall], calls: int) -> int:
        one = lambda firewall: "result" in firewall.call("list_flags", {})
        return sum(pool.map(one, which * (calls // len(which))))

    through = let_through([a, b], 2 * QUOTA)
    expect(f"of {2 * QUOTA} calls the quota passes", through == QUOTA, through)
    refused = b.call("list_flags", {})
    expect("the refusal says when", refused["error"]["data"]["retry_after_ms"] > 0, refused)
    store.kill()
    until("both say so", lambda: a.is_degraded() and b.is_degraded())
    alone = [let_through([which], QUOTA) for which in (a, b)]
    expect("alone none has more than half, with what it let through before", max(alone) <= QUOTA // 2, alone)
    store.start()
    until("both work again", lambda: not a.is_degraded() and not b.is_degraded())
    expect("what was counted together is still counted", let_through([a, b], 16) == 0)


def not_started(work: pathlib.Path, store: int) -> None:
    """Nothing is served under a user that the store does not let in, or that may not give its commands."""
    order(store, "ACL", "SETUSER", "narrow", "on", f">{PASSWORD}", "~*", "+@all", "-zadd")
    for user, why in [
        ({"password": "another-password"}, "it refuses the user or the password"),
        ({"user": "nobody"}, "it refuses the user or the password"),
        ({"user": "narrow"}, "the user may not give all commands"),
    ]:
        refused = Firewall("refused", work, free_port(), store, "1s", user).process
        run = subprocess.run(refused.command, capture_output=True, text=True, timeout=PATIENCE_S)
        expect(f"{user} is refused", run.returncode != 0 and why in run.stderr, run.stderr)


@contextlib.contextmanager
def stage(
    work: pathlib.Path, store: int, wait: str = "30s", **user: object
) -> Iterator[tuple[Firewall, Firewall]]:
    """Two firewalls in front of a flag service, over the store, of which they are this user."""
    upstream = free_port()
    flags = Process([BARTIZAN, "demo", "--server-only", "--port", str(upstream)], upstream, work / "flags.log")
    a, b = (Firewall(name, work, upstream, store, wait, user) for name in "ab")
    with flags, a, b:
        yield a, b


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bartizan-redis-") as directory:
        work = pathlib.Path(directory)
        try:
            with redis(work) as store, concurrent.futures.ThreadPoolExecutor(16) as pool:
                with stage(work, store.port) as (a, b):
                    for name, play in [
                        ("a call on one is granted on the other", lambda: answered_by_the_other(a, b, pool)),
                        ("one of eight equal calls passes for a grant", lambda: spent_once(a, b, pool)),
                        ("a store that has forgotten its scripts gets them", lambda: flushed(a, b, store, pool)),
                    ]:
                        play()
                        print(f"ok      {name}", flush=True)
                    for trouble in troubles(store):
                        away(a, b, trouble, pool)
                        print(f"ok      while a call waits, the store is {trouble.name}", flush=True)
                (work / "again").mkdir()
                with stage(work / "again", store.port, wait="300ms", user=own_user()[0]) as (a, b):
                    for name, play in [
                        ("a call that one has held goes on at the other", lambda: gone_on(a, b)),
                        ("limits are counted together", lambda: counted_together(a, b, store, pool)),
                    ]:
                        play()
                        print(f"ok      {name}", flush=True)
                (work / "secure").mkdir()
                over_tls(work / "secure", pool)
                print("ok      over TLS, with a CA of its own and no other", flush=True)
                (work / "refused").mkdir()
                not_started(work / "refused", store.port)
                print("ok      no start with another password, or with too few rights", flush=True)
            for state in work.glob("**/*.state"):
                for command in (
                    [BARTIZAN, "audit", "verify", "--state", str(state)],
                    [sys.executable, str(ROOT / "tests/interop/verify_journal.py"), str(state / "journal")],
                ):
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError, concurrent.futures.TimeoutError) as error:
            for log in sorted(work.rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3_000:]}")
            print(f"FAILED  {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
