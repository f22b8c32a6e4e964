/**
 * The shop: one HTTP server over one worker. Settings: PORT (3000; 0 takes a free one), SHOP_HOSTS (names besides
 * localhost under which it is reached), SHOP_HEARTBEAT_S (15), LOG (warn), and the worker's own, first of all FAL_KEY.
 *
 * It listens on this machine only: put a proxy with sign-in before it, since every product costs money at fal.
 */

import { FalWorker } from '../../fal-worker.mjs';
import { buildShop } from './lib/shop.mjs';

/** How long an open connection may take to end once its answer has. */
const LINGER_MS = 1_000;
const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

const isPort = (text) => Number.isInteger(Number(text)) && text >= 0 && text <= 65_535;
const port = setting('PORT', '3000', isPort, 'a whole number from 0 to 65535');
const isTime = (text) => text >= 0.1 && text <= 3600;
const heartbeatS = setting('SHOP_HEARTBEAT_S', '15', isTime, 'a number of seconds from 0.1 to 3600');
const logLevel = setting('LOG', 'warn', (text) => LEVELS.includes(text), `one of ${LEVELS.join(', ')}`);
const hosts = (process.env.SHOP_HOSTS ?? '').split(',').map((name) => name.trim()).filter(Boolean);

// A terminal's Ctrl-C is for the shop alone: it closes the worker, which cancels what runs and answers.
const worker = new FalWorker({ ownProcessGroup: true });
const shop = await buildShop({ worker, hosts, heartbeatMs: heartbeatS * 1000, logLevel });

let ending = false;

/** Cancels what runs, which ends every open answer, then stops listening and leaves no file and no process. */
async function end(code) {
  if (ending) return;
  ending = true;
  await worker.close();
  setTimeout(() => shop.server.closeAllConnections(), LINGER_MS).unref();
  await shop.close();
  process.exit(code);
}

process.on('SIGTERM', () => void end(0));
process.on('SIGINT', () => void end(0));

try {
  // A missing key, Python or package is told now, not to the first visitor.
  await worker.ready();
  const url = await shop.listen({ host: '127.0.0.1', port: Number(port) });
  console.log(`The shop is at ${url}`);
} catch (error) {
  const taken = `Port ${port} is taken. Name another one in PORT; PORT=0 takes a free one.`;
  if (!ending) console.error(`The shop cannot start: ${error.code === 'EADDRINUSE' ? taken : error.message}`);
  await end(1);
}

/** A setting of the environment, or what is usual when it is empty or not there. */
function setting(name, usual, fits, what) {
  const text = process.env[name]?.trim() || usual;
  if (fits(text)) return text;
  console.error(`The shop cannot start: ${name} is ${JSON.stringify(text)}, but must be ${what}.`);
  process.exit(1);
}
