/** Server-sent events of an answer to any request; the browser's own EventSource can only GET. */

const END = /\r\n\r\n|\n\n|\r\r/;

/** Gives `{event, data}` for each event, `data` parsed. */
export async function* eventsOf(response) {
  let rest = '';
  for await (const text of textsOf(response.body)) {
    const blocks = (rest + text).split(END);
    rest = blocks.pop();
    for (const block of blocks) {
      const found = parsed(block);
      if (found) yield found;
    }
  }
}

async function* textsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  let event = 'message';
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === 'event') event = value;
    if (name === 'data') data.push(value);
  }
  return data.length ? { event, data: JSON.parse(data.join('\n')) } : null;
}
