"""Calls of official clients wait for approval, are granted by `bartizan approvals grant`, and pass.

Needs the environment of run.sh, which calls it. A rule holds one tool, and the first hold is granted
while the client waits. With a long wait the answer is held open. With a short one a client of the
legacy era is told to call again, and a later call finds the hold; a client of 2026-07-28 is answered
with a `requestState` and calls again by itself. One call has been granted, so one passes.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from harness import BARTIZAN, INTEROP, ROOT, bartizan, flags_http, logs, play

TOKEN = "a-token-of-this-run-0123456789abcdef"
RULE = """package mcp

hold contains {"code": "second-pair", "message": "a second pair of eyes", "ttl": "5m"} if {
	input.tool.name == "get_flag"
}
"""
CLIENTS = [
    ("typescript-1", "legacy"),
    ("typescript-2", "auto"),
    ("typescript-2", "legacy"),
    ("python-2", "auto"),
    ("python-2", "legacy"),
]
# How long an answer is held open, and after how long the first hold is granted, seconds.
LONG, SHORT = ("20s", 2.0), ("300ms", 0.5)
# Calls of a client that is told to call again.
AGAIN = 20
PATIENCE_S = 30


def approvals(work: pathlib.Path, *arguments: str) -> str:
    command = [BARTIZAN, "approvals", *arguments, "-c", str(work / "bartizan.yaml")]
    environment = {**os.environ, "BARTIZAN_APPROVER_TOKEN": TOKEN}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def holds(work: pathlib.Path, state: str) -> list[dict[str, object]]:
    return json.loads(approvals(work, "list", "--json", "--state", state))["approvals"]


def grant_first(work: pathlib.Path, after: float, faults: list[str]) -> None:
    """Grants the first hold that appears, a while later."""
    try:
        until = time.monotonic() + PATIENCE_S
        while not (waiting := holds(work, "pending")):
            if time.monotonic() > until:
                faults.append("nothing was held")
                return
            time.sleep(0.1)
        time.sleep(after)
        approvals(work, "grant", str(waiting[0]["id"]), "--reason", "seen by a test")
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        faults.append(str(error))


def wrong(seen: list[dict[str, object]], work: pathlib.Path) -> list[str]:
    """What is not as it should be."""
    steps = [json.dumps(one) for one in seen if "step" in one]
    passed = [at for at, step in enumerate(steps) if "search-v2" in step]
    told = [at for at, step in enumerate(steps) if "Approval pending" in step]
    faults = []
    if len(passed) != 1:
        faults.append(f"{len(passed)} calls passed: {steps}")
    elif len(steps) > 1 and (0 not in told or len(told) != len(steps) - 1):
        faults.append(f"the other calls were not told to call again: {steps}")
    spent = holds(work, "spent")
    if len(spent) != 1 or spent[0]["answers"][0]["by"] != "ada":
        faults.append(f"spent are {spent}")
    return faults


def scenario(calls: int) -> str:
    """Writes the scenario of so many equal calls; its name."""
    step = {"method": "tools/call", "params": {"name": "get_flag", "arguments": {"key": "search-v2"}}}
    name = f"scenario.held-{calls}.json"
    steps = [{"name": str(number), **step} for number in range(calls)]
    (INTEROP / name).write_text(json.dumps({"about": "See holds.py.", "steps": steps}))
    return name


def through(client: str, era: str, timing: tuple[str, float], work: pathlib.Path) -> list[str]:
    wait, after = timing
    rule = work / "held.rego"
    rule.write_text(RULE)
    further = {
        "policy": {"paths": [str(ROOT / "policies/examples/open"), str(rule)]},
        "approvals": {"wait": wait, "approvers": [{"id": "ada", "token": TOKEN}]},
    }
    with flags_http(work) as upstream, bartizan(work, {"url": upstream}, further=further) as url:
        faults: list[str] = []
        granting = threading.Thread(target=grant_first, args=(work, after, faults))
        granting.start()
        told = timing == SHORT and era == "legacy"
        seen = play(client, era, scenario(AGAIN if told else 1), ["http", url], work)
        granting.join()
        return faults or wrong(seen, work)


def main() -> int:
    bad = 0
    for timing in (LONG, SHORT):
        for client, era in CLIENTS:
            name = f"{client} ({era}), an answer is held open for {timing[0]}"
            with tempfile.TemporaryDirectory(prefix="bartizan-holds-") as directory:
                work = pathlib.Path(directory)
                try:
                    problems = through(client, era, timing, work)
                except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
                    problems = [f"{error}\n{logs(work)}"]
                print(f"{'FAILED' if problems else 'ok':<7} {name}", *problems, flush=True)
                bad += bool(problems)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
