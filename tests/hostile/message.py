"""Bytes of requests: MCP 2026-07-28 and 2025-11-25 over HTTP/1.1."""

import json

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def frame(method: str, params: dict[str, object], number: int = 1, modern: bool = True) -> bytes:
    if modern:
        params = {**params, "_meta": META}
    return text({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def fields(token: str | None, headers: dict[str, str]) -> dict[str, str]:
    every = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    if token:
        every["authorization"] = f"Bearer {token}"
    return every


def routing(method: str, name: str | None = None) -> dict[str, str]:
    """The headers that a modern request must have."""
    named = {"mcp-name": name} if name else {}
    return {"mcp-protocol-version": MODERN, "mcp-method": method, **named}


def head(port: int, path: str, length: int, every: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in every.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(port: int, path: str, body: bytes, token: str | None, headers: dict[str, str]) -> bytes:
    return head(port, path, len(body), fields(token, headers)) + body


def call(name: str, arguments: object) -> bytes:
    return frame("tools/call", {"name": name, "arguments": arguments})
