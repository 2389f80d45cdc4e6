"""A real collector, rotel, is away for a while under calls, and comes back: nothing may be missing.

Needs the environment of otel.sh, which calls it: BARTIZAN (the binary), ROOT (the checkout). The
firewall sends to rotel, and rotel sends what it got to a receiver here, which reads it with the official
message types of OpenTelemetry. The journal says what must have arrived. Every process listens on
loopback only and is ended by its own handle.
"""

import argparse
import contextlib
import gzip
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import rotel
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

BARTIZAN = os.environ["BARTIZAN"]
ROTEL = pathlib.Path(rotel.__file__).parent / "rotel-agent"
PATIENCE_S = 90
CLIENTS = 4
TRACE = "0af7651916cd43dd8448eb211c80319c"
# Sampling is off in it.
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"
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


def expect(what: str, is_so: bool, shown: object = "") -> None:
    if not is_so:
        raise RuntimeError(f"{what}: {shown}")
    print(f"ok       {what}")


@contextlib.contextmanager
def process(command: list[str], log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield running
    except BaseException:
        print(log.read_text()[-4000:])
        raise
    finally:
        running.terminate()
        running.wait(PATIENCE_S)


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps the spans and log records that come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.spans: list[Span] = []
        self.logs: list[dict[str, object]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        receiver = self.server
        if self.path.endswith("/v1/traces"):
            request = ExportTraceServiceRequest.FromString(body)
            answer = ExportTraceServiceResponse()
            with receiver.lock:
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        receiver.spans.extend(scope.spans)
        else:
            request = ExportLogsServiceRequest.FromString(body)
            answer = ExportLogsServiceResponse()
            with receiver.lock:
                for resource in request.resource_logs:
                    for scope in resource.scope_logs:
                        receiver.logs.extend(json.loads(log.body.string_value) for log in scope.log_records)
        answer = answer.SerializeToString()
        # rotel does not wait for long, and sends again.
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0


class Callers:
    """Agents that call until they are stopped."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stop = threading.Event()
        self.made = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(CLIENTS)]

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        # More than any limit on the number of attributes.
        arguments = {"key": "search-v2"} | {f"argument-{n}": "x" * 50 for n in range(200)}
        number = 0
        while not self.stop.wait(0.02):
            number += 1
            tool = "kill_flag" if number % 4 == 0 else "get_flag"
            params: dict[str, object] = {"name": tool, "arguments": arguments if number % 3 else {"key": "search-v2"}}
            if number % 2:
                params["_meta"] = {"traceparent": UNSAMPLED}
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
            connection.request("POST", "/mcp", body, headers)
            connection.getresponse().read()
            with self.lock:
                self.made += 1

    def __enter__(self) -> "Callers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)


def journal(state: pathlib.Path) -> list[dict[str, object]]:
    lines = []
    for file in sorted((state / "journal").glob("journal-*.ndjson")):
        text = file.read_text()
        lines.extend(text[: text.rfind("\n") + 1].splitlines())
    return [json.loads(line) for line in lines]


def wanted(records: list[dict[str, object]]) -> set[tuple[str, int]]:
    """The spans that the records stand for: call and kind."""
    spans = set()
    for record in records:
        if record["event"] == "denial":
            spans.add((record["call"], Span.SPAN_KIND_SERVER))
        elif record["event"] == "outcome":
            spans.add((record["call"], Span.SPAN_KIND_SERVER))
            spans.add((record["call"], Span.SPAN_KIND_CLIENT))
    return spans


def call_of(span: Span, servers: dict[bytes, str]) -> str:
    for attribute in span.attributes:
        if attribute.key == "bartizan.call":
            return attribute.value.string_value
    return servers.get(span.parent_span_id, "")


def arrived(spans: list[Span]) -> set[tuple[str, int]]:
    server = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    servers = {span.span_id: call_of(span, {}) for span in server}
    return {(call_of(span, servers), span.kind) for span in spans}


def check(receiver: Receiver, state: pathlib.Path, signals: list[str]) -> None:
    """Waits until everything has arrived, and looks at what did."""
    records = journal(state)
    with_call = [record for record in records if "call" in record]
    spans = wanted(with_call)

    def is_complete() -> bool:
        with receiver.lock:
            got, logs = list(receiver.spans), list(receiver.logs)
        seqs = {record["seq"] for record in logs}
        return spans <= arrived(got) and ("logs" not in signals or {record["seq"] for record in records} <= seqs)

    until("everything", is_complete)
    with receiver.lock:
        got, logs = list(receiver.spans), list(receiver.logs)
    print(f"ok       {len(spans)} spans of {len(records)} records arrived, none is missing")
    expect("no span arrived that no record stands for", arrived(got) <= spans, arrived(got) - spans)
    by_id: dict[bytes, Span] = {}
    twice = 0
    for span in got:
        before = by_id.setdefault(span.span_id, span)
        expect_same = (before.trace_id, before.start_time_unix_nano, before.kind)
        if (span.trace_id, span.start_time_unix_nano, span.kind) != expect_same:
            raise RuntimeError(f"two spans have one id: {span} {before}")
        twice += before is not span
    print(f"ok       {twice} spans arrived twice, each with the same id")
    traced = {record["call"] for record in with_call if record.get("trace_id") == TRACE}
    servers = {span.span_id: call_of(span, {}) for span in got if span.kind == Span.SPAN_KIND_SERVER}
    under = {call_of(span, servers) for span in got if span.trace_id.hex() == TRACE}
    expect(f"{len(traced)} calls with sampling off are in the trace of their caller", traced == under and traced)
    denied = [span for span in got if any(it.key == "error.type" for it in span.attributes)]
    names = {it.key for span in denied for it in span.attributes}
    expect("arguments are no attributes, and take the place of none", "bartizan.decision.effect" in names and not any(
        "argument-" in name for name in names))
    if "logs" in signals:
        lines = {record["seq"]: record for record in logs}
        expect("each log record is its journal record", all(lines[it["seq"]] == it for it in records))


def play(protocol: str, signals: list[str], away_s: float) -> None:
    print(f"         {protocol}, {' and '.join(signals)}, away for {away_s:g} s")
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, listen, admin, grpc, over_http = (free_port() for _ in range(5))
        receiver = Receiver()
        stack.callback(receiver.shutdown)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        (work / "policy").mkdir()
        (work / "policy/rules.rego").write_text(POLICY)
        port = grpc if protocol == "grpc" else over_http
        (work / "bartizan.yaml").write_text(
            f"listen: 127.0.0.1:{listen}\nadmin: 127.0.0.1:{admin}\nstate: {work}/state\n"
            f"policy: {{paths: [{work}/policy]}}\naudit: {{each_refusal: true}}\n"
            f"otlp: {{endpoint: 'http://127.0.0.1:{port}', protocol: {protocol}, signals: [{', '.join(signals)}]}}\n"
            f"servers:\n  flags:\n    path: /mcp\n    url: http://127.0.0.1:{server}/mcp\n"
            f"    pack: flag-service\n    environment: staging\n"
        )
        collector = [
            str(ROTEL), "start", f"--otlp-grpc-endpoint=127.0.0.1:{grpc}", f"--otlp-http-endpoint=127.0.0.1:{over_http}",
            "--disable-batching", "--exporter=otlp", "--otlp-exporter-protocol=http",
            f"--otlp-exporter-endpoint=http://127.0.0.1:{receiver.server_port}",
        ]
        flags = [BARTIZAN, "demo", "--server-only", "--port", str(server)]
        stack.enter_context(process(flags, work / "server.log"))
        with process(collector, work / "rotel.log"):
            stack.enter_context(process([BARTIZAN, "run", "-c", str(work / "bartizan.yaml")], work / "bartizan.log"))
            until("the firewall", lambda: get(admin, "/readyz") == 200)
            with Callers(listen):
                time.sleep(2)
            check(receiver, work / "state", signals)
        with Callers(listen) as callers:
            time.sleep(away_s)
            made = callers.made
            with receiver.lock:
                before = len(receiver.spans)
            with process(collector, work / "rotel.log"):
                time.sleep(2)
                callers.finish()
                print(f"         {made} calls while it was away; {before} spans had arrived")
                check(receiver, work / "state", signals)
        expect("there were calls while it was away", made > 10, made)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--away", type=float, default=20, metavar="SECONDS")
    away_s = options.parse_args().away
    play("http", ["traces", "logs"], away_s)
    play("grpc", ["traces", "logs"], min(away_s, 20))


if __name__ == "__main__":
    main()
