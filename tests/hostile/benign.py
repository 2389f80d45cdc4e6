"""Ten benign agents and one probe, measured from the time at which each call was due.

`benign.py SETTING` reads a JSON setting, runs until its standard input is closed, and prints what it
measured: `{"calls": [[due, seconds, status], …], "livez": [[due, seconds, status], …]}` with
times of the system's monotonic clock. A call that is late because the one before it hung counts
from when it was due, so a stall shows in all that it delayed. Status 0 is no answer; -1 is a call
that waited for one when the measurement ended.
"""

import asyncio
import contextlib
import gc
import json
import sys
import time

import message

# Below the baseline's 600 calls a minute.
CALLS_PER_S = 9
CALL_BYTES = 600
PROBE_S = 0.05
PATIENCE_S = 20.0
PROBE_PATIENCE_S = 5.0


def request(port: int, token: str) -> bytes:
    arguments: dict[str, object] = {"key": "checkout-redesign", "environment": "staging", "note": ""}
    missing = CALL_BYTES - len(message.call("get_flag", arguments))
    arguments["note"] = "x" * missing
    body = message.call("get_flag", arguments)
    return message.post(port, "/flags", body, token, message.routing("tools/call", "get_flag"))


async def answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
            return status
    return 0


class Client:
    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.host, self.port, self.request = host, port, request
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def once(self, patience: float) -> int:
        try:
            async with asyncio.timeout(patience):
                if self.streams is None:
                    self.streams = await asyncio.open_connection(self.host, self.port)
                reader, writer = self.streams
                writer.write(self.request)
                status = await answer(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            status = 0
        if status != 200:
            self.close()
        return status

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
        self.streams = None


async def agent(client: Client, first: float, seen: list[tuple[float, float, int]]) -> None:
    due = first
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        status = -1
        try:
            status = await client.once(PATIENCE_S)
        finally:
            seen.append((due, time.monotonic() - due, status))
        due += 1 / CALLS_PER_S


async def probe(port: int, seen: list[tuple[float, float, int]]) -> None:
    asking = f"GET /livez HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
    due = time.monotonic()
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        # A kubelet opens a connection for each probe, and does not make up for those it missed.
        client = Client("127.0.0.1", port, asking)
        status = -1
        try:
            status = await client.once(PROBE_PATIENCE_S)
        finally:
            client.close()
            seen.append((started, time.monotonic() - started, status))
        due = max(started + PROBE_S, time.monotonic())


async def main() -> None:
    setting = json.loads(sys.argv[1])
    calls: list[tuple[float, float, int]] = []
    livez: list[tuple[float, float, int]] = []
    start = time.monotonic()
    gc.disable()
    tasks = [asyncio.create_task(probe(setting["admin"], livez))]
    for number, token in enumerate(setting["tokens"]):
        client = Client("127.0.0.1", setting["port"], request(setting["port"], token))
        first = start + number / len(setting["tokens"]) / CALLS_PER_S
        tasks.append(asyncio.create_task(agent(client, first, calls)))
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    await stdin.read()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"calls": calls, "livez": livez}))


asyncio.run(main())
