"""A real Prometheus scrapes a firewall under calls, and evaluates the alert rules of deploy/.

Needs the environment of metrics.sh, which calls it: BARTIZAN (the binary), ROOT (the checkout). promtool
checks the page, the rules and the example configuration. Every process listens on loopback only and is
ended by its own handle.
"""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(os.environ["ROOT"])
BARTIZAN = os.environ["BARTIZAN"]
DEPLOY = ROOT / "deploy/observability"
PATIENCE_S = 30
CALLS = 20
POLICY = """package mcp

permit contains {"code": "reads", "message": "reads are open"} if input.operation.effect == "read"

deny contains {"code": "no-writes", "message": "not here"} if input.operation.effect != "read"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, found: Callable[[], object]) -> object:
    end = time.monotonic() + PATIENCE_S
    while not (value := found()):
        if time.monotonic() > end:
            raise RuntimeError(f"not in time: {what}")
        time.sleep(0.1)
    return value


@contextlib.contextmanager
def process(command: list[str], log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield running
    except BaseException:
        print(log.read_text()[-4000:])
        raise
    finally:
        running.terminate()
        running.wait(PATIENCE_S)


def get(port: int, path: str, accept: str = "*/*") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers={"Accept": accept})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""


def call(port: int, tool: str) -> None:
    params = {"name": tool, "arguments": {"key": "search-v2"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/mcp", body, headers)
        connection.getresponse().read()


def promtool(*arguments: str, text: str = "") -> None:
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"promtool {' '.join(arguments)}: {done.stdout}{done.stderr}")
    print(f"ok       promtool {arguments[0]} {arguments[1]}")


def query(port: int, text: str) -> list[dict[str, object]]:
    status, body = get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": text}))
    if status != 200:
        raise RuntimeError(f"{text}: {status} {body}")
    return json.loads(body)["data"]["result"]


def expressions() -> list[str]:
    """Every query of the dashboard, as Grafana would send it."""
    found = []
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$instance", ".*")
            found.append(text.replace("$__rate_interval", "1m").replace("$__range", "1h"))
    return found


def expect(what: str, is_so: bool, shown: object = "") -> None:
    if not is_so:
        raise RuntimeError(f"{what}: {shown}")
    print(f"ok       {what}")


def main() -> None:
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, listen, admin, prometheus = (free_port() for _ in range(4))
        (work / "policy").mkdir()
        (work / "policy/rules.rego").write_text(POLICY)
        (work / "bartizan.yaml").write_text(
            f"listen: 127.0.0.1:{listen}\nadmin: 127.0.0.1:{admin}\nstate: {work}/state\n"
            f"policy: {{paths: [{work}/policy]}}\nservers:\n  flags:\n    path: /mcp\n"
            f"    url: http://127.0.0.1:{server}/mcp\n    pack: flag-service\n    environment: staging\n"
        )
        (work / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{DEPLOY}/alerts.yaml]\n"
            f"scrape_configs:\n- job_name: bartizan\n  static_configs: [{{targets: ['127.0.0.1:{admin}']}}]\n"
        )
        flags = [BARTIZAN, "demo", "--server-only", "--port", str(server)]
        stack.enter_context(process(flags, work / "server.log"))
        stack.enter_context(process([BARTIZAN, "run", "-c", str(work / "bartizan.yaml")], work / "bartizan.log"))
        until("the firewall", lambda: get(admin, "/readyz")[0] == 200)
        command = [
            "prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data",
            f"--web.listen-address=127.0.0.1:{prometheus}",
        ]
        stack.enter_context(process(command, work / "prometheus.log"))
        until("Prometheus", lambda: get(prometheus, "/-/ready")[0] == 200)
        for _ in range(CALLS):
            call(listen, "get_flag")
            call(listen, "kill_flag")

        promtool("check", "metrics", text=get(admin, "/metrics")[1])
        promtool("check", "rules", str(DEPLOY / "alerts.yaml"))
        promtool("check", "config", str(DEPLOY / "prometheus.yml"))
        denied = 'sum(bartizan_decisions_total{effect="deny",reason="no-writes"})'
        until("the denials", lambda: (found := query(prometheus, denied)) and float(found[0]["value"][1]) == CALLS)
        print(f"ok       Prometheus counts {CALLS} denials")
        calls = 'sum(mcp_server_operation_duration_seconds_count{gen_ai_tool_name="get_flag"})'
        found = query(prometheus, calls)
        expect("and as many calls", bool(found) and float(found[0]["value"][1]) == CALLS, found)
        targets = json.loads(get(prometheus, "/api/v1/targets")[1])["data"]["activeTargets"]
        expect("the scrape has no error", [target["lastError"] for target in targets] == [""], targets)
        groups = json.loads(get(prometheus, "/api/v1/rules")[1])["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        until("the rules", lambda: all(
            rule["health"] == "ok"
            for group in json.loads(get(prometheus, "/api/v1/rules")[1])["data"]["groups"] for rule in group["rules"]
        ))
        expect(f"{len(rules)} alert rules are evaluated", len(rules) > 10, rules)
        asked = expressions()
        for text in asked:
            query(prometheus, text)
        print(f"ok       {len(asked)} queries of the dashboard are valid")
        status, text = get(admin, "/metrics", "application/openmetrics-text; version=1.0.0")
        expect("OpenMetrics ends as it should", status == 200 and text.endswith("# EOF\n"))


if __name__ == "__main__":
    main()
