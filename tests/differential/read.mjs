// What Node makes of each document of a file: a body as text, as body parsers and as fetch take it.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';

const fetched = new TextDecoder('utf-8');
const cell = new DataView(new ArrayBuffer(8));

function number(value) {
  cell.setFloat64(0, value + 0);
  return `d${cell.getBigUint64(0).toString(16).padStart(16, '0')}`;
}

function text(value) {
  return `s${Buffer.byteLength(value)}:${value}`;
}

function byBytes(one, other) {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function tree(value) {
  if (value === null || value === undefined) return 'n';
  if (value === true) return 't';
  if (value === false) return 'f';
  if (typeof value === 'number') return number(value);
  if (typeof value === 'string') return text(value);
  if (Array.isArray(value)) return `[${value.map(tree).join('')}]`;
  const names = Object.keys(value).sort(byBytes);
  return `{${names.map((name) => text(name) + tree(value[name])).join('')}}`;
}

// The members that a server uses, read with property access as a server does, which also finds
// inherited members.
function call(message) {
  const { method, id, params } = message;
  let out = tree(method) + tree(id);
  if (method === 'tools/call' || method === 'prompts/get') {
    out += tree(params?.name) + tree(params?.arguments);
  }
  return out;
}

function digest(read) {
  let out;
  try {
    out = read();
  } catch {
    return '-';
  }
  return createHash('sha256').update(out).digest('hex').slice(0, 16);
}

const lines = [['node-buffer:value', 'node-buffer:call', 'node-fetch:value'].join('\t')];
for await (const line of createInterface({ input: createReadStream(process.argv[2]) })) {
  const bytes = Buffer.from(line, 'base64');
  lines.push(
    [
      digest(() => tree(JSON.parse(bytes.toString('utf8')))),
      digest(() => call(JSON.parse(bytes.toString('utf8')))),
      digest(() => tree(JSON.parse(fetched.decode(bytes)))),
    ].join('\t'),
  );
  if (lines.length >= 1000) process.stdout.write(`${lines.splice(0).join('\n')}\n`);
}
process.stdout.write(lines.length ? `${lines.join('\n')}\n` : '');
