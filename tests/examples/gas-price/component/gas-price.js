// Asks a node for its chain and its gas price.
//
// Never fails an evaluation by itself: what goes wrong is in the output, and the policy decides.
import { fetch } from 'newton:provider/http@0.2.0';

function ask(url, id, method) {
  const response = fetch({
    url,
    method: 'POST',
    headers: [['content-type', 'application/json']],
    body: new TextEncoder().encode(JSON.stringify({ jsonrpc: '2.0', id, method, params: [] })),
  });
  if (response.status !== 200) {
    throw new Error(`the node answered with status ${response.status}`);
  }
  const answer = JSON.parse(new TextDecoder().decode(new Uint8Array(response.body)));
  if (typeof answer.result !== 'string') {
    throw new Error(`the node answered ${method} with an error`);
  }
  // Exact beyond 2^53, and a text from here on.
  return BigInt(answer.result).toString();
}

export function run(input) {
  let answer;
  try {
    const { url } = JSON.parse(input)._params;
    answer = { chain_id: ask(url, 1, 'eth_chainId'), wei: ask(url, 2, 'eth_gasPrice') };
  } catch (error) {
    // An error of the interface has its text in `payload`.
    answer = { error: String(error.payload ?? error.message ?? error) };
  }
  return JSON.stringify({ gas_price: answer });
}
