package mcp_baseline_limits_test

# Only the baseline's own codes are compared, so that these tests also pass with your rules loaded.
limited(method, effect) := {[rule.code, rule.key] |
	some rule in data.mcp.limit with input as {
		"method": method,
		"principal": {"id": "agent-1"},
		"operation": {"effect": effect},
	}
	rule.code in {"calls", "writes", "completions"}
}

test_reads_count_as_calls if {
	limited("tools/call", "read") == {["calls", "agent-1"]}
}

test_changes_count_as_calls_and_as_writes if {
	every effect in ["write", "destructive", "exec", "unknown"] {
		limited("tools/call", effect) == {["calls", "agent-1"], ["writes", "agent-1"]}
	}
}

test_the_vendors_rates_count_besides if {
	found := {[rule.code, rule.key, rule.rate, rule.burst] |
		some rule in data.mcp.limit with input as {
			"method": "tools/call",
			"principal": {"id": "agent-1"},
			"server": {"name": "flags", "rates": {"read": {"rate": "100/10s", "burst": 20}}},
			"operation": {"effect": "read"},
		}
		rule.code == "vendor"
	}
	found == {["vendor", "flags/read/agent-1", "100/10s", 20]}
}

test_completions_are_counted if {
	limited("completion/complete", "read") == {["completions", "agent-1"]}
}

counted(phase, direction, method) := {[rule.key, rule.rate, rule.burst] |
	some rule in data.mcp.limit with input as {
		"phase": phase,
		"direction": direction,
		"method": method,
		"principal": {"id": "agent-1"},
		"operation": {"effect": "read"},
	}
	rule.code == "requests"
}

test_requests_count_together if {
	every method in ["initialize", "tools/list", "ping", "resources/read"] {
		counted("call", "to_server", method) == {["agent-1", "1200/m", 300]}
	}
}

test_calls_notices_and_the_servers_requests_are_no_such_requests if {
	every method in ["tools/call", "notifications/cancelled"] {
		counted("call", "to_server", method) == set()
	}
	counted("call", "to_client", "ping") == set()
	counted("answer", "to_server", "elicitation/create") == set()
}

test_the_protocol_is_not_counted if {
	every method in ["initialize", "tools/list", "ping", "notifications/progress"] {
		limited(method, "read") == set()
	}
}
