#!/bin/sh
# The memory of many idle event streams: `benches/streams-memory.sh [streams] [program]`.
#
# Starts the program before a server that opens a stream for every request and then says nothing,
# opens the streams, and prints the resident memory before and after. The program needs two file
# descriptors for each stream, so for 10,000 streams the hard limit (`ulimit -Hn`) must be at
# least 20,500; with less, fewer are opened and the memory of those is reported.
set -eu
streams=${1:-10000}
program=${2:-target/dist/bartizan}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
ulimit -n "$(ulimit -Hn)"
python3 - "$streams" "$program" "$work" <<'PYTHON'
import json, os, pathlib, resource, socket, subprocess, sys, threading, time

streams, program, work = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2
streams = min(streams, most)
END = b"\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"


def head(connection):
    got = b""
    while END not in got:
        piece = connection.recv(4096)
        assert piece, got
        got += piece
    return got


def serve(listener):
    """Run as a process of its own: its descriptors are not the clients'."""
    kept = []
    while True:
        connection, _ = listener.accept()
        head(connection)
        connection.sendall(ANSWER)
        kept.append(connection)


listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
child = os.fork()
if child == 0:
    serve(listener)
port = listener.getsockname()[1]
listener.close()
(work / "bartizan.yaml").write_text(
    f"""listen: 127.0.0.1:0
admin: 127.0.0.1:0
state: {work}/state
log: {{format: json}}
servers:
  flags: {{path: /mcp, url: 'http://127.0.0.1:{port}/mcp', pack: flag-service, environment: staging}}
limits: {{connections: 16384, requests: 16384, streams: 12288}}
"""
)
firewall = subprocess.Popen(
    [program, "run", "-c", str(work / "bartizan.yaml")], stderr=subprocess.PIPE, text=True
)
try:
    address = None
    for line in firewall.stderr:
        if '"serving"' in line:
            host, port = json.loads(line)["fields"]["address"].rsplit(":", 1)
            address = (host, int(port))
            break
    threading.Thread(target=firewall.stderr.read, daemon=True).start()

    def resident():
        for line in open(f"/proc/{firewall.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])

    time.sleep(1)
    idle = resident()
    opened = []
    for _ in range(streams):
        client = socket.create_connection(address)
        client.sendall(GET)
        answer = head(client)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        opened.append(client)
    time.sleep(1)
    full = resident()
    each = (full - idle) / streams
    print(f"idle program: {idle / 1024:.1f} MiB")
    print(f"with {streams} idle streams: {full / 1024:.1f} MiB, {each:.2f} KiB each")
    print(f"10,000 idle streams: {(idle + each * 10000) / 1024:.0f} MiB")
finally:
    firewall.kill()
    os.kill(child, 9)
PYTHON
