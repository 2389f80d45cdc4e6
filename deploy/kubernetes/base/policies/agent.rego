# The example agent
#
# The whole policy for this agent; it replaces the built-in baseline. Reading is permitted.
# Writing is permitted only if the call names the environment that the server is pinned to.
# Everything else is refused. Start from policies/baseline for a larger policy.
package mcp

permit contains {"code": "protocol", "message": "the handshake, lists and notices"} if {
	input.direction == "to_server"
	input.method in {"initialize", "ping", "server/discover", "tools/list"}
}

permit contains {"code": "notices", "message": "notifications, both ways"} if {
	startswith(input.method, "notifications/")
}

permit contains {"code": "reads", "message": "reading is open"} if {
	call
	input.operation.effect == "read"
}

permit contains {"code": "pinned-writes", "message": "writing inside the pinned environment"} if {
	call
	input.operation.effect == "write"
	input.operation.environment_source == "arguments"
	input.operation.environments == [input.server.environment]
}

refuse contains {"code": "outside-the-pin", "message": "only writes that name the pinned environment are open"} if {
	call
	input.operation.effect == "write"
}

refuse contains {"code": "closed-tool", "message": "this agent may read and write, no more"} if {
	call
	not input.operation.effect in {"read", "write"}
}

limit contains {"code": "writes", "key": input.principal.id, "rate": "30/m", "burst": 10} if {
	call
	input.operation.effect != "read"
}

call if {
	input.method == "tools/call"
	input.direction == "to_server"
}
