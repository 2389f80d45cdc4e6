"""What the client does: one call to see whether the answer is right, and wrk for the figures."""

import http.client
import itertools
import json
import os
import pathlib
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from targets import HERE, TEXT, WORK, Target

BODIES = 20_000
# Each run of wrk, and each probe, counts from another number on: no call is ever sent again.
NUMBERS = itertools.count(10**9, 10**7)
Json = dict[str, Any]
MODERN = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "get_flag",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "compare", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
SESSION_REVISION = "2025-06-18"


def call(arguments_bytes: int, tool: str = "get_flag", meta: Json | None = META) -> str:
    """The template of a tools/call whose arguments have so many bytes; @N@ stands for ten digits."""
    users = [{"id": f"u-{n:04}", "country": "DK", "plan": "pro"} for n in range(2)]
    arguments: Json = {"key": "checkout-redesign-@N@", "environment": "staging"}
    if arguments_bytes >= 300:
        arguments["context"] = {"users": users}
    arguments["note"] = ""
    bare = len(json.dumps(arguments, separators=(",", ":"))) + 7
    arguments["note"] = "x" * max(0, arguments_bytes - bare)
    params: Json = {"name": tool, "arguments": arguments}
    if meta is not None:
        params["_meta"] = meta
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    encoded = json.dumps(message, separators=(",", ":"))
    # In a session, ids of calls that are open at once must differ.
    return encoded if meta else encoded.replace('"id":1,', '"id":@N@,', 1)


@dataclass
class Work:
    """What the client sends, over and over, and what it must get."""

    template: str
    path: str = "/mcp"
    headers: dict[str, str] = field(default_factory=lambda: dict(MODERN))
    bodies: int = BODIES

    def environment(self) -> dict[str, str]:
        file = WORK / f"body-{abs(hash(self.template))}.json"
        file.write_text(self.template)
        lines = "\n".join(f"{name}: {value}" for name, value in self.headers.items())
        numbers = {"FIRST": str(next(NUMBERS)), "BODIES": str(self.bodies)}
        return {"TEMPLATE": str(file), "HEADERS": lines, "TARGET": self.path} | numbers


def posted(port: int, path: str, body: str, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """The head and body of the answer to one POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body.encode(), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status not in (200, 201, 202):
        raise RuntimeError(f"port {port} answered {answer.status}: {content[:300]!r}")
    return {name.lower(): value for name, value in answer.getheaders()}, content


def message_in(head: dict[str, str], content: bytes) -> Json:
    """The message in an answer, be it JSON or an event."""
    if head.get("content-type", "").startswith("text/event-stream"):
        data = [line[5:] for line in content.decode().splitlines() if line.startswith("data:")]
        messages = [json.loads(line) for line in data if line.strip()]
        return dict(next(message for message in messages if "id" in message))
    return dict(json.loads(content))


class NoneAnswered(RuntimeError):
    """Within a round no call was answered: the round was too short."""


def probe(target: Target, work: Work) -> None:
    """Fails unless the target answers the call as the server does."""
    body = work.template.replace("@N@", str(next(NUMBERS)))
    message = message_in(*posted(target.port, work.path, body, work.headers))
    content = message.get("result", {}).get("content", [{}])
    if not content[0].get("text", "").endswith(TEXT):
        raise RuntimeError(f"{target.name} answered {json.dumps(message)[:300]}")


def wrk(target: Target, work: Work, connections: int, seconds: float, check: bool = False) -> Json:
    """One round of wrk; fails if a request did. With `check`, every answer is looked at."""
    command = [
        os.environ["WRK"], "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "--latency",
        "-s", str(HERE / "call.lua"), f"http://127.0.0.1:{target.port}",
    ]
    environment = os.environ | work.environment() | ({"CHECK": TEXT} if check else {})
    before = target.cpu_s()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 120, env=environment)
    used = target.cpu_s() - before
    found: Json = json.loads(done.stdout.splitlines()[-1])
    if not found["errors"] and not found["requests"]:
        raise NoneAnswered(f"{target.name} answered nothing within {seconds:g} s")
    if found["errors"]:
        raise RuntimeError(f"{target.name} at {connections} connections: {found}")
    found["rate"] = round(found["requests"] / (found["us"] / 1e6), 1)
    found["cpu_us"] = round(used * 1e6 / found["requests"], 1)
    return found


def session(port: int, path: str, more: dict[str, str], tool: str | None) -> tuple[dict[str, str], str]:
    """Begins a session with `more` headers; the headers of its requests, and how the peer calls the tool.

    Lists the tools to find that out, unless `tool` says it.
    """
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"} | more
    params = {
        "protocolVersion": SESSION_REVISION, "capabilities": {},
        "clientInfo": {"name": "compare", "version": "1"},
    }
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    head, content = posted(port, path, json.dumps(hello), headers)
    agreed = message_in(head, content)["result"]["protocolVersion"]
    headers["mcp-protocol-version"] = agreed
    if "mcp-session-id" in head:
        headers["mcp-session-id"] = head["mcp-session-id"]
    posted(port, path, json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}), headers)
    if tool is not None:
        return headers, tool
    listed = message_in(*posted(port, path, '{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}', headers))
    names = [one["name"] for one in listed["result"]["tools"]]
    found = next((name for name in names if name.replace("-", "_").endswith("get_flag")), None)
    if found is None:
        raise RuntimeError(f"port {port}: no tool get_flag among {names}")
    return headers, found


BUSY_MAX = 0.25
"""Processors that other programs may keep busy while figures are taken."""


def busy() -> float:
    """How many processors other programs keep busy, over two seconds. The load average of the system
    would count what ran minutes ago, an earlier subset for one."""

    def ticks() -> tuple[int, int]:
        line = pathlib.Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, idle, wait, *_ = map(int, line.split()[1:])
        return user + nice + system, idle + wait

    used, idle = ticks()
    time.sleep(2)
    used, idle = (now - before for now, before in zip(ticks(), (used, idle), strict=True))
    return (os.cpu_count() or 1) * used / max(used + idle, 1)


def machine() -> Json:
    """What the figures depend on."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processors": os.cpu_count(),
        "model": models[0] if models else "unknown",
        "kernel": os.uname().release,
        "busy_processors": round(busy(), 2),
    }
