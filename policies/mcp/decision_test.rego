# Each test replaces every set that it reads, so that it passes whatever other rules are loaded.
package mcp_decision_test

permitted := {{"code": "reads", "message": "reads are open"}}

denied := {{"code": "frozen", "message": "nothing changes on a Friday"}}

refused := {{"code": "unknown-tool", "message": "no pack knows this tool"}}

held := {{"code": "publish", "message": "needs a second pair of eyes", "approvers": ["release"], "ttl": "15m"}}

limited := {{"code": "writes", "key": "agent-1", "rate": "10/m", "burst": 5}}

forced := {{"pointer": "/environment", "value": "staging"}}

redacted := {{"pointer": "/token"}}

test_nothing_permits if {
	decision := data.mcp.decision with data.mcp.permit as set()
		with data.mcp.deny as set()
		with data.mcp.refuse as set()
	decision == {"effect": "deny", "reasons": set()}
}

test_nothing_permits_and_a_rule_says_why if {
	decision := data.mcp.decision with data.mcp.permit as set()
		with data.mcp.deny as set()
		with data.mcp.refuse as refused
	decision == {"effect": "deny", "reasons": refused}
}

test_a_permit_is_enough if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as set()
		with data.mcp.refuse as set()
		with data.mcp.hold as set()
		with data.mcp.limit as set()
		with data.mcp.set as set()
		with data.mcp.redact as set()
	decision == {
		"effect": "permit",
		"reasons": permitted,
		"hold": set(),
		"limit": set(),
		"set": set(),
		"redact": set(),
	}
}

test_a_permit_outweighs_refuse if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as set()
		with data.mcp.refuse as refused
	decision.effect == "permit"
	decision.reasons == permitted
}

test_duties_come_with_a_permit if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as set()
		with data.mcp.hold as held
		with data.mcp.limit as limited
		with data.mcp.set as forced
		with data.mcp.redact as redacted
	decision == {
		"effect": "permit",
		"reasons": permitted,
		"hold": held,
		"limit": limited,
		"set": forced,
		"redact": redacted,
	}
}

test_a_deny_outweighs_every_permit if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as denied
		with data.mcp.refuse as refused
	decision == {"effect": "deny", "reasons": denied}
}

test_a_denial_carries_no_duty if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as denied
		with data.mcp.hold as held
		with data.mcp.limit as limited
		with data.mcp.set as forced
		with data.mcp.redact as redacted
	object.keys(decision) == {"effect", "reasons"}
}

attempts := {"code": "attempts", "key": "agent-1", "rate": "10/m", "counts": "all"}

both := limited | {attempts}

test_a_limit_may_count_denials if {
	decision := data.mcp.decision with data.mcp.permit as permitted
		with data.mcp.deny as denied
		with data.mcp.limit as both
	decision == {"effect": "deny", "reasons": denied, "limit": {attempts}}
}

test_a_limit_may_count_what_nothing_permits if {
	decision := data.mcp.decision with data.mcp.permit as set()
		with data.mcp.deny as set()
		with data.mcp.refuse as refused
		with data.mcp.limit as both
	decision == {"effect": "deny", "reasons": refused, "limit": {attempts}}
}

test_a_refusal_carries_no_duty if {
	decision := data.mcp.decision with data.mcp.permit as set()
		with data.mcp.deny as set()
		with data.mcp.refuse as refused
		with data.mcp.hold as held
		with data.mcp.limit as limited
	object.keys(decision) == {"effect", "reasons"}
}

test_every_denial_is_reported if {
	both := denied | {{"code": "wrong-environment", "message": "outside the pin"}}
	decision := data.mcp.decision with data.mcp.permit as permitted with data.mcp.deny as both
	decision.reasons == both
}

test_every_permit_is_reported if {
	both := permitted | {{"code": "own", "message": "a rule of our own"}}
	decision := data.mcp.decision with data.mcp.permit as both with data.mcp.deny as set()
	decision.reasons == both
}

test_a_listing_hides_what_rules_name if {
	listing := data.mcp.listing with data.mcp.hide as {"delete_flag", "run_script"}
	listing == {"hide": {"delete_flag", "run_script"}}
}

test_a_listing_hides_nothing_by_itself if {
	listing := data.mcp.listing with data.mcp.hide as set()
	listing == {"hide": set()}
}
