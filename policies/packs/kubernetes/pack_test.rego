# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_kubernetes_test

calls := [
	{
		"tool": "pods_list",
		"arguments": {},
		"operation": {"effect": "read", "environment_source": "arguments", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "configuration_view",
		"arguments": {},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": ["credential-read"]},
		"rule": "refuse",
		"code": "credential-read",
	},
	{
		"tool": "helm_install",
		"arguments": {"namespace": "41"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "exec", "environment_source": "arguments", "environments": ["staging"], "tags": ["vendor-hint-understates"]},
		"rule": "refuse",
		"code": "exec",
	},
	{
		"tool": "helm_install",
		"arguments": {"namespace": "41", "context": "42"},
		"environment_ids": {"41": "staging", "ser.stg": "staging", "42": "production", "ser.prd": "production"},
		"operation": {"effect": "exec", "environment_source": "arguments", "environments": ["production", "staging"], "tags": ["vendor-hint-understates"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "helm_install",
		"arguments": {},
		"operation": {"effect": "exec", "environment_source": "absent", "environments": ["*"], "tags": ["vendor-hint-understates"]},
		"rule": "deny",
		"code": "absent-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
