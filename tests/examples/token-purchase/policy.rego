# An agent may buy listed tokens from one router: a bounded amount, of a token with enough liquidity, at a bounded price.
#
# The call is `buy(token, amountOut, maxAmountIn)`. Written in the older language, without `if`, as many policies of before are; new
# ones begin with `import rego.v1`.
package token_purchase

default allow = false

params = data.params

quote = data.wasm.token_quote

token = input.decoded_function_arguments[0]

amount_out = to_number(input.decoded_function_arguments[1])

max_amount_in = to_number(input.decoded_function_arguments[2])

listed { lower(params.tokens[_].address) == token }

max_amount_out = to_number(entry.max_amount_out) {
	entry := params.tokens[_]
	lower(entry.address) == token
}

# Products, not quotients: whole numbers stay exact. The quote is in units of the paying token per 10^18 of the bought one.
fair_price {
	max_amount_in * 1000000000000000000 * 10000 <= (amount_out * to_number(quote.price)) * (10000 + params.max_slippage_bps)
}

deny[reason] {
	lower(input.to) != lower(params.router)
	reason := "another contract"
}

deny[reason] {
	not listed
	reason := sprintf("token %s is not listed", [token])
}

deny[reason] {
	amount_out > max_amount_out
	reason := "too much at once"
}

deny[reason] {
	to_number(quote.liquidity) < to_number(params.min_liquidity)
	reason := "too little liquidity"
}

deny[reason] {
	not fair_price
	reason := "too dear"
}

allow {
	input.function.name == "buy"
	input.value == 0
	quote.token == token
	is_string(quote.price)
	is_string(quote.liquidity)
	count(deny) == 0
}
