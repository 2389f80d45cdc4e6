"""Calls of official clients wait for approval, are granted by `bartizan approvals grant`, and pass.

Needs the environment of run.sh, which calls it. A rule holds one tool, and the first hold is granted
while the client waits. With a long wait the answer is held open. With a short one a client of the
legacy era is told to call again, and a later call finds the hold; a client of 2026-07-28 is answered
with a `requestState` and calls again by itself. One call has been granted, so one passes. So over
HTTP, on the pipe of `wrap`, and over both bridges between them.

Clients with a time-out of their own that is over before the grant: which of them go on because of the
progress that they get, and what becomes of the hold of those that do not. And clients of 2026-07-28
that open pages, where `approvals.elicit` is set. And the Inspector, which waits as a task where
`approvals.tasks` is set.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import harness
from harness import BARTIZAN, ROOT, bartizan, everything_stdio, flags_http, free_port, logs, play, verify

TOKEN = "a-token-of-this-run-0123456789abcdef"
RULE = """package mcp

hold contains {"code": "second-pair", "message": "a second pair of eyes", "ttl": "5m"} if {
	input.tool.name in {"get_flag", "echo"}
}
"""
CLIENTS = [
    ("typescript-1", "legacy"),
    ("typescript-2", "auto"),
    ("typescript-2", "legacy"),
    ("python-2", "auto"),
    ("python-2", "legacy"),
    ("rmcp-3", "auto"),
    ("rmcp-3", "legacy"),
]
# rmcp ends where the answer to its probe comes after it has given that up, and node starts slowly on a
# busy machine.
LEFT_OUT = {("rmcp-3", "auto", "over stdio")}
harness.CLIENTS["rmcp-3"] = ([os.environ["RMCP_CLIENT"]], ["auto", "legacy"])
# How long an answer is held open, and after how long the first hold is granted, seconds.
LONG, SHORT = ("20s", 1.0), ("300ms", 0.5)
# A client's own time-out, ms, and the grant, which comes later.
TIMEOUT_MS, LATE = 1_000, ("20s", 3.0)
# Calls of a client that is told to call again.
AGAIN = 20
PATIENCE_S = 30
DESK = "https://desk.example"
AT_ONCE = 3

# How approvers reach the firewall: arguments of `bartizan approvals`.
Desk = list[str]
# Says what is wrong, with a directory of its own.
Check = Callable[[pathlib.Path], list[str]]


def approvals(desk: Desk, *arguments: str) -> str:
    command = [BARTIZAN, "approvals", *arguments, *desk]
    environment = {**os.environ, "BARTIZAN_APPROVER_TOKEN": TOKEN}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def holds(desk: Desk, state: str) -> list[dict[str, object]]:
    return json.loads(approvals(desk, "list", "--json", "--state", state))["approvals"]


def grant_first(desk: Desk, after: float, faults: list[str]) -> None:
    """Grants the first hold that appears, a while later; its client may be gone by then."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            if waiting := holds(desk, "pending"):
                break
        except RuntimeError:
            pass  # The firewall on a pipe starts with its client.
        if time.monotonic() > until:
            faults.append("nothing was held")
            return
        time.sleep(0.1)
    time.sleep(after)
    with contextlib.suppress(RuntimeError):
        approvals(desk, "grant", str(waiting[0]["id"]), "--reason", "seen by a test")


def steps_of(seen: list[object]) -> list[dict[str, object]]:
    return [one for one in seen if isinstance(one, dict) and "step" in one]


def answered(step: dict[str, object]) -> bool:
    """Whether the server has answered it."""
    return "search-v2" in json.dumps(step.get("result"))


def passed_once(seen: list[object]) -> list[str]:
    """What is not as it should be."""
    steps = steps_of(seen)
    told = [at for at, step in enumerate(steps) if "Approval pending" in json.dumps(step)]
    passed = [at for at, step in enumerate(steps) if answered(step)]
    if len(passed) != 1:
        return [f"{len(passed)} calls passed: {steps}"]
    if len(steps) > 1 and (0 not in told or len(told) != len(steps) - 1):
        return [f"the other calls were not told to call again: {steps}"]
    return []


