// What bench_node.py has Node do: a line of JSON in, `{way, calls, inFlight}`, a line out with what it took.
import { createInterface } from 'node:readline';
import { readFile } from 'node:fs/promises';
import { FalWorker, runFal } from '../node/fal-worker.mjs';

const OPTIONS = { prompt: 'Two sentences about a mug.' };
const workers = new Map();

const ways = {
  'one process a call': () => () => runFal('any-llm-complete', OPTIONS),
  ping: (worker) => () => worker.ping(),
  'any-llm-complete': (worker) => () => worker.call('any-llm-complete', OPTIONS),
};

async function workerFor(inFlight) {
  if (!workers.has(inFlight)) workers.set(inFlight, await FalWorker.start({ concurrency: inFlight }));
  return workers.get(inFlight);
}

async function measured({ way, calls, inFlight }) {
  const worker = way === 'one process a call' ? null : await workerFor(inFlight);
  const call = ways[way](worker);
  const latencies = [];
  let left = calls;
  const began = performance.now();
  const lane = async () => {
    while (left-- > 0) {
      const from = performance.now();
      await call();
      latencies.push(performance.now() - from);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  const seconds = (performance.now() - began) / 1e3;
  globalThis.gc(); // What is resident also holds what V8 has not cleared away yet.
  const memory = { worker: worker && (await rss(worker.pid)), node: process.memoryUsage().heapUsed / 1e6 };
  return { seconds, latencies, memory };
}

async function rss(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return (Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) * 1024) / 1e6;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await measured(JSON.parse(line)))}\n`);
}
await Promise.all([...workers.values()].map((worker) => worker.close()));
