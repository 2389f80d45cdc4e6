# METADATA
# title: "Packs: what the baseline says to what they say"
# description: |
#   Each pack has a pack_test.rego beside it with calls of its tools: the arguments, the operation
#   that they come to, and the rule of the baseline, loaded beside, that answers under a pin to
#   `staging`. The program's own tests hold the operations to the packs.
package packs_test

codes(rules) := {rule.code | some rule in rules}

# The baseline's own, so that this holds beside rules of yours.
pins := {
	"wrong-environment",
	"absent-environment",
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
	"session": {"facts": {}, "tainted": false},
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

# The calls of which the baseline says something else.
wrong(calls) := [call | some call in calls; not says(call)]
