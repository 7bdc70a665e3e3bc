# Daily spend limit for one token.
#
# A payment goes through when its recipient is known and it is either small, or fits into what the day's limit leaves
# according to the wallet's ledger. The ledger statement comes with the task and is authenticated by the component; without an
# authentic statement only small payments pass.
package spend_limit

import rego.v1

default allow := false

allow if {
	known_recipient
	amount <= to_number(data.params.small_payment)
}

allow if {
	known_recipient
	spent + amount <= to_number(data.params.daily_limit)
}

# The token amount of an ERC-20 transfer that moves nothing else.
amount := to_number(input.decoded_function_arguments[1]) if {
	input.function.name == "transfer"
	input.to == lower(data.params.token)
	input.value == 0
}

known_recipient if {
	some recipient in data.params.recipients
	lower(recipient) == input.decoded_function_arguments[0]
}

# What the account has spent today; undefined unless the component vouches for it.
spent := to_number(data.wasm.spend_ledger.spent) if {
	not data.wasm.spend_ledger.error
	data.wasm.spend_ledger.account == input.from
}
