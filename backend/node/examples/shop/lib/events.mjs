/** An answer as server-sent events: begins when there is a first event, and says now and then that it is alive. */

import { PassThrough } from 'node:stream';

export class EventStream {
  /** What is sent to the client. */
  body = new PassThrough();
  #timer;
  #begun;

  constructor(heartbeatMs) {
    this.begun = new Promise((resolve) => {
      this.#begun = resolve;
    });
    this.#timer = setInterval(() => this.#write(': still working\n\n'), heartbeatMs).unref();
    this.body.on('close', () => clearInterval(this.#timer));
    // A client that leaves is learnt from its connection.
    this.body.on('error', () => {});
  }

  send(event, data) {
    this.#write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  end(event, data) {
    this.send(event, data);
    clearInterval(this.#timer);
    this.body.end();
  }

  #write(text) {
    if (!this.body.destroyed && !this.body.writableEnded) this.body.write(text);
    this.#begun();
  }
}
