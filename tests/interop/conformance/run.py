"""Runs the conformance tool against servers and clients, directly and through Bartizan, and compares.

`run.py` needs the environment of conformance.sh: CONFORMANCE (where the tool and the fixtures are
installed), BARTIZAN and FIXTURE (binaries), ROOT (the checkout), node 22 on PATH. `--full` runs
every tool against every fixture; `--only WORD` keeps the cases whose name holds WORD; `--keep DIR`
leaves the tool's results and all logs there.

A check is known by scenario, id and name; what it came to is the sorted list of its statuses, since
a tool may report one check several times. A check that is missing on either side is a difference.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from differences import DIFFERENCES

HERE = pathlib.Path(__file__).resolve().parent
CONFORMANCE = pathlib.Path(os.environ["CONFORMANCE"])
ROOT = pathlib.Path(os.environ["ROOT"])
BARTIZAN = os.environ["BARTIZAN"]
FIXTURE = os.environ["FIXTURE"]

JOBS = 2
START_S_MAX = 60
TOOL_S_MAX = 600
# Long enough that no scenario fails only because the machine is busy.
SCENARIO_MS_MAX = 60_000
CHILDREN_MAX = 256

Statuses = dict[tuple[str, str], list[str]]
Serve = Callable[[pathlib.Path], contextlib.AbstractContextManager[str]]


def tool(version: str) -> list[str]:
    return ["node", str(CONFORMANCE / "node_modules" / f"conformance-{version}" / "dist/index.js")]


# What the tool is told, by the name of the run.
RUNS = {
    "0.1 all": [*tool("0.1"), "server", "--suite", "all"],
    "0.2 2025-11-25": [*tool("0.2"), "server", "--requirements", "2025-11-25", "--timeout", str(SCENARIO_MS_MAX)],
    "0.2 2026-07-28": [*tool("0.2"), "server", "--requirements", "2026-07-28", "--timeout", str(SCENARIO_MS_MAX)],
}
# fixture -> how it is started; `http` or `stdio` is added.
FIXTURES = {
    "typescript": ["node", str(CONFORMANCE / "server.mjs")],
    "rmcp": [FIXTURE],
}
# What each fixture is for. `--full` runs the rest too.
USUAL = {
    "typescript": ["0.1 all", "0.2 2025-11-25"],
    "rmcp": ["0.2 2026-07-28"],
}
# The client mode's scenarios come from the tool's own list, at these revisions.
REVISIONS = ["2025-03-26", "2025-11-25", "2026-07-28"]
# The fixture is no client of the skills extension.
NOT_FOR_CLIENT = ("sep-2640-",)
HEADER_SCENARIOS = ["http-header-validation", "http-custom-header-server-validation"]


class Failed(Exception):
    """A case could not be run, or came out wrong."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(command: list[str], port: int, log: pathlib.Path) -> Iterator[str]:
    with log.open("ab") as out:
        env = {**os.environ, "PORT": str(port)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        try:
            wait_for(port, process)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise Failed(f"{process.args} did not listen on {port}")


def direct(fixture: str, mode: str = "http") -> Serve:
    return lambda work: serving([*FIXTURES[fixture], mode], free_port(), work / "server.log")


def bartizan(work: pathlib.Path, server: dict[str, object]) -> contextlib.AbstractContextManager[str]:
    """`bartizan run` in front of `server`, with a policy that lets everything pass."""
    port = free_port()
    config = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{free_port()}",
        "state": str(work / "state"),
        "policy": {"paths": [str(ROOT / "policies/examples/open")]},
        # The tool leaves most of its sessions open, and each has a child of its own.
        "limits": {"children": CHILDREN_MAX},
        "servers": {"peer": {"path": "/mcp", **server}},
    }
    file = work / "bartizan.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return serving([BARTIZAN, "run", "-c", str(file)], port, work / "bartizan.log")


def through_http(fixture: str, mode: str = "http") -> Serve:
    @contextlib.contextmanager
    def serve(work: pathlib.Path) -> Iterator[str]:
        with direct(fixture, mode)(work) as url, bartizan(work, {"url": url}) as front:
            yield front

    return serve


def through_stdio(fixture: str) -> Serve:
    return lambda work: bartizan(work, {"command": [*FIXTURES[fixture], "stdio"]})


def statuses(results: pathlib.Path) -> Statuses:
    """What each check of each scenario came to."""
    found: Statuses = collections.defaultdict(list)
    for file in sorted(results.glob("**/checks.json")):
        named = file.parent.relative_to(results).as_posix()
        scenario = re.sub(r"-\d{4}-\d{2}-\d{2}T[0-9-]+Z?$", "", named)
        for check in json.loads(file.read_text()):
            found[scenario, f"{check['id']} {check.get('name', '')}"].append(check["status"])
    return {key: sorted(found[key]) for key in sorted(found)}


def ask(command: list[str], serve: Serve, work: pathlib.Path) -> Statuses:
    """One run of the tool. What it thinks of the server is in its checks, not in its exit code."""
    work.mkdir(parents=True)
    results = work / "results"
    with serve(work) as url, (work / "tool.log").open("wb") as log:
        subprocess.run(
            [*command, "--url", url, "-o", str(results)], cwd=work, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, timeout=TOOL_S_MAX, check=False,
        )
    found = statuses(results)
    if not found:
        raise Failed("the tool reported no check")
    return found


