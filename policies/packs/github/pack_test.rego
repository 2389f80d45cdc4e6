# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_github_test

calls := [
	{
		"tool": "actions_get",
		"arguments": {"method": "get_workflow"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "actions_get/get_workflow", "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "actions_get",
		"arguments": {"method": "delete_workflow"},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": []},
		"rule": "refuse",
		"code": "unknown-tool",
	},
	{
		"tool": "actions_run_trigger",
		"arguments": {"method": "run_workflow"},
		"operation": {"effect": "exec", "environment_source": "absent", "environments": ["*"], "name": "actions_run_trigger/run_workflow", "tags": ["go-live"]},
		"rule": "deny",
		"code": "absent-environment",
	},
	{
		"tool": "create_pull_request",
		"arguments": {"base": "41"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": []},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "create_pull_request",
		"arguments": {"base": "main"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "write", "environment_source": "unmapped", "environments": ["*"], "tags": []},
		"rule": "deny",
		"code": "unmapped-environment",
	},
	{
		"tool": "delete_file",
		"arguments": {"branch": "42"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "wrong-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
