# Packs: the baseline's decisions on calls of their tools
#
# Each pack has a pack_test.rego in its directory with calls of its tools: the arguments, the
# operation of the call, and the rule of the baseline (loaded too) that decides it under a pin to
# `staging`. The program's own tests compare the operations with the packs.
package packs_test

codes(rules) := {rule.code | some rule in rules}

# Only the baseline's own codes are compared, so that these tests also pass with your rules loaded.
pins := {
	"wrong-environment",
	"absent-environment",
	"tool-without-environment",
	"unmapped-environment",
	"unreadable-environment",
	"moves-later-calls",
}

asked(call) := {
	"phase": "call",
	"direction": "to_server",
	"principal": {"id": "agent-1", "kind": "agent", "groups": [], "claims": {}},
	"server": {"name": "vendor", "environment": "staging", "labels": {}},
	"method": "tools/call",
	"tool": {"name": call.tool, "arguments": call.arguments},
	"operation": call.operation,
	"session": {"facts": {}},
}

denied(call) := found if {
	found := codes(data.mcp.deny) & pins with input as asked(call)
}

says(call) if {
	call.rule == "permit"
	call.code in codes(data.mcp.permit) with input as asked(call)
	count(denied(call)) == 0
}

says(call) if {
	call.rule == "deny"
	call.code in denied(call)
}

says(call) if {
	call.rule == "refuse"
	call.code in codes(data.mcp.refuse) with input as asked(call)
	not permitted(call)
}

says(call) if {
	call.rule == "hold"
	call.code in codes(data.mcp.hold) with input as asked(call)
	count(denied(call)) == 0
}

permitted(call) if {
	own := {"reads", "pinned-writes", "allowed-tools", "no-environment"}
	found := codes(data.mcp.permit) & own with input as asked(call)
	count(found) > 0
}

# The calls that the baseline decides in another way than expected.
wrong(calls) := [call | some call in calls; not says(call)]
