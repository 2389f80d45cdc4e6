package mcp_agent_test

import data.mcp

tool_call(operation) := {
	"method": "tools/call",
	"direction": "to_server",
	"principal": {"id": "example-agent"},
	"server": {"name": "flags", "environment": "staging"},
	"operation": operation,
}

write_to(environments, source) := tool_call({
	"effect": "write",
	"environments": environments,
	"environment_source": source,
	"tags": [],
})

test_reading_is_open if {
	mcp.decision.effect == "permit" with input as tool_call({"effect": "read", "environments": []})
}

test_writing_is_open_inside_the_pin if {
	mcp.decision.effect == "permit" with input as write_to(["staging"], "arguments")
}

test_writing_spends_a_limit if {
	answer := mcp.decision with input as write_to(["staging"], "arguments")
	some limit in answer.limit
	limit.key == "example-agent"
}

test_writing_is_refused_outside_the_pin if {
	every environments in [["production"], ["staging", "production"], ["*"], []] {
		mcp.decision.effect == "deny" with input as write_to(environments, "arguments")
	}
}

test_an_environment_left_out_is_refused if {
	mcp.decision.effect == "deny" with input as write_to(["staging"], "absent")
}

test_all_else_is_refused if {
	every effect in ["destructive", "exec", "unknown"] {
		mcp.decision.effect == "deny" with input as tool_call({"effect": effect, "environments": ["staging"]})
	}
	mcp.decision.effect == "deny" with input as {"method": "resources/read", "direction": "to_server"}
}
