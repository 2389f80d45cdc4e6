# METADATA
# title: The decision
# description: |
#   Combines the partial rules of package mcp into the two documents that Bartizan evaluates:
#   data.mcp.decision for one frame, data.mcp.listing for one page of definitions. This file is
#   compiled into the program and added to every policy that does not bring its own copy.
#
#   Rules are written in as many files as wanted, each an element of one of these sets:
#
#     permit  {code, message}                         lets the frame pass
#     deny    {code, message}                         refuses it, whatever else permits it
#     refuse  {code, message}                         says why, where nothing permits it
#     hold    {code, message, approvers?, ttl?}       a person must approve first
#     limit   {code, key, rate, burst?}               spends from a rate limit
#     set     {pointer, value}                        sets an argument before the call goes on
#     redact  {code, pointer} or {code, what}         takes something out of the answer
#     hide    name                                    leaves a definition out of a list
#
#   Any deny wins. Else some permit is needed. Else the frame is refused: for the reasons in
#   refuse, or as not applicable where there are none. Duties come only with a permit.
package mcp

# Each set exists, and is empty, where no file adds to it.
permit contains rule if some rule in []

deny contains rule if some rule in []

refuse contains rule if some rule in []

hold contains rule if some rule in []

limit contains rule if some rule in []

set contains rule if some rule in []

redact contains rule if some rule in []

hide contains name if some name in []

# METADATA
# title: The answer about one frame
# entrypoint: true
decision := {"effect": "deny", "reasons": deny} if {
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
} else := {"effect": "deny", "reasons": refuse}

# METADATA
# title: The answer about one page of definitions
# entrypoint: true
listing := {"hide": hide}
