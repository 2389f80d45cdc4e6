package mcp_read_only_test

call(effect, tags) := {
	"method": "tools/call",
	"direction": "to_server",
	"tool": {"name": "x", "arguments": {}},
	"operation": {"effect": effect, "environments": ["staging"], "environment_source": "arguments", "tags": tags},
	"principal": {"id": "agent"},
	"server": {"name": "s", "environment": "staging"},
}

codes(rules) := {rule.code | some rule in rules}

test_reads_are_open if {
	"read-only" in codes(data.mcp.permit) with input as call("read", [])
	not "read-only" in codes(data.mcp.deny) with input as call("read", [])
}

test_credentials_are_not if {
	not "read-only" in codes(data.mcp.permit) with input as call("read", ["credential-read"])
}

test_nothing_else_is if {
	"read-only" in codes(data.mcp.deny) with input as call("write", [])
	"read-only" in codes(data.mcp.deny) with input as call("destructive", [])
	"read-only" in codes(data.mcp.deny) with input as call("exec", [])
	"read-only" in codes(data.mcp.deny) with input as call("unknown", [])
}

test_a_call_that_comes_to_nothing_known_is_closed if {
	no_operation := object.remove(call("read", []), ["operation"])
	"read-only" in codes(data.mcp.deny) with input as no_operation
}

test_other_methods_are_no_concern if {
	other := object.union(call("write", []), {"method": "tools/list"})
	not "read-only" in codes(data.mcp.deny) with input as other
}
