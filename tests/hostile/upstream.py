"""The protected servers: a fast one for the benign clients, and a hostile one.

`upstream.py PORT`. One process serves both roles, each on a process of its own: what a request asks
for decides. The answers that the hostile server gives are made once, before it listens.
"""

import asyncio
import itertools
import re
import sys

from message import text

# The beginning of a request as `message.frame` writes it: id, method, and the first parameter if it is a text.
MESSAGE = re.compile(rb'\{"jsonrpc":"2\.0","id":(\d+|"[^"]*"),"method":"([^"]*)","params":\{(?:"(\w+)":"([^"]{0,200})")?')
# What one page may hold within 4 MiB.
ENTRIES = 60_000
HEADER_PAGES = 6
KEEP_ALIVE_S = 0.2


def hidden_page() -> bytes:
    """Entries that a policy hides, each for its name."""
    return text([{"name": f"t{n}\u200b", "inputSchema": {}} for n in range(ENTRIES)])


def plain_page() -> bytes:
    """A long answer of nothing in particular."""
    return text([{"name": f"tool{n}", "inputSchema": {"type": "object"}} for n in range(ENTRIES)])


def header_page(page: int) -> bytes:
    """Tools with many parameters that go into headers, all of other names than the last page's."""

    def tool(n: int) -> dict[str, object]:
        long = "n" * 60
        named = {f"{long}{p}": {"type": "string", "x-mcp-header": f"H{page}-{n}-{p}"} for p in range(24)}
        return {"name": f"page{page}tool{n}", "inputSchema": {"type": "object", "properties": named}}

    return text([tool(n) for n in range(1_100)])


LISTS: dict[str, bytes] = {}


def lists() -> None:
    LISTS["hidden"] = hidden_page()
    LISTS["plain"] = plain_page()
    for page in range(HEADER_PAGES):
        LISTS[f"headers{page}"] = header_page(page)


class Connection(asyncio.Protocol):
    numbers = itertools.count()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.bytes = bytearray()
        self.needed = 0
        self.chatter: asyncio.Task[None] | None = None

    def connection_lost(self, _cause: Exception | None) -> None:
        if self.chatter:
            self.chatter.cancel()

    def data_received(self, data: bytes) -> None:
        self.bytes += data
        while len(self.bytes) >= self.needed:
            end = self.bytes.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.bytes[:end]).lower()
            length = 0
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            self.needed = end + 4 + length
            if len(self.bytes) < self.needed:
                return
            body = bytes(self.bytes[end + 4 : self.needed])
            del self.bytes[: self.needed]
            self.needed = 0
            self.request(head, body)

    def request(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"post"):
            self.answer(405, b"")
            return
        # Whatever an attack sends costs this server little: a benign call must not wait for it here.
        named = MESSAGE.match(body)
        if not named:
            self.answer(202, b"")
            return
        number, method, parameter, value = (text.decode() for text in named.groups(default=b""))
        params = {parameter: value}
        if method == "initialize":
            session = f"mcp-session-id: s{next(self.numbers)}\r\n"
            info = b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{"subscribe":true}},"serverInfo":{"name":"s","version":"1"}}'
            self.result(number, info, session)
        elif method == "tools/list":
            tools = LISTS.get(params.get("cursor") or "", b"[]")
            self.result(number, b'{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":' + tools + b"}")
        elif params.get("name") == "get_audit_log":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            self.chatter = asyncio.get_running_loop().create_task(self.chat())
        else:
            self.result(number, b'{"resultType":"complete","content":[{"type":"text","text":"on"}]}')

    async def chat(self) -> None:
        while True:
            self.transport.write(b": still here\n\n")
            await asyncio.sleep(KEEP_ALIVE_S)

    def result(self, number: str, result: bytes, headers: str = "") -> None:
        body = b'{"jsonrpc":"2.0","id":' + number.encode() + b',"result":' + result + b"}"
        self.answer(200, body, "content-type: application/json\r\n" + headers)

    def answer(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def main() -> None:
    lists()
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


asyncio.run(main())
