"""A firewall, the server behind it and the agents before it, each a process of its own or a thread."""

import contextlib
import http.client
import http.server
import json
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

BARTIZAN = os.environ["BARTIZAN"]
PATIENCE = 60
POLICY = """package mcp

permit contains {"code": "open", "message": "all is open"} if true
"""
REFUSED = -31003


class Server(http.server.BaseHTTPRequestHandler):
    """Answers each call, and keeps the ids of all that it received."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    received = []
    lock = threading.Lock()

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.lock:
            self.received.append(message.get("id"))
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {"content": [], "resultType": "complete"}}
        self.send_json(answer)

    def do_GET(self):
        with self.lock:
            received = list(self.received)
            if self.path == "/take":
                self.received.clear()
        self.send_json(received)

    def send_json(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Connections end as they do when a firewall is killed."""


@contextlib.contextmanager
def server():
    """A server in a process of its own; gives its port."""
    listener = Listener(("127.0.0.1", 0), Server)
    process = multiprocessing.get_context("fork").Process(target=listener.serve_forever, daemon=True)
    process.start()
    port = listener.server_port
    listener.socket.close()
    until("the server", lambda: get(port, "/received")[0] == 200)
    try:
        yield port
    finally:
        process.kill()
        process.join()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def until(what, holds, patience=PATIENCE):
    end = time.monotonic() + patience
    while not (found := holds()):
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {patience} s")
        time.sleep(0.005)
    return found


class Firewall:
    """One run of the firewall. `environment` is added to its own."""

    def __init__(self, work, state, upstream, durability, environment=None, drain=25):
        work = pathlib.Path(work)
        (work / "policy").mkdir(exist_ok=True)
        (work / "policy/rules.rego").write_text(POLICY)
        config = work / "bartizan.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {state}\n"
            f"policy: {{paths: [{work}/policy]}}\naudit: {{durability: {durability}, segment_bytes: 64KiB}}\n"
            f"limits: {{drain: {drain}s}}\n"
            f"servers:\n  flags: {{path: /mcp, url: 'http://127.0.0.1:{upstream}/mcp'}}\n"
        )
        self.log = (work / "bartizan.log").open("wb")
        command = [BARTIZAN, "run", "--config", str(config)]
        environment = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, env=environment
        )
        self.listen, self.admin = (int(port) for port in until("its listeners", self.ports))
        until("the firewall", lambda: self.running() and get(self.admin, "/readyz")[0] == 200)

    def said(self):
        """What it has logged."""
        return pathlib.Path(self.log.name).read_text()

    def running(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the firewall ended with {self.process.returncode}: {self.said()[-2000:]}")
        return True

    def ports(self):
        """The ports that the system gave it, once it says them."""
        found = self.running() and re.search(r"address=\S+?:(\d+) admin=\S+?:(\d+)", self.said())
        return found and found.groups()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.log.close()


class Agent:
    """A connection of an agent."""

    def __init__(self, listen):
        self.connection = http.client.HTTPConnection("127.0.0.1", listen, timeout=PATIENCE)

    def call(self, name, tool="change"):
        """Calls a tool with `name` as the id of the request. Gives the status and the message."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": {}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params}
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        self.connection.request("POST", "/mcp", json.dumps(body), headers)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read() or "null")


def journal(state):
    """The whole lines of the journal, in order."""
    for segment in sorted(pathlib.Path(state, "journal").glob("journal-*.ndjson")):
        for line in segment.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def verify(state):
    """Has the program verify the journal in `state`."""
    command = [BARTIZAN, "audit", "verify", "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"audit verify: {done.stdout}{done.stderr}")
    return done.stdout


def settled_once(state):
    """Raises unless each intent of the journal has exactly one outcome. Gives their number."""
    intents, outcomes = {}, {}
    for record in journal(state):
        of = {"intent": intents, "outcome": outcomes}.get(record["event"])
        if of is not None:
            of[record["call"]] = of.get(record["call"], 0) + 1
    if intents != outcomes:
        wrong = [(call, intents.get(call), outcomes.get(call)) for call in intents | outcomes]
        wrong = [it for it in wrong if it[1] != it[2]]
        raise SystemExit(f"{len(wrong)} calls without one outcome for each intent, such as {wrong[:3]}")
    return len(intents)
