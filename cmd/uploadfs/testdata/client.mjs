// The official Node package against a server: uploads a file in parts, all at
// once, and compares the File with it.
//
//   node client.mjs FILE PART_BYTES
import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import OpenAI from 'openai';

const [file, partBytes] = [process.argv[2], Number(process.argv[3])];
const client = new OpenAI(); // OPENAI_API_KEY, OPENAI_BASE_URL
const { size } = statSync(file);

const digest = async (stream) => {
  const md5 = createHash('md5');
  for await (const chunk of stream) md5.update(chunk);
  return md5.digest('hex');
};

const upload = await client.uploads.create({
  bytes: size, filename: 'node.jsonl', mime_type: 'text/jsonl', purpose: 'fine-tune',
});
const offsets = [];
for (let start = 0; start < size; start += partBytes) offsets.push(start);
const parts = await Promise.all(offsets.map((start) =>
  client.uploads.parts.create(upload.id, { data: createReadStream(file, { start, end: Math.min(start + partBytes, size) - 1 }) })));
const md5 = await digest(createReadStream(file));
const { file: made, status } = await client.uploads.complete(upload.id, { part_ids: parts.map((p) => p.id), md5 });
if (status !== 'completed' || made.bytes !== size) throw new Error(`completed as ${JSON.stringify(made)}`);

const content = await client.files.content(made.id);
if (await digest(content.body) !== md5) throw new Error('the File is not what was sent');

const ids = [];
for await (const f of client.files.list({ purpose: 'fine-tune', limit: 1 })) ids.push(f.id);
if (!ids.includes(made.id)) throw new Error('the File is not in the list');
try {
  await client.uploads.cancel(upload.id);
  throw new Error('a completed Upload was cancelled');
} catch (err) {
  if (!(err instanceof OpenAI.BadRequestError)) throw err;
}
console.log(made.id);
