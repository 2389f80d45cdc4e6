"""Measurements without wrk: events of a stream, and calls over standard input and output.

The client is this process; for events it is the server, too, so that one clock sees both ends.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from load import Json
from targets import HERE, ROOT, RULES, TEXT, WORK, rss_kib_of

EVENT = (
    b'id: stream-1/4711\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"'
    + b"x" * 900 + b'"}}\n\n'
)
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
END = b"\n\n"
BURST = 2_000
WINDOW = 16
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def in_turn(ways: list[Callable[[], float]], seconds: float) -> list[Json]:
    """Uses the ways by turns for so long each; for every one the median time, and the 99th percentile."""
    times: list[list[float]] = [[] for _ in ways]
    end = time.monotonic() + seconds * len(ways)
    while time.monotonic() < end:
        for way, taken in zip(ways, times, strict=True):
            taken.append(way())
    found = []
    for taken in times:
        taken.sort()
        p99 = taken[len(taken) * 99 // 100]
        p50 = statistics.median(taken)
        found.append({"p50_us": round(p50 * 1e6, 1), "p99_us": round(p99 * 1e6, 1), "requests": len(taken)})
    return found


def listener() -> socket.socket:
    """Where proxies and the client find the server of events."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(20)
    return server


def until(connection: socket.socket, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        received = connection.recv(65536)
        if not received:
            raise RuntimeError(f"closed after {seen[-300:]!r}")
        seen += received
    return seen


@dataclass
class EventWay:
    """A stream through one target, with both of its ends."""

    name: str
    server: socket.socket
    client: socket.socket
    # What has come of a chunk that is not whole, and of the end of an event.
    kept: bytes = b""
    text: bytes = b""

    @classmethod
    def opened(cls, name: str, port: int, server: socket.socket) -> "EventWay":
        client = socket.create_connection(("127.0.0.1", port), 20)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"GET /events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n")
        accepted, _ = server.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until(accepted, b"\r\n\r\n")
        accepted.sendall(HEAD)
        head = until(client, b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"{name} answered {head!r}")
        return cls(name, accepted, client)

    def one(self) -> float:
        """How long one event takes, s."""
        begun = time.perf_counter()
        self.server.sendall(CHUNK)
        self.read(1)
        return time.perf_counter() - begun

    def burst(self) -> Json:
        """Many events as fast as they can be read."""
        writer = threading.Thread(target=self.server.sendall, args=(CHUNK * BURST,))
        begun = time.perf_counter()
        writer.start()
        self.read(BURST)
        taken = time.perf_counter() - begun
        writer.join()
        return {"requests": BURST, "us": round(taken * 1e6), "rate": round(BURST / taken, 1)}

    def read(self, events: int) -> None:
        """Reads so many events. A proxy may cut the stream into other chunks than the server."""
        while events > 0:
            received = self.client.recv(1 << 18)
            if not received:
                raise RuntimeError(f"{self.name} closed the stream")
            self.kept += received
            while (head := self.kept.find(b"\r\n")) >= 0:
                end = head + 2 + int(self.kept[:head], 16)
                if len(self.kept) < end + 2:
                    break
                # The end of an event may be cut in two.
                text = self.text + self.kept[head + 2 : end]
                self.kept = self.kept[end + 2 :]
                events -= text.count(END)
                self.text = text[-1:] if not text.endswith(END) else b""

    def close(self) -> None:
        self.client.close()
        self.server.close()


@dataclass
class StdioWay:
    """A server over standard input and output, by itself or behind Bartizan."""

    name: str
    process: subprocess.Popen[bytes]
    number: int = field(default=0)

    @classmethod
    @contextlib.contextmanager
    def started(cls, name: str) -> "Iterator[StdioWay]":
        command = [sys.executable, str(HERE / "server.py"), "--stdio"]
        if name == "bartizan":
            (WORK / "stdio.rego").write_text(RULES)
            policies = [str(ROOT / f"policies/baseline/{one}.rego") for one in ("tools", "protocol")]
            options = [option for path in [*policies, str(WORK / "stdio.rego")] for option in ("--policy", path)]
            options += ["--pack", "flag-service", "--environment", "staging", "--state", str(WORK / "stdio.state")]
            command = [os.environ["BARTIZAN"], "wrap", *options, "--", *command]
        log = (WORK / f"stdio-{name}.out").open("wb")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=WORK)
        log.close()
        way = cls(name, process)
        try:
            client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
            way.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}))
            if b"serverInfo" not in way.receive():
                raise RuntimeError(f"{name}: no session")
            way.send('{"jsonrpc":"2.0","method":"notifications/initialized"}')
            yield way
        finally:
            process.kill()
            process.communicate()

    def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended")
        return line

    def called(self, template: str) -> str:
        self.number += 1
        return template.replace("@N@", str(10**9 + self.number))

    def answered(self) -> None:
        line = self.receive()
        if TEXT.encode() not in line:
            raise RuntimeError(f"{self.name} answered {line[:300]!r}")

    def caller(self, template: str) -> Callable[[], float]:
        def one() -> float:
            text = self.called(template)
            begun = time.perf_counter()
            self.send(text)
            self.answered()
            return time.perf_counter() - begun

        return one

    def window(self, template: str, seconds: float) -> Json:
        """Calls with as many open as the window has."""
        begun = time.perf_counter()
        done = 0
        for _ in range(WINDOW):
            self.send(self.called(template))
        while time.perf_counter() - begun < seconds:
            self.answered()
            done += 1
            self.send(self.called(template))
        taken = time.perf_counter() - begun
        for _ in range(WINDOW):
            self.answered()
        return {"requests": done, "us": round(taken * 1e6), "rate": round(done / taken, 1)}

    def rss_kib(self) -> int:
        """Of the process alone, without the server behind it."""
        return rss_kib_of(self.process.pid)
