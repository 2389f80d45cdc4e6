"""Plays each scenario with each official client, directly and through Bartizan, and compares.

`harness.py` needs the environment of run.sh: INTEROP (where the peers are installed), BARTIZAN
(the binary), ROOT (the checkout). `--direct` compares two direct runs instead, which tests the
scenarios and normalise.py; `--only WORD` keeps the cases whose name holds WORD.

Every process that it starts listens on loopback only and is ended by its own handle.
"""

import argparse
import asyncio
import contextlib
import difflib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from normalise import normalised

HERE = pathlib.Path(__file__).resolve().parent
INTEROP = pathlib.Path(os.environ["INTEROP"])
ROOT = pathlib.Path(os.environ["ROOT"])
BARTIZAN = os.environ["BARTIZAN"]
EVERYTHING = INTEROP / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"

CLIENT_S_MAX = 240
START_S_MAX = 20
# How long the tests wait for anything else.
PATIENCE_S = 30
DIFFERENCE_CHARS_MAX = 4_000

# name, command, eras to play it in
CLIENTS = {
    "typescript-1": (["node", str(INTEROP / "client_v1.mjs")], ["legacy"]),
    "typescript-2": (["node", str(INTEROP / "client_v2.mjs")], ["auto", "legacy"]),
    "python-2": ([str(INTEROP / "venv/bin/python"), str(INTEROP / "client.py")], ["auto", "legacy"]),
    "inspector": ([sys.executable, str(HERE / "inspector.py")], ["legacy", "auto", "modern"]),
}
# target -> scenario
TARGETS = {
    "everything over stdio": "scenario.everything.json",
    "everything over HTTP": "scenario.everything.json",
    "everything over stdio, served over HTTP": "scenario.everything.json",
    "everything over HTTP, served over stdio": "scenario.everything.json",
    "flag service (rmcp) over HTTP": "scenario.flags.json",
    "everything over SSE": "scenario.everything.json",
    "everything over SSE, served over stdio": "scenario.everything.json",
    "everything over SSE, served over HTTP": "scenario.everything.json",
    "everything over HTTP, served over SSE": "scenario.everything.json",
    "everything over stdio, served over SSE": "scenario.everything.json",
}
# The clients that speak HTTP+SSE, which is of the legacy era alone.
SSE_CLIENTS = {"typescript-1": ["legacy"], "python-2": ["legacy"]}


