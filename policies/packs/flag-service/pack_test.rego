# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_flag_service_test

calls := [
	{
		"tool": "get_flag",
		"arguments": {"key": "x"},
		"operation": {"effect": "read", "environment_source": "absent", "environments": ["*"], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "update_flag",
		"arguments": {"key": "x", "environment": "staging"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": []},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "update_flag",
		"arguments": {"key": "x", "environment": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "update_flag",
		"arguments": {"key": "x"},
		"operation": {"effect": "write", "environment_source": "absent", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "absent-environment",
	},
	{
		"tool": "run_script",
		"arguments": {"code": "x"},
		"operation": {"effect": "exec", "environment_source": "none", "environments": [], "tags": []},
		"rule": "refuse",
		"code": "exec",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
