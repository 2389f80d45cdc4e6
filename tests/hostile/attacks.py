"""The attacks: what a client on the network, or a protected server, does to the whole program.

`attacks.py CASE SETTING` prepares one attack, prints a line, waits for a line, and attacks until it
is ended. Each attack is a coroutine in `CASES`; it takes a `Target` and never returns. All sockets
of attackers come from an address of their own, and all their tokens name one principal. `ONCE=1`
in the environment sends one request and prints the start of its answer on standard error, to see
that an attack says what it means.
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import message

SOURCE = "127.0.0.66"
PAUSE_S = 0.02
READ_BYTES = 1 << 16
# Just below `limits.frame_bytes`.
BIG_BYTES = 4_190_000


@dataclass
class Target:
    port: int
    admin: int
    token: str
    connections: int  # for attacks that only hold connections

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        return message.post(self.port, path, body, self.token, headers)

    def call(self, name: str, arguments: object, path: str = "/flags") -> bytes:
        return self.post(path, message.call(name, arguments), message.routing("tools/call", name))

    def list_tools(self, cursor: str) -> bytes:
        body = message.frame("tools/list", {"cursor": cursor})
        return self.post("/hostile", body, message.routing("tools/list"))

    def initialize(self, name: str) -> bytes:
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": name, "version": "1"},
        }
        return self.post("/hostile", message.frame("initialize", params, modern=False), {})


Attack = Callable[[Target], Awaitable[None]]
CASES: dict[str, tuple[str, Attack]] = {}


def case(item: str) -> Callable[[Attack], Attack]:
    def add(attack: Attack) -> Attack:
        CASES[attack.__name__.replace("_", "-")] = (item, attack)
        return attack

    return add


@contextlib.asynccontextmanager
async def connected(
    port: int, receive_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    sock.bind((SOURCE, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def again(connection: Callable[[], Awaitable[None]], pause: float = PAUSE_S) -> None:
    """Runs a connection again and again, whatever ended it."""
    while True:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            await connection()
        await asyncio.sleep(pause)


async def many(connection: Callable[[], Awaitable[None]], count: int, pause: float = PAUSE_S) -> None:
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(again(connection, pause)))
        if number % 64 == 63:
            await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)


async def once(port: int, data: bytes) -> None:
    async with connected(port) as (reader, writer):
        writer.write(data)
        print((await asyncio.wait_for(reader.read(1500), 30)).decode(errors="replace"), file=sys.stderr)
    sys.exit()


def go() -> None:
    """All is prepared: waits until every attack is."""
    print("ready", flush=True)
    sys.stdin.readline()


async def flood(port: int, blobs: list[bytes], connections: int) -> None:
    """Sends requests without waiting for the answers, which are read and thrown away."""
    go()
    if os.environ.get("ONCE"):
        await once(port, blobs[0])
    turns = itertools.cycle(blobs)

    async def connection() -> None:
        async with connected(port) as (reader, writer):

            async def throw_away() -> None:
                while await reader.read(READ_BYTES):
                    pass

            async def send() -> None:
                while True:
                    writer.write(next(turns))
                    await writer.drain()

            tasks = [asyncio.create_task(throw_away()), asyncio.create_task(send())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    await many(connection, connections)


async def hold(port: int, data: bytes, connections: int, receive_bytes: int | None = None) -> None:
    """Sends the beginning of something and keeps the connection, and does not use it."""
    go()
    if os.environ.get("ONCE"):
        await once(port, data)

    async def connection() -> None:
        async with connected(port, receive_bytes) as (reader, writer):
            writer.write(data)
            if receive_bytes:
                writer.transport.pause_reading()
                await asyncio.sleep(3600)
            while await reader.read(READ_BYTES):
                pass

    await many(connection, connections)


@case("C1")
async def fdfa_name(target: Target) -> None:
    """one argument name of 1.39 million U+FDFA, which NFKC makes 18 times longer"""
    name = "\ufdfa" * ((BIG_BYTES - 1000) // 3)
    await flood(target.port, [target.call("get_flag", {name: 1})], 4)


@case("C1")
async def fdfa_names(target: Target) -> None:
    """30,000 argument names of U+FDFA"""
    names = {f"{n}" + "\ufdfa" * 40: 1 for n in range(30_000)}
    await flood(target.port, [target.call("get_flag", names)], 4)


@case("C1")
async def hide_60000(target: Target) -> None:
    """a server's list of 60,000 entries, all of them hidden"""
    await flood(target.port, [target.list_tools("hidden")], 2)


@case("C1")
async def iterate_100000(target: Target) -> None:
    """100,000 items for a rule that iterates"""
    await flood(target.port, [target.call("get_flag", {"items": ["x"] * 100_000})], 4)


@case("C1")
async def glob_16k(target: Target) -> None:
    """a rule's glob with a pattern of 16 KiB"""
    arguments = {"pattern": "*a" * 8_192, "text": "a" * 16_384}
    await flood(target.port, [target.call("get_flag", arguments)], 4)


@case("C1")
async def many_values(target: Target) -> None:
    """a million values in one message"""
    await flood(target.port, [target.call("get_flag", {"x": [1] * 1_000_000})], 4)


@case("C2")
async def client_info(target: Target) -> None:
    """sessions whose clientInfo has 3.9 MiB"""
    await flood(target.port, [target.initialize("a" * (BIG_BYTES - 100_000))], 4)


