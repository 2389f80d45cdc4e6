# Baseline: limits
#
# Rate limits for each principal: far above what one agent needs, and far below what an agent in
# an endless loop sends. `burst` is the number of calls that may come at once. Refused tool calls
# count as calls, too. The other requests of MCP count together, because each is recorded twice
# and some begin a session; methods in `allow_methods` do not count. If the server's pack knows
# the vendor's own limits, they apply as well.
package mcp

limit contains {"code": "calls", "key": input.principal.id, "rate": "600/m", "burst": 100, "counts": "all"} if {
	tool_call
}

limit contains {"code": "writes", "key": input.principal.id, "rate": "10/m", "burst": 5} if {
	tool_call
	input.operation.effect != "read"
}

limit contains {"code": "vendor", "key": key, "rate": known.rate, "burst": known.burst} if {
	tool_call
	effect := input.operation.effect
	known := input.server.rates[effect]
	key := concat("/", [input.server.name, effect, input.principal.id])
}

limit contains {"code": "requests", "key": input.principal.id, "rate": "1200/m", "burst": 300} if {
	input.phase == "call"
	input.direction == "to_server"
	input.method in client_methods
}

limit contains {"code": "requests", "key": input.principal.id, "rate": "1200/m", "burst": 300} if {
	input.phase == "call"
	input.direction == "to_server"
	input.method in read_methods
}

limit contains {"code": "completions", "key": input.principal.id, "rate": "300/m", "burst": 50} if {
	input.method == "completion/complete"
}
