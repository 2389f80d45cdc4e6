"""The programs that are measured: their configurations, their processes, and what they use.

Programs come from the environment, where compare.sh has put them: NGINX, ENVOY, BARTIZAN, and
PEERS, a directory with those that install from registries.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = pathlib.Path(os.environ["WORK"])
START_S_MAX = 60
STOP_S_MAX = 10
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS_S = os.sysconf("SC_CLK_TCK")
TEXT = "on for a quarter of staging"
ANSWER = {
    "jsonrpc": "2.0", "id": 1,
    "result": {"resultType": "complete", "content": [{"type": "text", "text": TEXT}], "isError": False},
}
LARGE_BYTES = 4_000_000

# Rules that read arguments.
RULES = (HERE / "rules.rego").read_text()


def rules(count: int) -> str:
    """So many rules that each name a tool and read an argument."""
    rule = (
        'deny contains {{"code": "r{0}", "message": "m"}} if {{\n'
        '\tinput.tool.name == "tool_{0}"\n\tinput.tool.arguments.environment == "production"\n}}\n'
    )
    return RULES + "\n" + "\n".join(rule.format(at) for at in range(count))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def rss_kib_of(pid: int) -> int:
    """Resident memory of one process."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE // 1024


@dataclass
class Target:
    """One program between client and server, or the server itself."""

    name: str
    port: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (WORK / f"{self.name}.out").open("wb")
        environment = os.environ | self.environment
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=WORK, env=environment
        )
        log.close()
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                said = (WORK / f"{self.name}.out").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {said}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not listen on {self.port} within {START_S_MAX} s")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def processes(self) -> list[int]:
        """Its process and all that descend from it."""
        if self.process is None:
            return []
        children: dict[int, list[int]] = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(stat.parent.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def rss_kib(self) -> int:
        """Resident memory, of all its processes together."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                total += rss_kib_of(pid)
        return total

    def cpu_s(self) -> float:
        """Processor time that its processes have used, user and system, s."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS_S


def written(template: str, name: str, values: dict[str, str]) -> pathlib.Path:
    """A configuration in the working directory."""
    text = (HERE / template).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    path = WORK / name
    path.write_text(text)
    return path


def nginx(name: str, template: str, values: dict[str, str]) -> Target:
    port = free_port()
    conf = written(template, f"{name}.conf", values | {"PORT": str(port)})
    start = ["-p", str(WORK), "-e", str(WORK / "start.log"), "-c", str(conf)]
    return Target(name, port, [os.environ["NGINX"], *start])


def upstream() -> Target:
    """The server that answers at once: nginx."""
    files = WORK / "files"
    files.mkdir(exist_ok=True)
    large = json.dumps(ANSWER)
    (files / "large").write_text(large.replace(TEXT, "on " * ((LARGE_BYTES - len(large)) // 3) + TEXT))
    return nginx("direct", "nginx.upstream.conf", {"WORK": str(WORK), "ANSWER": json.dumps(ANSWER)})


def behind(server: int, events: int) -> dict[str, str]:
    """What the configurations of proxies say of the servers behind them."""
    return {"WORK": str(WORK), "ROOT": str(ROOT), "UPSTREAM": str(server), "EVENTS": str(events)}


def nginx_proxy(server: int, events: int = 9) -> Target:
    return nginx("nginx", "nginx.proxy.conf", behind(server, events))


def envoy(server: int, events: int = 9) -> Target:
    port = free_port()
    conf = written("envoy.yaml", "envoy.yaml", behind(server, events) | {"PORT": str(port)})
    options = ["--concurrency", "2", "--log-level", "warning", "--use-dynamic-base-id"]
    return Target("envoy", port, [os.environ["ENVOY"], "-c", str(conf), *options])


def bartizan(server: int, events: int = 9, name: str = "bartizan", policy: str = RULES) -> Target:
    port = free_port()
    (WORK / f"{name}.rego").write_text(policy)
    own = {"NAME": name, "PORT": str(port), "ADMIN": str(free_port())}
    conf = written("bartizan.yaml", f"{name}.yaml", behind(server, events) | own)
    return Target(name, port, [os.environ["BARTIZAN"], "run", "-c", str(conf)])


def session_server() -> Target:
    """The server with sessions that peers need."""
    port = free_port()
    return Target("direct", port, [sys.executable, str(HERE / "server.py"), "--port", str(port)])
