# A subscription to a fund needs a checked investor: level and country from an identity provider, not expired at the reference block.
#
# The provider vouches for one account, and only the one that acts counts.
package kyc

import rego.v1

default allow := {"allow": false, "reasons": ["no attribute"]}

attribute := data.wasm.kyc

reasons contains "another account" if lower(attribute.account) != input.from

reasons contains "expired" if time.parse_rfc3339_ns(attribute.expires_at) <= time.now_ns()

reasons contains "country" if not attribute.country in data.params.countries

reasons contains sprintf("level %d needed", [needed]) if attribute.level < needed

reasons contains "function" if input.function.name != "subscribe"

amount := to_number(input.decoded_function_arguments[1])

# Large subscriptions need the higher level.
needed := 2 if amount >= to_number(data.params.large_amount)

else := 1

allow := true if {
	complete
	count(reasons) == 0
}

allow := {"allow": false, "reasons": reasons} if {
	complete
	count(reasons) > 0
}

# Each member is there and of its type; else nothing above may be taken for a pass.
complete if {
	is_string(attribute.account)
	is_string(attribute.expires_at)
	is_string(attribute.country)
	is_number(attribute.level)
	is_number(amount)
}
