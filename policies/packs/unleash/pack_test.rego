# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_unleash_test

calls := [
	{
		"tool": "get_flag_state",
		"arguments": {"environment": "production"},
		"operation": {"effect": "read", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "toggle_flag_environment",
		"arguments": {"environment": "staging"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live"]},
		"rule": "refuse",
		"code": "destructive",
	},
	{
		"tool": "toggle_flag_environment",
		"arguments": {"environment": "production"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["production"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "toggle_flag_environment",
		"arguments": {},
		"operation": {"effect": "destructive", "environment_source": "absent", "environments": ["*"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "absent-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