def differences(one: Statuses, two: Statuses) -> dict[tuple[str, str], tuple[list[str], list[str]]]:
    keys = sorted(set(one) | set(two))
    pairs = {key: (one.get(key, []), two.get(key, [])) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def counted(found: Statuses) -> str:
    count = collections.Counter(status for several in found.values() for status in several)
    return ", ".join(f"{count[status]} {status}" for status in sorted(count))


def judge(name: str, one: Statuses, two: Statuses) -> list[str]:
    """What is wrong: differences that nobody allowed, and allowances that nobody needed."""
    allowed = {
        (item.scenario, check): pair
        for item in DIFFERENCES if name.startswith(item.case)
        for check, pair in item.checks.items()
    }
    found = differences(one, two)
    wrong = [
        f"{' '.join(key)}: {before} directly, {after} through"
        for key, (before, after) in found.items() if allowed.get(key) != (before, after)
    ]
    wrong += [f"{' '.join(key)}: allowed to differ, and does not" for key in allowed if key not in found]
    return wrong


def compare(name: str, one: Statuses, two: Statuses) -> bool:
    wrong = judge(name, one, two)
    print(f"{'FAILED' if wrong else 'ok':<7} {name}: {counted(two)}", flush=True)
    for line in wrong:
        print(f"        {line}", flush=True)
    return not wrong


def header_case(scenario: str, work: pathlib.Path) -> bool:
    """A server that validates no header fails the scenario, and passes it behind Bartizan."""
    command = [*tool("0.2"), "server", "--scenario", scenario]
    before = ask(command, direct("typescript", "lax"), work / "direct")
    after = ask(command, through_http("typescript", "lax"), work / "through")
    bad = {"FAILURE", "WARNING"}
    failed = any(bad & set(several) for several in before.values())
    passed = not any(bad & set(several) for several in after.values())
    vanished = set(before) - set(after)
    held = failed and passed and not vanished
    print(f"{'ok' if held else 'FAILED':<7} unvalidated headers, {scenario}: "
          f"{counted(before)} directly; {counted(after)} through", flush=True)
    return held


def server_cases(full: bool) -> Iterator[tuple[str, Callable[[pathlib.Path], bool]]]:
    for fixture in FIXTURES:
        for run in RUNS if full else USUAL[fixture]:
            def case(work: pathlib.Path, fixture: str = fixture, run: str = run) -> bool:
                expected = ask(RUNS[run], direct(fixture), work / "direct")
                held = True
                for over, serve in (("HTTP", through_http(fixture)), ("stdio", through_stdio(fixture))):
                    seen = ask(RUNS[run], serve, work / over)
                    held &= compare(f"{fixture} over {over}, {run}", expected, seen)
                return held

            yield f"{fixture}, {run}", case
    for scenario in HEADER_SCENARIOS:
        yield f"unvalidated headers, {scenario}", lambda work, scenario=scenario: header_case(scenario, work)


def client_scenarios(full: bool) -> Iterator[tuple[str, str, str]]:
    """Version of the tool, scenario and revision of each run of the client mode.

    The OAuth scenarios of 0.1 are among those of 0.2.
    """
    for version in ("0.1", "0.2"):
        listed = subprocess.run([*tool(version), "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
        clients = listed.partition("Client scenarios")[2].partition("Authorization server")[0]
        for scenario, revisions in re.findall(r"^ *- (\S+) \[([^\]]*)\]", clients, re.MULTILINE):
            for revision in REVISIONS:
                again = version == "0.1" and scenario.startswith("auth/") and not full
                if revision in revisions and not again and not scenario.startswith(NOT_FOR_CLIENT):
                    yield version, scenario, revision


def play(version: str, scenario: str, revision: str, client: str, work: pathlib.Path) -> Statuses:
    """The tool is the server, and starts `client` with its URL."""
    work.mkdir(parents=True)
    node, script = tool(version)
    command = [
        node, "--require", str(CONFORMANCE / "loopback_sync.cjs"), script, "client", "--command", client,
        "--scenario", scenario, "--spec-version", revision, "--timeout", str(SCENARIO_MS_MAX),
        "-o", str(work / "results"),
    ]
    with (work / "tool.log").open("wb") as log:
        subprocess.run(
            command, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=TOOL_S_MAX, check=False,
        )
    found = statuses(work / "results")
    if not found:
        raise Failed("the tool reported no check")
    return found


def client_cases(full: bool) -> Iterator[tuple[str, Callable[[pathlib.Path], bool]]]:
    for version, scenario, revision in client_scenarios(full):
        name = f"client, {version} {revision}, {scenario}"

        def case(work: pathlib.Path, name: str = name, run: tuple[str, str, str] = (version, scenario, revision)) -> bool:
            expected = play(*run, f"node {CONFORMANCE / 'client.mjs'}", work / "direct")
            return compare(name, expected, play(*run, f"{sys.executable} {HERE / 'through.py'}", work / "through"))

        yield name, case


def attempt(name: str, case: Callable[[pathlib.Path], bool], work: pathlib.Path) -> bool:
    try:
        return case(work)
    except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
        logs = "".join(f"--- {log.relative_to(work)}\n{log.read_text(errors='replace')[-2_000:]}\n"
                       for log in sorted(work.rglob("*.log")))
        print(f"FAILED  {name}: {error}\n{logs}", flush=True)
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="every tool against every fixture")
    parser.add_argument("--only", default="", help="keep the cases whose name holds this")
    parser.add_argument("--keep", type=pathlib.Path, help="leave results and logs in this new directory")
    args = parser.parse_args()
    every = [*server_cases(args.full), *client_cases(args.full)]
    cases = [(name, case) for name, case in every if args.only in name]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(JOBS) as pool:
        work = args.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bartizan-conformance-")))
        running = [pool.submit(attempt, name, case, work.resolve() / f"{n}") for n, (name, case) in enumerate(cases)]
        held = [one.result() for one in running]
    print(f"{sum(held)} of {len(held)} cases alike")
    return 0 if held and all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
