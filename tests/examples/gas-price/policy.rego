# Calls wait while gas is dear, except those that must not wait.
#
# The price is a node's `eth_gasPrice`, in wei as a decimal text: JavaScript's numbers end at 2^53. Repaying a loan goes through at any
# price, and when no price is known.
package gas_price

import future.keywords

default allow := false

allow if input.function.name in data.params.urgent

allow if {
	not data.wasm.gas_price.error
	data.wasm.gas_price.chain_id == input.chain_id_string
	to_number(data.wasm.gas_price.wei) <= to_number(data.params.max_wei)
}
