// Asks a price server for the price of an asset, with the client's API key.
//
// Never fails an evaluation by itself: what goes wrong is in the output, and the policy denies.
import { fetch } from 'newton:provider/http@0.2.0';
import { get } from 'newton:provider/secrets@0.2.0';

const text = (bytes) => new TextDecoder().decode(new Uint8Array(bytes));

function price({ url, asset }) {
  const { api_key } = JSON.parse(text(get().value));
  const response = fetch({
    url: `${url}?asset=${encodeURIComponent(asset)}`,
    method: 'GET',
    headers: [['x-api-key', api_key], ['accept', 'application/json']],
    body: undefined,
  });
  if (response.status !== 200) {
    return { error: `the server answered with status ${response.status}` };
  }
  const answer = JSON.parse(text(response.body));
  if (answer.asset !== asset || typeof answer.price !== 'string') {
    return { error: 'the server answered something else' };
  }
  return { asset, price: answer.price };
}

export function run(input) {
  let feed;
  try {
    feed = price(JSON.parse(input)._params);
  } catch (error) {
    // An error of the interface has its text in `payload`.
    feed = { error: String(error.payload ?? error.message ?? error) };
  }
  return JSON.stringify({ price_feed: feed });
}
