package mcp_baseline_tools_test

# Only the baseline's own codes are compared, so that these tests also pass with your rules loaded.
own := {
	"reads",
	"pinned-writes",
	"allowed-tools",
	"wrong-environment",
	"absent-environment",
	"tool-without-environment",
	"unmapped-environment",
	"unreadable-environment",
	"moves-later-calls",
	"no-pin",
	"no-environment",
	"approval-control",
	"credential-read",
	"destructive",
	"exec",
	"unknown-tool",
}

codes(rules) := {rule.code | some rule in rules} & own

server := {"name": "flags", "environment": "staging", "labels": {}}

unpinned := {"name": "flags", "labels": {}}

call(effect, environments, source) := tagged_call(effect, environments, source, [])

tagged_call(effect, environments, source, tags) := {
	"phase": "call",
	"direction": "to_server",
	"principal": {"id": "agent-1", "kind": "agent", "groups": [], "claims": {}},
	"server": server,
	"method": "tools/call",
	"tool": {"name": "some_tool", "arguments": {}},
	"operation": {
		"effect": effect,
		"environments": environments,
		"environment_source": source,
		"tags": tags,
		"pack": "flag-service",
	},
}

without_pin(request) := object.union(object.remove(request, ["server"]), {"server": unpinned})

permits(request) := found if {
	found := codes(data.mcp.permit) with input as request
}

denies(request) := found if {
	found := codes(data.mcp.deny) with input as request
}

refuses(request) := found if {
	found := codes(data.mcp.refuse) with input as request
}

holds(request) := found if {
	found := codes(data.mcp.hold) with input as request
}

test_reads_are_open if {
	every request in [
		call("read", [], "none"),
		call("read", ["production"], "arguments"),
		call("read", ["*"], "absent"),
		without_pin(call("read", [], "none")),
	] {
		permits(request) == {"reads"}
		denies(request) == set()
	}
}

test_reading_credentials_is_refused if {
	request := tagged_call("read", [], "none", ["credential-read"])
	permits(request) == set()
	refuses(request) == {"credential-read"}
}

test_secrets_are_redacted_from_what_reads_credentials if {
	duty := {{"code": "credential-read", "what": "secrets"}}
	every effect in ["read", "write", "exec"] {
		request := tagged_call(effect, [], "none", ["credential-read"])
		data.mcp.redact == duty with input as request
		data.mcp.redact == set() with input as request
			with data.baseline.reveal_credentials as {request.server.name: [request.tool.name]}
		data.mcp.redact == duty with input as request
			with data.baseline.reveal_credentials as {request.server.name: ["another"]}
	}
	data.mcp.redact == set() with input as call("read", [], "none")
}

test_a_write_inside_the_pin_is_open if {
	request := call("write", ["staging"], "arguments")
	permits(request) == {"pinned-writes"}
	denies(request) == set()
	refuses(request) == set()
}

test_a_write_outside_the_pin_is_denied if {
	every environments in [
		["production"],
		["production", "staging"],
		["staging", "staging2"],
		["Staging"],
		["staging "],
		["null"],
		["*"],
	] {
		request := call("write", environments, "arguments")
		permits(request) == set()
		denies(request) == {"wrong-environment"}
	}
}

test_a_write_that_leaves_the_environment_out_is_denied if {
	every environments in [["*"], ["production"], ["*", "staging"]] {
		request := call("write", environments, "absent")
		permits(request) == set()
		denies(request) == {"absent-environment"}
	}
}

# Without an environment in the call, the vendor uses one that equals the pin. The call did not name it.
test_a_write_that_reaches_the_pin_by_omission_is_held if {
	request := call("write", ["staging"], "absent")
	denies(request) == set()
	permits(request) == {"no-environment"}
	holds(request) == {"no-environment"}
}

test_a_write_whose_environment_cannot_be_read_is_denied if {
	request := call("write", ["*"], "unreadable")
	permits(request) == set()
	denies(request) == {"unreadable-environment"}
}

test_a_write_with_no_place_for_an_environment_is_held if {
	request := call("write", [], "none")
	denies(request) == set()
	permits(request) == {"no-environment"}
	holds(request) == {"no-environment"}
}

