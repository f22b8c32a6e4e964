// verifyFalWebhook: what fal signed passes, anything else is refused with its reason, and repeats are told.

import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';

import { FalError, WebhookVerifier, verifyFalWebhook } from '../fal-worker.mjs';
import { failure } from './helpers.mjs';

const NOW_S = 1_764_115_200;
const BODY = Buffer.from('{"request_id": "r-1", "status": "OK", "payload": {"output": "Şık kupa ✓"}}');
const DAY_MS = 24 * 3_600_000;

const newKey = () => generateKeyPairSync('ed25519');
const row = ({ publicKey }) => publicKey.export({ format: 'jwk' });
const jwks = (...keys) => JSON.stringify({ keys: keys.map(row) });

/** The headers of a delivery, made as fal documents it. */
function signed(key, body = BODY, { requestId = 'r-1', userId = 'user', at = NOW_S } = {}) {
  const message = [requestId, userId, at, createHash('sha256').update(body).digest('hex')].join('\n');
  return {
    'x-fal-webhook-request-id': requestId,
    'x-fal-webhook-user-id': userId,
    'x-fal-webhook-timestamp': String(at),
    'x-fal-webhook-signature': sign(null, Buffer.from(message), key.privateKey).toString('hex'),
  };
}

/** fal's side: its key, the document that publishes it, a clock; and a verifier that sees them. */
function fal(settings = {}) {
  const side = { key: newKey(), nowMs: NOW_S * 1000, looks: 0 };
  side.document = jwks(side.key);
  const fetchKeys = async () => {
    side.looks++;
    if (side.document === null) throw new Error('no address');
    return side.document;
  };
  side.verifier = new WebhookVerifier({ fetchKeys, now: () => side.nowMs, ...settings });
  side.verify = (headers, body = BODY) => side.verifier.verify(headers, body);
  side.reason = async (headers, body = BODY) => {
    const error = await failure(side.verify(headers, body));
    assert.ok(error instanceof FalError);
    assert.deepEqual([error.errorType, error.retryable], ['webhook_rejected', false], error.stack);
    return error.data.reason;
  };
  return side;
}

test('what fal signed is told with its body', async () => {
  const { key, verify } = fal();
  const webhook = await verify(signed(key));
  assert.deepEqual([webhook.requestId, webhook.userId, webhook.timestamp], ['r-1', 'user', NOW_S]);
  assert.equal(webhook.repeat, false);
  assert.deepEqual(webhook.body, BODY);
  assert.equal(webhook.json().payload.output, 'Şık kupa ✓');
});

const SHAPES = {
  'with capitals': (headers) => Object.fromEntries(Object.entries(headers).map(([name, text]) => [name.toUpperCase(), text])),
  'as a Headers': (headers) => new Headers(headers),
  'as a Map': (headers) => new Map(Object.entries(headers)),
  'as pairs': (headers) => Object.entries(headers),
  'as lists': (headers) => Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, [text, text]])),
  'with blanks around': (headers) => Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, ` ${text}\t`])),
  'without a prototype': (headers) => Object.assign(Object.create(null), headers, { 'content-type': undefined }),
};
for (const [shape, change] of Object.entries(SHAPES)) {
  test(`headers ${shape} are taken`, async () => {
    const { key, verify } = fal();
    assert.equal((await verify(change(signed(key)))).requestId, 'r-1');
  });
}

for (const body of [Buffer.alloc(0), Buffer.from([255, 254, 0]), Buffer.from('ışıl ışıl ✓'), Buffer.alloc(1_000_000)]) {
  test(`a body of ${body.length} bytes is verified as it came`, async () => {
    const { key, verify } = fal();
    const headers = signed(key, body);
    for (const same of [body, new Uint8Array(body), new Uint8Array(body).buffer]) {
      const webhook = await verify(headers, same);
      assert.deepEqual(Buffer.from(webhook.body), body);
      assert.throws(() => webhook.json(), { errorType: 'bad_output' });
    }
  });
}

