"""A small MCP server with one tool, get_flag, whose answer is always the same.

`server.py --port N` speaks Streamable HTTP with sessions, `server.py --stdio` speaks over standard
input and output. It is for the peers that need a whole session; the other measurements have nginx
as their server, which costs less.
"""

import asyncio
import json
import sys
from typing import Any

TEXT = "on for a quarter of staging"
TOOL = {
    "name": "get_flag",
    "description": "Reads one flag.",
    "inputSchema": {
        "type": "object",
        "properties": {"key": {"type": "string"}, "environment": {"type": "string"}, "context": {"type": "object"}},
        "required": ["key"],
    },
    "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
}
Json = dict[str, Any]


def result_of(method: str, params: Json) -> Json | None:
    """The result of one request; none if the method is unknown."""
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "flags", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": TEXT}], "isError": False}
    return {} if method == "ping" else None


def answer_to(raw: bytes) -> tuple[Json | None, bool]:
    """The answer to one message, none for a notification; and whether a session begins."""
    message = json.loads(raw)
    if "id" not in message or "method" not in message:
        return None, False
    answer: Json = {"jsonrpc": "2.0", "id": message["id"]}
    result = result_of(message["method"], message.get("params", {}))
    if result is None:
        answer["error"] = {"code": -32601, "message": "method not found"}
    else:
        answer["result"] = result
    return answer, message["method"] == "initialize"


class Http(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            body = self.received[end + 4 : end + 4 + length]
            self.received = self.received[end + 4 + length :]
            self.transport.write(self.answered(head, body))

    @staticmethod
    def answered(head: bytes, body: bytes) -> bytes:
        if not head.startswith(b"post "):
            status = b"200 OK" if head.startswith(b"delete ") else b"405 Method Not Allowed"
            return b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n"
        answer, begins = answer_to(body)
        if answer is None:
            return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
        session = b"mcp-session-id: 6f1c\r\n" if begins else b""
        encoded = json.dumps(answer).encode()
        lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + session
        return lines + b"content-length: %d\r\n\r\n" % len(encoded) + encoded


async def http(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", port)
    await server.serve_forever()


def stdio() -> None:
    for line in sys.stdin.buffer:
        answer, _ = answer_to(line)
        if answer is not None:
            sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    if sys.argv[1] == "--stdio":
        stdio()
    else:
        asyncio.run(http(int(sys.argv[2])))
