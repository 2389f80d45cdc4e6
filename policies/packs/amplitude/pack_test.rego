# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_amplitude_test

calls := [
	{
		"tool": "get_amplitude_charts",
		"arguments": {},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "create_events",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "tags": []},
		"rule": "deny",
		"code": "tool-without-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