test('letters beyond ASCII in a header are verified however the server reads them', async () => {
  const { key, verify } = fal();
  const headers = signed(key, BODY, { userId: 'kullanıcı ✓' });
  const asNodeReads = Buffer.from('kullanıcı ✓').toString('latin1');
  for (const userId of ['kullanıcı ✓', asNodeReads]) {
    assert.equal((await verify({ ...headers, 'x-fal-webhook-user-id': userId })).requestId, 'r-1');
  }
});

test('a wrong key and an altered body or header are refused', async () => {
  const side = fal();
  const headers = signed(side.key);
  assert.equal(await side.reason(signed(newKey())), 'bad_signature');
  for (const body of [Buffer.concat([BODY, Buffer.from(' ')]), BODY.subarray(1), Buffer.alloc(0)]) {
    assert.equal(await side.reason(headers, body), 'bad_signature');
  }
  for (const change of [{ 'request-id': 'r-2' }, { 'user-id': 'other' }, { timestamp: String(NOW_S + 1) }]) {
    const [[name, value]] = Object.entries(change);
    assert.equal(await side.reason({ ...headers, [`x-fal-webhook-${name}`]: value }), 'bad_signature');
  }
});

test('a header that is missing is named, before anything is fetched', async () => {
  const side = fal();
  for (const name of Object.keys(signed(side.key))) {
    for (const value of [undefined, null, '', []]) {
      const headers = { ...signed(side.key), [name]: value };
      assert.equal(await side.reason(headers), 'missing_header');
      assert.ok((await failure(side.verify(headers))).message.includes(name));
    }
  }
  assert.equal(side.looks, 0);
});

test('a header that fal would not send is refused before anything is fetched', async () => {
  const side = fal();
  const wrong = {
    timestamp: ['now', '-1', '1e9', '１２３', '1 2', '9'.repeat(400), '0x10', `${NOW_S}.5`, `${NOW_S}\n`],
    signature: ['zz'.repeat(64), 'ab'.repeat(63), 'ab'.repeat(65), 'ığ'],
    'request-id': ['r\n-1', 'r\x00'],
    'user-id': ['a\r\nb', ['a', 'b']],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const headers = { ...signed(side.key), [`x-fal-webhook-${name}`]: value };
      assert.equal(await side.reason(headers), 'malformed_header', `${name}: ${value}`);
    }
  }
  assert.equal(side.looks, 0);
});

for (const [late, reason] of [[0], [299], [300], [301, 'too_old'], [-299], [-300], [-301, 'too_new']]) {
  test(`a webhook that is ${late} s old is ${reason ?? 'taken'}`, async () => {
    const side = fal();
    side.nowMs += late * 1000;
    if (reason) assert.equal(await side.reason(signed(side.key)), reason);
    else assert.equal((await side.verify(signed(side.key))).requestId, 'r-1');
  });
}

test('a body or headers of another type are a mistake of the caller', async () => {
  const side = fal();
  for (const body of ['text', { request_id: 'r-1' }, undefined, null]) {
    const error = await failure(side.verifier.verify(signed(side.key), body));
    assert.equal(error.errorType, 'invalid_input');
    assert.match(error.message, /raw bytes/);
  }
  for (const headers of [undefined, null, 'text']) {
    assert.equal((await failure(side.verify(headers))).errorType, 'invalid_input');
  }
});

test('repeats are told, also of a replay, until the webhook is forgotten', async () => {
  const side = fal({ remembered: 2 });
  const repeat = async (requestId) => (await side.verify(signed(side.key, BODY, { requestId }))).repeat;
  const told = [];
  for (const id of ['a', 'b', 'a', 'c', 'a', 'b']) told.push(await repeat(id));
  assert.deepEqual(told, [false, false, true, false, true, false]);
  await side.reason(signed(side.key, BODY, { requestId: 'd' }), Buffer.from('{}'));
  assert.equal(await repeat('d'), false);
  (await side.verify(signed(side.key, BODY, { requestId: 'd' }))).forget();
  assert.equal(await repeat('d'), false);
  const many = await Promise.all(Array.from({ length: 20 }, () => repeat('e')));
  assert.equal(many.filter((one) => !one).length, 1);
});