test_an_approval_without_an_environment_is_refused_not_held if {
	request := tagged_call("write", [], "none", ["approval-control"])
	permits(request) == set()
	holds(request) == set()
	refuses(request) == {"approval-control"}
}

test_a_write_whose_identifier_is_not_mapped_is_denied if {
	request := call("write", ["*"], "unmapped")
	permits(request) == set()
	denies(request) == {"unmapped-environment"}
}

test_moving_later_calls_is_denied_under_a_pin if {
	every effect in ["read", "write"] {
		request := tagged_call(effect, [], "none", ["session-state"])
		denies(request) == {"moves-later-calls"}
		denies(without_pin(request)) == set()
	}
}

test_a_write_that_is_known_to_reach_everything_is_denied if {
	request := call("write", ["*"], "none")
	permits(request) == set()
	denies(request) == {"tool-without-environment"}
}

test_a_write_without_a_pin_is_refused if {
	every request in [
		call("write", ["staging"], "arguments"),
		call("write", [], "none"),
		call("write", ["*"], "absent"),
	] {
		permits(without_pin(request)) == set()
		denies(without_pin(request)) == set()
		refuses(without_pin(request)) == {"no-pin"}
	}
}

test_a_pin_of_another_type_is_no_pin if {
	every pin in [null, ["staging"], {"staging": true}, 1, true] {
		request := object.union(call("write", ["staging"], "arguments"), {"server": {"environment": pin}})
		permits(request) == set()
		refuses(request) == {"no-pin"}
	}
}

test_acting_on_approvals_is_refused if {
	request := tagged_call("write", ["staging"], "arguments", ["approval-control"])
	permits(request) == set()
	refuses(request) == {"approval-control"}
}

test_destroying_is_refused_inside_the_pin if {
	request := call("destructive", ["staging"], "arguments")
	permits(request) == set()
	denies(request) == set()
	refuses(request) == {"destructive"}
}

test_destroying_outside_the_pin_is_denied if {
	denies(call("destructive", ["production"], "arguments")) == {"wrong-environment"}
}

test_running_code_is_refused if {
	request := call("exec", [], "none")
	permits(request) == set()
	refuses(request) == {"exec"}
}

test_an_unknown_tool_is_refused if {
	request := call("unknown", [], "none")
	permits(request) == set()
	refuses(request) == {"unknown-tool"}
}

test_an_effect_of_a_later_version_permits_nothing if {
	permits(call("summon", ["staging"], "arguments")) == set()
}

allowed := {"allow_tools": {"flags": ["some_tool"]}}

test_a_tool_can_be_allowed_by_name if {
	every effect in ["destructive", "exec", "unknown"] {
		found := permits(call(effect, [], "none")) with data.baseline as allowed
		found == {"allowed-tools"}
	}
}

test_a_name_needs_no_person_as_well if {
	request := call("write", [], "none")
	found := holds(request) with data.baseline as allowed
	found == set()
}

test_a_name_counts_for_its_own_server_only if {
	found := permits(call("unknown", [], "none")) with data.baseline as {"allow_tools": {"other": ["some_tool"]}}
	found == set()
}

test_allowing_one_tool_allows_no_other if {
	found := permits(call("unknown", [], "none")) with data.baseline as {"allow_tools": {"flags": ["some_tool2"]}}
	found == set()
}

test_a_misshapen_allowance_allows_nothing if {
	every shape in [["some_tool"], {"flags": "some_tool"}, {"flags": {}}, "some_tool", null, true] {
		found := permits(call("unknown", [], "none")) with data.baseline as {"allow_tools": shape}
		found == set()
	}
}

test_no_allowance_reaches_outside_the_pin if {
	found := denies(call("destructive", ["production"], "arguments")) with data.baseline as allowed
	found == {"wrong-environment"}
}

test_a_call_by_the_server_is_never_open if {
	every effect in ["read", "write", "unknown"] {
		request := object.union(call(effect, ["staging"], "arguments"), {"direction": "to_client"})
		found := permits(request) with data.baseline as allowed
		found == set()
	}
}

test_nothing_is_open_by_an_empty_input if {
	permits({}) == set()
}
