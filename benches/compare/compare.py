"""Measures tools/call directly and through each proxy in one run, and prints a Markdown table.

Started by compare.sh, which has written the configurations. The targets take turns in many short
rounds, so that whatever else the machine does strikes all of them. Differences of latency and
ratios of throughput are taken within each round, and their medians over the rounds are shown. Before and after, every target must give the very answer that the server gives, and
no request may fail: a refusal would be fast.
"""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

WORK = pathlib.Path(os.environ["WORK"])
HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("ROUNDS", "9"))
SECONDS = int(os.environ.get("SECONDS_EACH", "1"))
CONNECTIONS = (1, 16)
START_S_MAX = 20
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "get_flag",
}


def body() -> bytes:
    """One tools/call of exactly 1 KiB, with the structure of a real one."""
    call = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "get_flag",
            "arguments": {
                "key": "checkout-redesign", "environment": "staging",
                "context": {"users": [{"id": f"u-{n:04}", "country": "DK", "plan": "pro"} for n in range(11)], "note": ""},
            },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "compare", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
    context = call["params"]["arguments"]["context"]
    context["note"] = "x" * (1024 - len(json.dumps(call, separators=(",", ":"))))
    encoded = json.dumps(call, separators=(",", ":")).encode()
    if len(encoded) != 1024:
        raise RuntimeError(f"the call is {len(encoded)} bytes")
    return encoded


def probe(port: int, call: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/mcp", call, HEADERS)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"port {port} answered {answer.status}: {content[:300]!r}")
    return content


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}; see {WORK}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not listen on {port}")


def measured(port: int, connections: int, seconds: int) -> dict[str, float]:
    command = [
        os.environ["WRK"], "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
        "-s", str(HERE / "call.lua"), f"http://127.0.0.1:{port}",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"port {port}: {found}")
    found["rate"] = found["requests"] / (found["us"] / 1e6)
    return found


def rounds(targets: dict[str, int]) -> dict[tuple[str, int], list[dict[str, float]]]:
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    for port in targets.values():
        measured(port, 16, 1)  # warm
    for number in range(ROUNDS):
        for connections in CONNECTIONS:
            order = list(targets.items())
            for name, port in order[number % len(order):] + order[:number % len(order)]:
                results.setdefault((name, connections), []).append(measured(port, connections, SECONDS))
    return results


def table(targets: dict[str, int], results: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    def median(name: str, connections: int, what: str) -> float:
        return statistics.median(one[what] for one in results[name, connections])

    def added(name: str) -> list[float]:
        return [one["p50_us"] - base["p50_us"] for one, base in zip(results[name, 1], results["direct", 1])]

    def added_to(name: str, other: str) -> str:
        base = statistics.median(added(other))
        # Below wrk's resolution a ratio would say nothing.
        return f"{statistics.median(added(name)) / base:.2f}" if base >= 2 else "?"

    def rate_to(name: str, other: str) -> float:
        pairs = zip(results[name, 16], results[other, 16])
        return statistics.median(one["rate"] / base["rate"] for one, base in pairs)

    lines = [
        "| | one call, µs | p99, µs | added, µs | added, to nginx | calls/s at 16 | to nginx |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in targets:
        extra = "" if name == "direct" else f"{statistics.median(added(name)):.0f}"
        ratio = "" if name == "direct" else added_to(name, "nginx")
        lines.append(
            f"| {name} | {median(name, 1, 'p50_us'):.0f} | {median(name, 1, 'p99_us'):.0f} | {extra} | {ratio} "
            f"| {median(name, 16, 'rate'):.0f} | {rate_to(name, 'nginx'):.2f} |"
        )
    lines.append("")
    lines.append(
        f"tools/call of 1 KiB, {ROUNDS} alternating rounds of {SECONDS} s; one call is a median at one connection; "
        f"{os.cpu_count()} processors shared by client, proxy and server."
    )
    if "bartizan" in targets:
        lines.append(
            f"Bartizan to Envoy: {added_to('bartizan', 'envoy')} of what it adds, "
            f"{rate_to('bartizan', 'envoy'):.2f} of its throughput."
        )
    return "\n".join(lines)


def main() -> int:
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 4:
        print(f"compare: the machine is busy (load {load:.1f}); the figures will not be worth much", file=sys.stderr)
    call = body()
    (WORK / "body.json").write_bytes(call)
    os.environ["BODY"] = str(WORK / "body.json")
    commands = json.loads((WORK / "commands.json").read_text())
    with contextlib.ExitStack() as stack:
        targets = {}
        for name, port, command in commands:
            log = stack.enter_context((WORK / f"{name}.out").open("wb"))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait_for(port, process)
            targets[name] = port
        answers = {name: probe(port, call) for name, port in targets.items()}
        if len(set(answers.values())) != 1:
            raise RuntimeError(f"the answers differ: {answers}")
        results = rounds(targets)
        for name, port in targets.items():
            if probe(port, call) != answers[name]:
                raise RuntimeError(f"{name} answers otherwise after the rounds")
        sizes = {name: round(results[name, 16][0]["bytes"] / results[name, 16][0]["requests"]) for name in targets}
        if max(sizes.values()) > 2 * min(sizes.values()):
            raise RuntimeError(f"answers of different sizes, so not all are answers: {sizes}")
        print(table(targets, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
