package price_feed_test

import rego.v1

import data.price_feed

params := {"asset": "0xAA", "max_deviation_bps": 100}

feed(price) := {"price_feed": {"asset": "NEWT", "price": price}}

purchase(asset, price) := {"function": {"name": "buy"}, "decoded_function_arguments": [asset, price]}

decide(wasm, asset, price) := result if {
	result := price_feed.allow with data.wasm as wasm with data.params as params with input as purchase(asset, price)
}

test_allows_up_to_one_per_cent if {
	decide(feed("10000"), "0xaa", "10100")
	decide(feed("10000"), "0xaa", "9900")
}

test_denies_beyond if {
	not decide(feed("10000"), "0xaa", "10101")
	not decide(feed("10000"), "0xaa", "9899")
}

test_denies_another_asset if not decide(feed("10000"), "0xab", "10000")

test_no_price_no_purchase if {
	not decide({"price_feed": {"error": "gone"}}, "0xaa", "10000")
	not decide({}, "0xaa", "10000")
}
