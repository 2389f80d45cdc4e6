"""Sets each attack of attacks.py on a fresh Bartizan beside ten benign agents, and prints a table.

Started by run.sh, which says what the environment means. For each case: quiet, then the attack. The
quiet value is that of all quiet times of the run together, because what else the machine does must
strike both. The last case is all attacks at once.

All processes share the machine's processors, which attackers on machines of their own would not. So
attackers run when nobody else wants a processor (SCHED_IDLE), and the server that answers them runs
with less priority: Bartizan always has as much to do as it can take, and what a benign call waits for
is Bartizan.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from attacks import CASES
from tokens import Issuer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BARTIZAN = os.environ["BARTIZAN"]
SHORT = os.environ.get("HOSTILE_SHORT") == "1"
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "1" if SHORT else "20"))
QUIET_S = SECONDS / 2
WARM_UP_S = 0.4  # connections, and the first decision of each kind
CONNECTIONS = 2_000 if SHORT else 12_000
AGENTS = 10
START_S_MAX = 30
ALL = "all-at-once"
MIB = 1 << 20
ATTEMPTS = 5 if SHORT else 1  # a case that misses a bound is played again, because of what else the machine does

# What a rule would need to be open to the first kind of attacks: work over what an agent sends.
RULES = """package mcp

deny contains {"code": "forbidden-item", "message": "an item is forbidden"} if {
	some item in input.tool.arguments.items
	item == "forbidden"
}

deny contains {"code": "forbidden-text", "message": "a text is forbidden"} if {
	glob.match(input.tool.arguments.pattern, [], input.tool.arguments.text)
}
"""


@dataclass(frozen=True)
class Bounds:
    """What must hold. The strict values are the promise; the others leave room for a loaded machine,
    on which a benign call waits for a processor as well."""

    ratio: float
    p99_s: float  # a p99 below this holds whatever the quiet value was
    p99_s_max: float  # a p99 above this fails whatever the quiet value was
    livez_s: float
    rss_bytes: int
    journal_bytes_per_s: int
    unanswered: float


STRICT = Bounds(5, 0.0, 1.0, 0.050, 256 * MIB, MIB, 0.0)
LOOSE = Bounds(20, 0.100, 0.3, 0.5, 320 * MIB, 4 * MIB, 0.01)
BOUNDS = LOOSE if SHORT else STRICT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], log: pathlib.Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **more})
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def only_when_idle() -> None:
    """For this process: a processor only when no other process wants one (sched(7))."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def less_priority() -> None:
    os.nice(5)


def wait_until_ready(port: int, process: subprocess.Popen[bytes], path: str) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            if path == "/":  # a server that answers anything is there
                return
            error.close()
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} is not ready on {port}")


@dataclass
class Stage:
    """What all cases share: the servers behind, ports, the policy, the keys."""

    work: pathlib.Path
    fast: int
    hostile: int
    port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.issuer = Issuer(f"http://127.0.0.1:{self.port}/flags")
        (self.work / "jwks.json").write_text(self.issuer.jwks())
        (self.work / "rules.rego").write_text(RULES)
        self.tokens = [self.issuer.token(f"benign-{n}") for n in range(AGENTS)]
        self.attacker = self.issuer.token("attacker")

    def config(self, state: pathlib.Path) -> dict[str, object]:
        """The shipped defaults, with two servers and tokens that tell the agents apart."""
        issuer = {"issuer": Issuer.NAME, "jwks_file": str(self.work / "jwks.json"), "audiences": [self.issuer.audience]}
        server = {"pack": "flag-service", "environment": "staging", "hosts": ["127.0.0.1"]}
        server |= {"oauth": {"mode": "terminate", "issuers": [issuer]}}

        def named(name: str, port: int) -> dict[str, object]:
            url, public = f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{self.port}/{name}"
            return {**server, "path": f"/{name}", "url": url, "public_url": public}

        return {
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{self.admin}",
            "state": str(state),
            "policy": {"paths": [str(ROOT / "policies/baseline"), str(self.work / "rules.rego")]},
            "servers": {"flags": named("flags", self.fast), "hostile": named("hostile", self.hostile)},
        }


@dataclass
class Measured:
    case: str
    item: str
    quiet: list[float]
    calls: list[float]
    unanswered: int
    livez: list[float]
    livez_unanswered: int
    rss_bytes: int
    journal_bytes_per_s: float
    alive: bool


def p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


