# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_configcat_test

calls := [
	{
		"tool": "get-setting-value",
		"arguments": {"environmentId": "42"},
		"operation": {"effect": "read", "environment_source": "unmapped", "environments": ["*"], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "get-sdk-keys",
		"arguments": {"environmentId": "41"},
		"operation": {"effect": "read", "environment_source": "unmapped", "environments": ["*"], "tags": ["credential-read"]},
		"rule": "refuse",
		"code": "credential-read",
	},
	{
		"tool": "create-webhook",
		"arguments": {"environmentId": "41"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": []},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "create-webhook",
		"arguments": {"environmentId": "42"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "create-webhook",
		"arguments": {"environmentId": "43"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "write", "environment_source": "unmapped", "environments": ["*"], "tags": []},
		"rule": "deny",
		"code": "unmapped-environment",
	},
	{
		"tool": "delete-environment",
		"arguments": {"environmentId": "41"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live"]},
		"rule": "refuse",
		"code": "destructive",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