test('keys are fetched once for all who wait, and kept for a day', async () => {
  const side = fal();
  await Promise.all(Array.from({ length: 20 }, () => side.verify(signed(side.key))));
  side.nowMs += DAY_MS - 1000;
  await side.verify(signed(side.key, BODY, { at: NOW_S + 86_399 }));
  assert.equal(side.looks, 1);
  side.nowMs += 1000;
  side.document = null;
  const error = await failure(side.verify(signed(side.key, BODY, { at: NOW_S + 86_400 })));
  assert.equal(error.errorType, 'fal_unavailable');
  assert.equal(side.looks, 2);
});

test('a key that is not known yet is looked for, at most five times a minute', async () => {
  const side = fal();
  await side.verify(signed(side.key));
  const next = newKey();
  side.document = jwks(newKey(), next);
  assert.equal((await side.verify(signed(next, BODY, { requestId: 'r-2' }))).repeat, false);
  assert.equal(side.looks, 2);
  for (let time = 0; time < 100; time++) await side.reason(signed(side.key));
  assert.equal(side.looks, 5);
  side.nowMs += 60_000;
  await side.reason(signed(side.key));
  assert.equal(side.looks, 6);
});

test('a look for new keys does not hold up who needs none', async () => {
  let looks = 0;
  let goOn;
  const key = newKey();
  const fetchKeys = async () => {
    if (looks++) await new Promise((resume) => (goOn = resume));
    return jwks(key);
  };
  let now = NOW_S * 1000;
  const verifier = new WebhookVerifier({ fetchKeys, now: () => now });
  await verifier.verify(signed(key), BODY);
  now += 60_000;
  const wrong = failure(verifier.verify(signed(newKey()), BODY));
  assert.equal((await verifier.verify(signed(key), BODY)).repeat, true);
  goOn();
  assert.equal((await wrong).data.reason, 'bad_signature');
});

test('keys that cannot be had are no refusal, and not asked for at every request', async () => {
  const side = fal();
  side.document = null;
  for (let time = 0; time < 10; time++) {
    const error = await failure(side.verify(signed(side.key)));
    assert.deepEqual([error.errorType, error.retryable], ['fal_unavailable', true]);
    assert.match(error.message, /no address/);
    assert.match(error.hint, /503/);
  }
  assert.equal(side.looks, 5);
  side.document = jwks(side.key);
  side.nowMs += 60_000;
  assert.equal((await side.verify(signed(side.key))).repeat, false);
});

const x = row(newKey()).x;
for (const document of ['', '{', '[]', 'null', '{"keys": {}}', '{"keys": [5, null]}', '{"keys": [{"kty": "RSA"}]}']) {
  test(`a document of fal's without a key is told: ${document}`, async () => {
    const side = fal();
    side.document = document;
    assert.match((await failure(side.verify(signed(side.key)))).message, /jwks\.json/);
  });
}

test('keys of other kinds and broken ones are passed over', async () => {
  const side = fal();
  const others = [{ kty: 'RSA', n: 'a' }, { kty: 'OKP', crv: 'X25519', x }, { kty: 'OKP', crv: 'Ed25519', x: 'abc' }];
  side.document = JSON.stringify({ keys: [...others, { kty: 'OKP', crv: 'Ed25519' }, row(side.key)] });
  assert.equal((await side.verify(signed(side.key))).requestId, 'r-1');
});

test('no way to the keys is told, without an answer of the network', async (t) => {
  t.mock.method(globalThis, 'fetch', async () => {
    throw new TypeError('fetch failed', { cause: new Error('getaddrinfo ENOTFOUND rest.fal.ai') });
  });
  const error = await failure(verifyFalWebhook(signed(newKey(), BODY, { at: Math.floor(Date.now() / 1000) }), BODY));
  assert.equal(error.errorType, 'fal_unavailable');
  assert.match(error.message, /ENOTFOUND rest\.fal\.ai/);
});