@case("C2")
async def header_pages(target: Target) -> None:
    """a server's lists with 26,400 x-mcp-header pointers each, all of them new"""
    await flood(target.port, [target.list_tools(f"headers{page}") for page in range(6)], 2)


@case("C2")
async def unfinished_heads(target: Target) -> None:
    """thousands of connections, each with 60 KB of a head that does not end"""
    data = b"POST /flags HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"".join(
        b"x-%d: %s\r\n" % (n, b"a" * 1000) for n in range(60)
    )
    await hold(target.port, data, target.connections)


@case("C2")
async def big_uris(target: Target) -> None:
    """subscriptions to URIs of 1 MiB"""
    def body(n: int) -> bytes:
        return message.frame("resources/subscribe", {"uri": f"x://{n}/" + "u" * 1_000_000}, modern=False)

    blobs = [target.post("/hostile", body(n), {}) for n in range(8)]
    await flood(target.port, blobs, 4)


@case("C3")
async def not_found(target: Target) -> None:
    """404 at the door, pipelined"""
    asking = f"GET /nowhere HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\n\r\n".encode()
    await flood(target.port, [asking * 500], 2)


@case("C3")
async def no_token(target: Target) -> None:
    """401 at the door, pipelined"""
    asking = message.post(target.port, "/flags", b"{}", "no.such.token", {})
    await flood(target.port, [asking * 200], 2)


@case("C3")
async def denials(target: Target) -> None:
    """calls that policy denies, pipelined"""
    await flood(target.port, [target.call("delete_everything", {}) * 50], 4)


@case("C3")
async def delete_characters(target: Target) -> None:
    """a tool's name of 170,000 DEL, which a record escapes"""
    body = message.frame("tools/call", {"name": "\x7f" * 170_000, "arguments": {}}, modern=False)
    await flood(target.port, [target.post("/flags", body, {})], 4)


@case("C4")
async def announced_bodies(target: Target) -> None:
    """256 connections that announce 4 MiB and send nothing of it"""
    every = message.fields(target.token, message.routing("tools/call", "get_flag"))
    await hold(target.port, message.head(target.port, "/flags", 4 << 20, every), 256)


@case("C4")
async def announced_anonymous(target: Target) -> None:
    """the same without a token"""
    every = message.fields(None, message.routing("tools/call", "get_flag"))
    await hold(target.port, message.head(target.port, "/flags", 4 << 20, every), 256)


@case("C4")
async def admin_connections(target: Target) -> None:
    """256 connections to the admin listener, each with half a head"""
    await hold(target.admin, b"GET /livez HTTP/1.1\r\nx: ", 256)


@case("C4")
async def sessions(target: Target) -> None:
    """one principal begins sessions without an end"""
    await flood(target.port, [target.initialize("a") * 20], 4)


@case("C4")
async def sockets(target: Target) -> None:
    """thousands of connections that say nothing"""
    await hold(target.port, b"", target.connections)


# What follows speaks HTTP/2 (RFC 9113), with prior knowledge.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4


def h2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def hpack(value: str) -> bytes:
    """A literal without Huffman coding (RFC 7541, section 5.2)."""
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, digits = len(raw) - 127, b"\x7f"
    while rest >= 128:
        digits += bytes([rest % 128 + 128])
        rest //= 128
    return digits + bytes([rest]) + raw


def h2_post(target: Target, stream: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    every = {":method": "POST", ":scheme": "http", ":path": path, ":authority": f"127.0.0.1:{target.port}"}
    every |= message.fields(target.token, headers) | {"content-length": str(len(body))}
    block = b"".join(b"\0" + hpack(name) + hpack(value) for name, value in every.items())
    return h2(HEADERS, END_HEADERS, stream, block) + h2(DATA, END_STREAM, stream, body)


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readexactly(9)
        kind, flags = head[3], head[4]
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            writer.write(h2(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            writer.write(h2(PING, ACK, 0, payload))


async def h2_hold(target: Target, settings: bytes, streams: bytes, connections: int) -> None:
    data = PREFACE + h2(SETTINGS, 0, 0, settings) + streams
    go()
    if os.environ.get("ONCE"):
        await once(target.port, data)

    async def connection() -> None:
        async with connected(target.port) as (reader, writer):
            writer.write(data)
            await answer_pings(reader, writer)

    await many(connection, connections)


@case("C4")
async def h2_pings(target: Target) -> None:
    """512 HTTP/2 connections that only answer pings"""
    await h2_hold(target, b"", b"", 512)


@case("C5")
async def h2_window_0(target: Target) -> None:
    """4,000 answers of 3 MB over HTTP/2 that meet a window of 0"""
    body = message.frame("tools/list", {"cursor": "plain"})
    routing = message.routing("tools/list")
    streams = b"".join(h2_post(target, 2 * n + 1, "/hostile", body, routing) for n in range(100))
    await h2_hold(target, struct.pack("!HI", INITIAL_WINDOW_SIZE, 0), streams, 40)


@case("C5")
async def slow_readers(target: Target) -> None:
    """256 connections that do not read their answers of 3 MB"""
    await hold(target.port, target.list_tools("plain"), 256, receive_bytes=4096)


@case("C5")
async def keep_alive_only(target: Target) -> None:
    """512 calls whose answer is a stream of keep-alive comments"""
    await hold(target.port, target.call("get_audit_log", {}, "/hostile"), 512)


async def main() -> None:
    name, setting = sys.argv[1:]
    await CASES[name][1](Target(**json.loads(setting)))


if __name__ == "__main__":
    asyncio.run(main())
