# A purchase goes through if the price in the call deviates little from the price server's.
#
# The call is `buy(address,uint256)`: what is bought, and the price per unit in cents. Without an authentic price nothing is bought.
package price_feed

import rego.v1

default allow := false

allow if {
	input.function.name == "buy"
	input.decoded_function_arguments[0] == lower(data.params.asset)
	distance * 10000 <= price * data.params.max_deviation_bps
}

price := to_number(data.wasm.price_feed.price) if not data.wasm.price_feed.error

offered := to_number(input.decoded_function_arguments[1])

distance := abs(offered - price)
