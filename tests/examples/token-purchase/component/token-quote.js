// Asks a market-data server for the price and the liquidity of the token that the task names.
//
// `wasm_args` is { "token": "0x…" }; the policy compares it with the token of the call. Never fails an evaluation by itself: what goes
// wrong is in the output, and the policy denies.
import { fetch } from 'newton:provider/http@0.2.0';
import { get } from 'newton:provider/secrets@0.2.0';

const text = (bytes) => new TextDecoder().decode(new Uint8Array(bytes));
const amount = /^(0|[1-9][0-9]{0,77})$/;

function quote({ token, _params: { url } }) {
  if (!/^0x[0-9a-fA-F]{40}$/.test(token)) {
    return { error: 'wasm_args name no token' };
  }
  const { api_key } = JSON.parse(text(get().value));
  const response = fetch({
    url: `${url}/${token.toLowerCase()}`,
    method: 'GET',
    headers: [['x-api-key', api_key]],
    body: undefined,
  });
  if (response.status !== 200) {
    return { error: `the server answered with status ${response.status}` };
  }
  const { price, liquidity } = JSON.parse(text(response.body));
  if (!amount.test(price) || !amount.test(liquidity)) {
    return { error: 'the server answered something else' };
  }
  return { token: token.toLowerCase(), price, liquidity };
}

export function run(input) {
  let answer;
  try {
    answer = quote(JSON.parse(input));
  } catch (error) {
    // An error of the interface has its text in `payload`.
    answer = { error: String(error.payload ?? error.message ?? error) };
  }
  return JSON.stringify({ token_quote: answer });
}
