// An Express server that takes a product photo and answers with progress, one JSON object per line.
//
//     npm install --prefix node --no-save --omit=dev express@5
//     PORT=8000 node node/examples/recipes/photo_express.mjs
//     curl --no-buffer -H 'Content-Type: image/jpeg' --data-binary @examples/coffee.jpg http://127.0.0.1:8000/products
//
// The last line holds the `result`, or the `error`. When the client leaves before that, the jobs at fal are cancelled.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import express from 'express';
import { FalError, FalWorker } from 'fal-worker';

const { PORT = '8000', HOST = '127.0.0.1' } = process.env;
const TIMEOUT_MS = 110_000;

const worker = await FalWorker.start({ ownProcessGroup: true });
const app = express();

app.post('/products', express.raw({ type: 'image/*', limit: '20mb' }), async (request, response) => {
  if (!Buffer.isBuffer(request.body)) return response.status(415).json({ error: 'Send a photo, as image/*.' });
  const left = new AbortController();
  response.on('close', () => left.abort());
  const send = (line) => !response.destroyed && response.write(`${JSON.stringify(line)}\n`);
  const folder = await mkdtemp(join(tmpdir(), 'photo-'));
  try {
    const image = join(folder, 'photo');
    await writeFile(image, request.body);
    response.type('application/x-ndjson');
    const settings = { signal: left.signal, timeoutMs: TIMEOUT_MS, onProgress: send };
    send({ result: await worker.call('workflow', { image }, settings) });
  } catch (error) {
    if (!(error instanceof FalError)) throw error;
    send({ error: error.message, error_type: error.errorType, retryable: error.retryable });
  } finally {
    await rm(folder, { recursive: true });
  }
  return response.end();
});

const server = app.listen(Number(PORT), HOST, () => console.log(`http://${HOST}:${server.address().port}`));

// What is open may end; nothing new begins.
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => server.close(() => worker.close()));