def size(folder: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def rss_high(pid: int) -> int:
    """The most memory that the process had resident, bytes (VmHWM, proc(5))."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def within(seen: list[list[float]], since: float, until: float) -> list[list[float]]:
    return [one for one in seen if since <= one[0] < until]


def play(stage: Stage, case: str, names: list[str]) -> Measured:
    with tempfile.TemporaryDirectory(dir=stage.work) as folder:
        state = pathlib.Path(folder) / "state"
        file = pathlib.Path(folder) / "bartizan.yaml"
        file.write_text(json.dumps(stage.config(state)))  # JSON is YAML
        log = stage.work / f"{case}.log"
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}  # as in deploy/Dockerfile
        command = [BARTIZAN, "run", "-c", str(file)]
        with running(command, log, env=environment) as program, contextlib.ExitStack() as attackers:
            wait_until_ready(stage.admin, program, "/readyz")
            setting = {"port": stage.port, "admin": stage.admin, "tokens": stage.tokens}
            benign = subprocess.Popen(
                [sys.executable, str(HERE / "benign.py"), json.dumps(setting)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            target = {"port": stage.port, "admin": stage.admin, "token": stage.attacker, "connections": CONNECTIONS}
            waiting = []
            for name in names:
                command = [sys.executable, str(HERE / "attacks.py"), name, json.dumps(target)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "preexec_fn": only_when_idle}
                waiting.append(attackers.enter_context(running(command, log, **pipes)))
            for attacker in waiting:
                if attacker.stdout.readline() != b"ready\n":
                    raise RuntimeError(f"{attacker.args} did not start; see {log}")
            time.sleep(WARM_UP_S)
            begin = time.monotonic()
            time.sleep(QUIET_S)
            before, attack = size(state), time.monotonic()
            for attacker in waiting:
                attacker.stdin.write(b"go\n")
                attacker.stdin.flush()
            time.sleep(SECONDS)
            end = time.monotonic()
            journal = (size(state) - before) / (end - attack)
            out, _ = benign.communicate()
            rss, alive = rss_high(program.pid), program.poll() is None
            attackers.close()
            program.kill()  # what an attack left in flight would be drained for long
    seen = json.loads(out)
    calls, livez = within(seen["calls"], attack, end), within(seen["livez"], attack, end)
    return Measured(
        case=case,
        item=CASES[case][0] if case in CASES else "C",
        quiet=[seconds for _, seconds, _ in within(seen["calls"], begin, attack)],
        calls=[seconds for _, seconds, _ in calls],
        unanswered=sum(status not in (200, -1) for _, _, status in calls),
        livez=[seconds for _, seconds, _ in livez],
        livez_unanswered=sum(status not in (200, -1) for _, _, status in livez),
        rss_bytes=rss,
        journal_bytes_per_s=journal,
        alive=alive,
    )


def broken(one: Measured, quiet: float, bounds: Bounds) -> list[str]:
    """The bounds that a case does not hold."""
    late = p99(one.calls)
    found = {
        "ended": not one.alive,
        "p99": not one.calls or late > min(max(bounds.ratio * quiet, bounds.p99_s), bounds.p99_s_max),
        "unanswered": one.unanswered > bounds.unanswered * len(one.calls),
        "livez": not one.livez or max(one.livez) > bounds.livez_s or one.livez_unanswered > 0,
        "memory": one.rss_bytes > bounds.rss_bytes,
        "journal": one.journal_bytes_per_s > bounds.journal_bytes_per_s,
    }
    return [name for name, is_broken in found.items() if is_broken]


def report(measured: list[Measured], quiet_calls: list[float]) -> int:
    """Prints the table. Returns how many cases fail."""
    quiet = p99(quiet_calls)
    print(f"\nquiet: p99 {quiet * 1e3:.1f} ms of {len(quiet_calls)} calls")
    print(
        f"bounds: p99 at most {BOUNDS.ratio:g} times that"
        + (f" or {BOUNDS.p99_s * 1e3:g} ms" if BOUNDS.p99_s else "")
        + f", and {BOUNDS.p99_s_max * 1e3:g} ms"
        + f", /livez {BOUNDS.livez_s * 1e3:g} ms, memory {BOUNDS.rss_bytes // MIB} MiB,"
        + f" journal {BOUNDS.journal_bytes_per_s / MIB:g} MiB/s, unanswered {BOUNDS.unanswered:.0%}\n"
    )
    print("| Item | Case | Benign p99, ms | Times quiet | Unanswered | Memory, MiB | /livez worst, ms | Journal, KB/s | Verdict |")
    print("|---|---|--:|--:|--:|--:|--:|--:|---|")
    failed = 0
    for one in measured:
        wrong = broken(one, quiet, BOUNDS)
        verdict = f"FAILS: {', '.join(wrong)}" if wrong else "holds"
        failed += bool(wrong)
        late, worst = p99(one.calls), max(one.livez, default=0.0)
        print(
            f"| {one.item} | {one.case} | {late * 1e3:.1f} | {late / quiet if quiet else 0:.1f}"
            f" | {one.unanswered}/{len(one.calls)} | {one.rss_bytes / MIB:.0f} | {worst * 1e3:.0f}"
            f"{' (%d unanswered)' % one.livez_unanswered if one.livez_unanswered else ''}"
            f" | {one.journal_bytes_per_s / 1e3:.0f} | {verdict} |"
        )
    return failed


def main() -> int:
    asked = sys.argv[1:] or [*CASES, ALL]
    with tempfile.TemporaryDirectory(prefix="bartizan-hostile-") as folder:
        work = pathlib.Path(os.environ.get("HOSTILE_WORK") or folder)
        work.mkdir(parents=True, exist_ok=True)
        fast, hostile = free_port(), free_port()
        with contextlib.ExitStack() as servers:
            for port, priority in ((fast, None), (hostile, less_priority)):
                command = [sys.executable, str(HERE / "upstream.py"), str(port)]
                process = servers.enter_context(running(command, work / "upstream.log", preexec_fn=priority))
                wait_until_ready(port, process, "/")
            stage = Stage(work, fast, hostile)
            last: dict[str, Measured] = {}
            quiet: list[float] = []
            missed = asked
            for attempt in range(ATTEMPTS):
                for case in missed:
                    one = play(stage, case, list(CASES) if case == ALL else [case])
                    quiet += one.quiet
                    last[case] = one
                    again = f", attempt {attempt + 1}" if attempt else ""
                    load = os.getloadavg()[0]
                    print(f"{case}: p99 {p99(one.calls) * 1e3:.1f} ms, load {load:.1f}{again}", flush=True)
                missed = [case for case in asked if broken(last[case], p99(quiet), BOUNDS)]
    return 1 if report([last[case] for case in asked], quiet) else 0


if __name__ == "__main__":
    sys.exit(main())
