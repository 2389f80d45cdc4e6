package mcp_baseline_definitions_test

call(standing) := {
	"phase": "call",
	"direction": "to_server",
	"principal": {"id": "agent-1", "kind": "agent", "groups": [], "claims": {}},
	"server": {"name": "flags", "environment": "staging", "labels": {}},
	"method": "tools/call",
	"tool": object.union({"name": "get_flag", "arguments": {}}, standing),
	"operation": {
		"effect": "read",
		"environments": [],
		"environment_source": "none",
		"tags": [],
		"pack": "flag-service",
	},
}

test_a_tool_that_is_not_as_it_was_locked_is_denied if {
	every drift in ["added", "changed", "unlocked", "unseen"] {
		data.mcp.decision.effect == "deny" with input as call({"drift": drift, "flags": []})
	}
}

test_a_locked_tool_and_one_without_a_lock_pass if {
	data.mcp.decision.effect == "permit" with input as call({"drift": "none", "flags": []})
	data.mcp.decision.effect == "permit" with input as call({"flags": []})
	data.mcp.decision.effect == "permit" with input as call({})
}

test_a_definition_with_hidden_text_is_denied if {
	data.mcp.decision.effect == "deny" with input as call({"flags": ["invisible"]})
}

test_lists_lose_what_may_not_be_called if {
	page := {"phase": "list", "method": "tools/list", "tools": [
		{"name": "fine", "drift": "none", "flags": []},
		{"name": "other", "drift": "changed", "flags": []},
		{"name": "new", "drift": "added", "flags": []},
		{"name": "odd", "flags": ["bidi"]},
	]}
	data.mcp.hide == {"new", "odd", "other"} with input as page
	prompts := {"phase": "list", "method": "prompts/list", "entries": [
		{"name": "fine", "flags": []},
		{"name": "odd", "flags": ["twin"]},
	]}
	data.mcp.hide == {"odd"} with input as prompts
}

test_a_schema_that_acts_on_its_reader_is_denied if {
	every flag in ["header-name", "remote-reference"] {
		decision := data.mcp.decision with input as call({"flags": [flag]})
		{reason.code | some reason in decision.reasons} == {"unsafe-schema"}
	}
	both := data.mcp.decision with input as call({"flags": ["bidi", "header-name"]})
	{reason.code | some reason in both.reasons} == {"hidden-text", "unsafe-schema"}
	page := {"phase": "list", "method": "tools/list", "tools": [{"name": "odd", "flags": ["header-name"]}]}
	data.mcp.hide == {"odd"} with input as page
}
