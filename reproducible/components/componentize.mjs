// Makes a component of the world `newton-provider` from one JavaScript module.
// node componentize.mjs SOURCE.js WIT OUT.wasm
import { readFile, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [source, witPath, out] = process.argv.slice(2);
if (!out) {
  console.error('usage: node componentize.mjs SOURCE.js WIT OUT.wasm');
  process.exit(2);
}
const { component } = await componentize(await readFile(source, 'utf8'), {
  witPath,
  worldName: 'newton-provider',
  // What the engine would import for them, no data component is given; design 4b.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
