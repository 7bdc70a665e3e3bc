package token_purchase_test

import future.keywords.in

import data.token_purchase

params = {"router": "0xR", "tokens": [{"address": "0xT", "max_amount_out": "2000000000000000000"}], "max_slippage_bps": 100, "min_liquidity": "10"}

quote(changes) = {"token_quote": object.union({"token": "0xt", "price": "100", "liquidity": "10"}, changes)}

# For one token of 10^18 units at 100 and one per cent of slippage, 101 at most.
buy(token, amount, most) = {"to": "0xr", "value": 0, "function": {"name": "buy"}, "decoded_function_arguments": [token, amount, most]}

one = "1000000000000000000"

test_allows_a_fair_purchase {
	token_purchase.allow with data.wasm as quote({}) with data.params as params with input as buy("0xt", one, "101")
}

test_denies_one_unit_more {
	input_ := buy("0xt", one, "102")
	not token_purchase.allow with data.wasm as quote({}) with data.params as params with input as input_
	"too dear" in token_purchase.deny with data.wasm as quote({}) with data.params as params with input as input_
}

test_denies_too_much_at_once {
	"too much at once" in token_purchase.deny with data.wasm as quote({}) with data.params as params with input as buy("0xt", "2000000000000000001", "1")
}

test_denies_an_unlisted_token {
	not token_purchase.allow with data.wasm as quote({"token": "0xu"}) with data.params as params with input as buy("0xu", one, "1")
}

test_denies_a_thin_market {
	not token_purchase.allow with data.wasm as quote({"liquidity": "9"}) with data.params as params with input as buy("0xt", one, "101")
}

test_denies_the_quote_of_another_token {
	not token_purchase.allow with data.wasm as quote({"token": "0xu"}) with data.params as params with input as buy("0xt", one, "101")
}

test_fails_closed {
	not token_purchase.allow with data.wasm as {"token_quote": {"error": "gone"}} with data.params as params with input as buy("0xt", one, "101")
	not token_purchase.allow with data.wasm as {} with data.params as params with input as buy("0xt", one, "101")
}