def scenario(work: pathlib.Path, tool: str, calls: int, **options: object) -> str:
    """Writes the scenario of so many equal calls; its path."""
    argument = {"get_flag": {"key": "search-v2"}, "echo": {"message": "search-v2"}}[tool]
    opens = bool(options.pop("opens", False))
    step = {"method": "tools/call", "params": {"name": tool, "arguments": argument}, **options}
    steps = [{"name": str(number), **step} for number in range(calls)]
    file = work / "scenario.json"
    file.write_text(json.dumps({"about": "See holds.py.", "opens": opens, "steps": steps}))
    return str(file)


# A way through the firewall: the target of the client, and how approvers reach it.
Way = contextlib.AbstractContextManager[tuple[list[str], Desk]]


def settings(wait: str) -> dict[str, object]:
    return {"wait": wait, "progress": "200ms", "approvers": [{"id": "ada", "token": TOKEN}]}


def rule(work: pathlib.Path) -> pathlib.Path:
    file = work / "held.rego"
    file.write_text(RULE)
    return file


@contextlib.contextmanager
def over_http(work: pathlib.Path, section: dict[str, object]) -> Iterator[tuple[list[str], Desk]]:
    further = {"policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule(work))]}, "approvals": section}
    with flags_http(work) as upstream, bartizan(work, {"url": upstream}, further=further) as url:
        yield ["http", url], ["-c", str(work / "bartizan.yaml")]


@contextlib.contextmanager
def http_to_stdio(work: pathlib.Path, section: dict[str, object]) -> Iterator[tuple[list[str], Desk]]:
    further = {"policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule(work))]}, "approvals": section}
    with bartizan(work, {"command": everything_stdio()}, further=further) as url:
        yield ["http", url], ["-c", str(work / "bartizan.yaml")]


def wrap(work: pathlib.Path, section: dict[str, object], server: list[str]) -> tuple[list[str], Desk]:
    file = work / "approvals.yaml"
    file.write_text(json.dumps(section))  # JSON is YAML
    admin = f"127.0.0.1:{free_port()}"
    policies = ["--policy", str(ROOT / "policies/examples/open"), "--policy", str(rule(work))]
    command = [BARTIZAN, "wrap", "--approvals", str(file), "--admin", admin, "--state", str(work / "state")]
    return ["stdio", *command, *policies, *server], ["--admin", f"http://{admin}"]


@contextlib.contextmanager
def over_stdio(work: pathlib.Path, section: dict[str, object]) -> Iterator[tuple[list[str], Desk]]:
    yield wrap(work, section, ["--", *everything_stdio()])
    verify(work / "state")


@contextlib.contextmanager
def stdio_to_http(work: pathlib.Path, section: dict[str, object]) -> Iterator[tuple[list[str], Desk]]:
    with flags_http(work) as upstream:
        yield wrap(work, section, ["--url", upstream])
    verify(work / "state")


# The way, its tool, and whether its server knows the modern era.
WAYS: dict[str, tuple[Callable[[pathlib.Path, dict[str, object]], Way], str, bool]] = {
    "over HTTP": (over_http, "get_flag", True),
    "over stdio": (over_stdio, "echo", False),
    "from HTTP to stdio": (http_to_stdio, "echo", False),
    "from stdio to HTTP": (stdio_to_http, "get_flag", True),
}


def waits(client: str, era: str, way: str, timing: tuple[str, float], work: pathlib.Path) -> list[str]:
    """A call waits, and passes once it is granted."""
    wait, after = timing
    through, tool, modern = WAYS[way]
    told = timing == SHORT and not (era == "auto" and modern)
    faults: list[str] = []
    with through(work, settings(wait)) as (target, desk):
        granting = threading.Thread(target=grant_first, args=(desk, after, faults))
        granting.start()
        seen = play(client, era, scenario(work, tool, AGAIN if told else 1), target, work)
        granting.join()
    return faults or passed_once(seen)


def gives_up(client: str, era: str, reset: bool, work: pathlib.Path) -> str:
    """What a client does whose own time-out is over before the grant."""
    wait, after = LATE
    faults: list[str] = []
    with over_http(work, settings(wait)) as (target, desk):
        granting = threading.Thread(target=grant_first, args=(desk, after, faults))
        granting.start()
        options = {"timeout": TIMEOUT_MS, "reset": reset, "progress": reset}
        seen = play(client, era, scenario(work, "get_flag", 1, **options), target, work)
        granting.join()
        [hold] = holds(desk, "all")
    if faults:
        return "; ".join(faults)
    [step] = steps_of(seen)
    return f"{'passes' if answered(step) else 'gives up'}, the hold is {hold['state']}"


# Whether the progress of a held call keeps a client waiting that asked for that.
GIVES_UP = {
    ("typescript-1", "legacy"): {True: "passes, the hold is spent", False: "gives up, the hold is cancelled"},
    ("typescript-2", "auto"): {True: "passes, the hold is spent", False: "gives up, the hold is cancelled"},
    ("typescript-2", "legacy"): {True: "passes, the hold is spent", False: "gives up, the hold is cancelled"},
    ("python-2", "auto"): {True: "gives up, the hold is cancelled", False: "gives up, the hold is cancelled"},
    ("python-2", "legacy"): {True: "gives up, the hold is cancelled", False: "gives up, the hold is cancelled"},
    ("rmcp-3", "auto"): {True: "passes, the hold is spent", False: "gives up, the hold is cancelled"},
    ("rmcp-3", "legacy"): {True: "passes, the hold is spent", False: "gives up, the hold is cancelled"},
}


def opens(client: str, work: pathlib.Path) -> list[str]:
    """A client of 2026-07-28 is asked to open the page of its held call, once, and waits on."""
    wait, after = LONG
    faults: list[str] = []
    section = {**settings(wait), "public_url": DESK, "elicit": True}
    with over_http(work, section) as (target, desk):
        granting = threading.Thread(target=grant_first, args=(desk, after, faults))
        granting.start()
        seen = play(client, "auto", scenario(work, "get_flag", 1, opens=True), target, work)
        granting.join()
        [hold] = holds(desk, "all")
    [step] = steps_of(seen)
    asked = [one["params"]["url"] for one in step.get("asked", []) if "url" in one["params"]]
    if asked != [f"{DESK}/console#hold={hold['id']}"]:
        faults.append(f"was asked to open {asked}")
    return faults or passed_once(seen)


def polls(work: pathlib.Path) -> list[str]:
    """The Inspector, which declares the tasks extension, gets a task for its held call, and polls."""
    wait, after = LONG
    faults: list[str] = []
    with over_http(work, {**settings(wait), "tasks": True}) as (target, desk):
        granting = threading.Thread(target=grant_first, args=(desk, after, faults))
        granting.start()
        [step] = steps_of(play("inspector", "modern", scenario(work, "get_flag", 1), target, work))
        granting.join()
        [hold] = holds(desk, "all")
        tail = [BARTIZAN, "audit", "tail", "--state", str(work / "state"), "--event", "notice"]
        notices = subprocess.run(tail, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    if step["exit"] or "search-v2" not in json.dumps(step["said"]):
        faults.append(f"the call has not passed: {step}")
    if hold["state"] != "spent":
        faults.append(f"the hold is {hold['state']}")
    if '"tasks/get"' not in notices:
        faults.append("it has not polled")
    return faults


def wrong(check: Check) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="bartizan-holds-") as directory:
        work = pathlib.Path(directory)
        try:
            return check(work)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            return [f"{error}\n{logs(work)}"]


def gives_up_as(client: str, era: str, reset: bool, expected: str, work: pathlib.Path) -> list[str]:
    found = gives_up(client, era, reset, work)
    return [] if found == expected else [found]


def cases() -> Iterator[tuple[str, Check]]:
    for way in WAYS:
        for timing in (LONG, SHORT):
            for client, era in CLIENTS:
                if (client, era, way) in LEFT_OUT:
                    continue
                name = f"{client} ({era}) {way}, an answer is held open for {timing[0]}"
                yield name, partial(waits, client, era, way, timing)
    for (client, era), expected in GIVES_UP.items():
        for reset, what in expected.items():
            anew = " that progress begins anew" if reset else ""
            name = f"{client} ({era}) with a time-out of {TIMEOUT_MS} ms{anew}: {what}"
            yield name, partial(gives_up_as, client, era, reset, what)
    for client in ("typescript-2", "rmcp-3"):
        yield f"{client} opens the page of its held call", partial(opens, client)
    yield "inspector waits as a task for its held call", polls


def main() -> int:
    """Runs the cases whose name holds the argument, if there is one."""
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    bad = 0
    # They mostly wait.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [(name, pool.submit(wrong, check)) for name, check in cases() if only in name]
        for name, found in running:
            problems = found.result()
            print(f"{'FAILED' if problems else 'ok':<7} {name}", *problems, flush=True)
            bad += bool(problems)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