# Each step starts a process, which is slow, so it runs only against servers of all its eras.
ONLY = {"inspector": ["flag service (rmcp) over HTTP"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, found: Callable[[], object], pause: float = 0.2, patience: float = PATIENCE_S) -> object:
    """What `found` returns as soon as that is something; looks every `pause` s, at most for `patience` s."""
    end = time.monotonic() + patience
    while not (value := found()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not in {patience} s")
        time.sleep(pause)
    return value


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not listen on {port}")


class Relay:
    """Passes bytes on to `target` and counts the keep-alive comments that come back, by method."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.comments = {b"GET": 0, b"POST": 0}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> "Relay":
        self.thread.start()
        serve = asyncio.start_server(self.connected, "127.0.0.1", self.port)
        self.server = asyncio.run_coroutine_threadsafe(serve, self.loop).result(START_S_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.close(), self.loop).result(START_S_MAX)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(START_S_MAX)
        self.loop.close()

    async def close(self) -> None:
        self.server.close()
        open_still = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_still:
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        asked = [b""]  # the method of the request that is being answered

        def question(piece: bytes) -> None:
            asked[0] = next((method for method in self.comments if piece.startswith(method)), asked[0])

        def answer(piece: bytes) -> None:
            if asked[0] in self.comments:
                self.comments[asked[0]] += piece.count(b": keep-alive\n\n")

        passing = self.passed(reader, forth, question), self.passed(back, writer, answer)
        await asyncio.gather(*passing, return_exceptions=True)

    async def passed(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: Callable[[bytes], None]
    ) -> None:
        try:
            while piece := await source.read(1 << 16):
                seen(piece)
                sink.write(piece)
                await sink.drain()
        finally:
            sink.close()


@contextlib.contextmanager
def serving(command: list[str], port: int, log: pathlib.Path, env: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})}
        )
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def everything_stdio() -> list[str]:
    return ["node", str(EVERYTHING), "stdio"]


@contextlib.contextmanager
def everything_http(work: pathlib.Path) -> Iterator[str]:
    port = free_port()
    command = ["node", "--require", str(INTEROP / "loopback.cjs"), str(EVERYTHING), "streamableHttp"]
    with serving(command, port, work / "everything.log", {"PORT": str(port)}):
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def everything_sse(work: pathlib.Path) -> Iterator[str]:
    port = free_port()
    command = ["node", "--require", str(INTEROP / "loopback.cjs"), str(EVERYTHING), "sse"]
    with serving(command, port, work / "everything.log", {"PORT": str(port)}):
        yield f"http://127.0.0.1:{port}/sse"


@contextlib.contextmanager
def flags_http(work: pathlib.Path) -> Iterator[str]:
    port = free_port()
    with serving([BARTIZAN, "demo", "--server-only", "--port", str(port)], port, work / "flags.log"):
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def bartizan(
    work: pathlib.Path,
    server: dict[str, object],
    port: int | None = None,
    comments: bytes | None = None,
    further: dict[str, object] | None = None,
) -> Iterator[str]:
    """`bartizan run` in front of `server`, with `further` keys; its journal must verify afterwards.

    With `comments`, answers to requests of this method must have had keep-alive comments, whose
    interval is short here.
    """
    port, admin = port or free_port(), free_port()
    state = work / "state"
    config = {
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "state": str(state),
        "policy": {"paths": [str(ROOT / "policies/examples/open")]},
        "limits": {"keep_alive": "200ms"} if comments else {},
        "servers": {"peer": {"path": "/mcp", "sse_path": "/sse", **server}},
        **(further or {}),
    }
    file = work / "bartizan.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    relay = Relay(port) if comments else None
    with serving([BARTIZAN, "run", "-c", str(file)], port, work / "bartizan.log"), relay or contextlib.nullcontext():
        yield f"http://127.0.0.1:{relay.port if relay else port}/mcp"
    verify(state)
    if relay and not relay.comments[comments]:
        raise RuntimeError(f"no answer to {comments!r} had a keep-alive comment")


def verify(state: pathlib.Path) -> None:
    """By the program, and by a verifier that shares nothing with it."""
    for command in (
        [BARTIZAN, "audit", "verify", "--state", str(state)],
        [sys.executable, str(HERE / "verify_journal.py"), str(state / "journal")],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[:2]} does not verify the journal: {done.stdout}")


def wrapped(work: pathlib.Path, server: list[str]) -> list[str]:
    policy = str(ROOT / "policies/examples/open")
    return [BARTIZAN, "wrap", "--policy", policy, "--state", str(work / "state"), *server]


def play(client: str, era: str, scenario: str, target: list[str], work: pathlib.Path) -> list[object]:
    command = [*CLIENTS[client][0], str(INTEROP / scenario), *target]
    with (work / "client.log").open("ab") as log:
        done = subprocess.run(
            command, env={**os.environ, "ERA": era}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=log, timeout=CLIENT_S_MAX, check=True,
        )
    return [normalised(json.loads(line)) for line in done.stdout.splitlines()]


def over_stdio(target: str) -> bool:
    """Whether the server itself speaks over stdio, however the client reaches it."""
    return target.startswith("everything over stdio")


def direct(client: str, era: str, target: str, work: pathlib.Path) -> list[object]:
    scenario = TARGETS[target]
    if over_stdio(target):
        return play(client, era, scenario, ["stdio", *everything_stdio()], work)
    if target.startswith("everything over SSE"):
        with everything_sse(work) as url:
            return play(client, era, scenario, ["sse", url], work)
    with (flags_http if "flag" in target else everything_http)(work) as url:
        return play(client, era, scenario, ["http", url], work)


def through_sse(client: str, era: str, target: str, work: pathlib.Path) -> list[object]:
    """HTTP+SSE on one side of Bartizan or on both."""
    scenario = TARGETS[target]
    if target == "everything over stdio, served over SSE":
        with bartizan(work, {"command": everything_stdio()}, comments=b"GET") as url:
            return play(client, era, scenario, ["sse", url.replace("/mcp", "/sse")], work)
    if target == "everything over HTTP, served over SSE":
        with everything_http(work) as upstream, bartizan(work, {"url": upstream}, comments=b"GET") as url:
            return play(client, era, scenario, ["sse", url.replace("/mcp", "/sse")], work)
    with everything_sse(work) as upstream:
        if target == "everything over SSE, served over stdio":
            wrap = wrapped(work, ["--transport", "sse", "--url", upstream])
            seen = play(client, era, scenario, ["stdio", *wrap], work)
            verify(work / "state")
            return seen
        method = b"POST" if "served" in target else b"GET"
        with bartizan(work, {"url": upstream, "transport": "sse"}, comments=method) as url:
            kind = ["http", url] if "served" in target else ["sse", url.replace("/mcp", "/sse")]
            return play(client, era, scenario, kind, work)


def through(client: str, era: str, target: str, work: pathlib.Path) -> list[object]:
    scenario = TARGETS[target]
    if "SSE" in target:
        return through_sse(client, era, target, work)
    if target == "everything over stdio":
        seen = play(client, era, scenario, ["stdio", *wrapped(work, ["--", *everything_stdio()])], work)
        verify(work / "state")
        return seen
    if target == "everything over HTTP, served over stdio":
        with everything_http(work) as upstream:
            seen = play(client, era, scenario, ["stdio", *wrapped(work, ["--url", upstream])], work)
        verify(work / "state")
        return seen
    if target == "everything over stdio, served over HTTP":
        with bartizan(work, {"command": everything_stdio()}, comments=b"POST") as url:
            return play(client, era, scenario, ["http", url], work)
    with (flags_http if "flag" in target else everything_http)(work) as upstream:
        with bartizan(work, {"url": upstream}, comments=None if "flag" in target else b"POST") as url:
            return play(client, era, scenario, ["http", url], work)


def lines(seen: list[object]) -> list[str]:
    return [line for one in seen for line in json.dumps(one, indent=1, ensure_ascii=False).splitlines()]


def logs(work: pathlib.Path) -> str:
    return "".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2_000:]}\n" for log in sorted(work.glob("*.log")))


def compare(name: str, one: list[object], two: list[object]) -> bool:
    difference = list(difflib.unified_diff(lines(one), lines(two), "direct", "through", lineterm="", n=2))
    steps = sum(1 for line in one if isinstance(line, dict) and "step" in line)
    print(f"{'FAILED' if difference else 'ok':<7} {name}: {steps} steps", flush=True)
    if difference:
        print("\n".join(difference)[:DIFFERENCE_CHARS_MAX])
    return not difference


def case(name: str, client: str, era: str, target: str, second: str, seen_direct: dict[object, list[object]]) -> bool:
    """Plays one case. What was seen of a server serves for both ways to reach it."""
    key = (client, era, target.partition(",")[0])
    with tempfile.TemporaryDirectory(prefix="bartizan-interop-") as directory:
        work = pathlib.Path(directory)
        try:
            if key not in seen_direct:
                seen_direct[key] = direct(client, era, target, work)
            expected = seen_direct[key]
            seen = (direct if second == "direct" else through)(client, era, target, work)
            return compare(name, expected, seen)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"FAILED  {name}: {error}\n{logs(work)}", flush=True)
            return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--direct", action="store_true", help="compare two direct runs")
    parser.add_argument("--only", default="", help="keep the cases whose name holds this")
    args = parser.parse_args()
    good = bad = 0
    seen_direct: dict[object, list[object]] = {}
    for target in TARGETS:
        for client, (_, eras) in CLIENTS.items():
            spoken = SSE_CLIENTS.get(client, []) if "SSE" in target else eras
            for era in spoken if target in ONLY.get(client, [target]) else []:
                name = f"{client} ({era}), {target}"
                if args.only in name:
                    held = case(name, client, era, target, "direct" if args.direct else "through", seen_direct)
                    good, bad = good + held, bad + (not held)
    print(f"{good} of {good + bad} alike")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main())
