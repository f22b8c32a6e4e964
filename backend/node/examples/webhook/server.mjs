// A Fastify server that takes fal's webhooks: verified, and each job's once.
//
//     npm install fastify ./backend/node
//     PORT=8000 node backend/node/examples/webhook/server.mjs

import { FalError, verifyFalWebhook } from 'fal-worker';
import Fastify from 'fastify';

const MAX_BODY_BYTES = 64 * 1024 * 1024; // a result may hold pictures

const app = Fastify({ logger: true, bodyLimit: MAX_BODY_BYTES });

// What was signed are the bytes: they must not be parsed before.
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body));

app.post('/webhooks/fal', async (request, reply) => {
  let webhook;
  try {
    webhook = await verifyFalWebhook(request.headers, request.body ?? Buffer.alloc(0));
  } catch (error) {
    if (!(error instanceof FalError)) throw error;
    request.log.warn(error.message);
    return reply.code(error.errorType === 'webhook_rejected' ? 401 : 503).send(); // after a 503 fal delivers it again
  }
  if (webhook.repeat) return reply.send();
  try {
    await keep(webhook);
  } catch (error) {
    webhook.forget(); // fal's next delivery counts as the first
    throw error;
  }
  return reply.send();
});

/** What your shop does with a result. */
async function keep(webhook) {
  app.log.info(`job ${webhook.requestId}: ${webhook.json().status}`);
}

await app.listen({ port: Number(process.env.PORT ?? 8000), host: '127.0.0.1' });
