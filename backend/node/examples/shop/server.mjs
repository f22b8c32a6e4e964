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

const worker = new FalWorker();
const shop = await buildShop({
  worker,
  hosts: (process.env.SHOP_HOSTS ?? '').split(',').map((name) => name.trim()).filter(Boolean),
  heartbeatMs: Number(process.env.SHOP_HEARTBEAT_S ?? 15) * 1000,
  logLevel: process.env.LOG ?? 'warn',
});

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
  const url = await shop.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 3000) });
  console.log(`The shop is at ${url}`);
} catch (error) {
  if (!ending) console.error(`The shop cannot start: ${error.message}`);
  await end(1);
}
