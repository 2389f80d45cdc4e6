# The decision
#
# Combines the partial rules of package mcp into the two documents that Bartizan evaluates:
# data.mcp.decision for one message, data.mcp.listing for one page of a list. This file is
# compiled into the program and added to every policy that has no copy of its own.
#
# Rules are in any number of files; each adds elements to one of these sets:
#
#   permit  {code, message}                         permits the message
#   deny    {code, message, tell?}                  refuses it, even if another rule permits it
#   refuse  {code, message, tell?}                  the reason where no rule permits it
#   hold    {code, message, tell?, approvers?, ttl?}  a person must approve first
#   limit   {code, key, rate, burst?, window?, cost?, counts?} or {code, key, concurrent}
#                                                   bounds calls in time, or calls in flight
#   set     {pointer, value}                        sets an argument before the call is forwarded
#   redact  {code, pointer} or {code, what}         removes a part of the answer
#   hide    name                                    removes a definition from a list
#
# `tell` is a sentence for the agent, who sees nothing else of a rule.
#
# If there is a deny, the message is refused. Otherwise it needs a permit. Without one it is
# refused for the reasons in refuse, or as not applicable if there are none. Duties (hold, limit,
# set, redact) count only with a permit; a limit with `"counts": "all"` counts refused messages,
# too.
package mcp

# The client's answer to a request of the server passes unless a rule denies it: the request had its
# permit. Bartizan evaluates an answer as a message to the server with the request's method.
permit contains {"code": "asked", "message": "an answer to a question that was permitted"} if {
	input.phase == "answer"
}

# Defines each set, as empty, for policies in which no file adds to it.
permit contains rule if some rule in []

deny contains rule if some rule in []

refuse contains rule if some rule in []

hold contains rule if some rule in []

limit contains rule if some rule in []

set contains rule if some rule in []

redact contains rule if some rule in []

hide contains name if some name in []

# The limits that count refused messages, too.
limit_all contains rule if {
	some rule in limit
	rule.counts == "all"
}

# METADATA
# title: The decision on one message
# entrypoint: true
decision := {"effect": "deny", "reasons": deny, "limit": limit_all} if {
	count(deny) > 0
	count(limit_all) > 0
} else := {"effect": "deny", "reasons": deny} if {
	count(deny) > 0
} else := {
	"effect": "permit",
	"reasons": permit,
	"hold": hold,
	"limit": limit,
	"set": set,
	"redact": redact,
} if {
	count(permit) > 0
} else := {"effect": "deny", "reasons": refuse, "limit": limit_all} if {
	count(limit_all) > 0
} else := {"effect": "deny", "reasons": refuse}

# METADATA
# title: The names to hide in one page of a list
# entrypoint: true
listing := {"hide": hide}
