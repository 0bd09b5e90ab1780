// Telnyx's and Plivo's own Node clients: the same ways as in Python. Prints what they saw as JSON.
import { createRequire } from "node:module";
const require = createRequire(process.argv[3] + "/package.json");
const Telnyx = require("telnyx").default ?? require("telnyx");
const plivo = require("plivo");
const ask = JSON.parse(process.argv[2]);
const errors = {};
const failed = (name) => (e) => (errors[name] = e.status ?? e.statusCode ?? String(e.message ?? e));

const telnyx = new Telnyx({ apiKey: ask.bearer, baseURL: ask.url + "/v2", maxRetries: 0 });
const requests = telnyx.legacy.reporting.batchDetailRecords.messaging;
const range = { start_time: ask.start, end_time: ask.end, include_message_body: true };
const csv = {};
const made = {};
for (const [name, wanted] of Object.entries(ask.telnyx_requests)) {
  let done = (await requests.create({ ...range, ...wanted })).data;
  for (let n = 0; n < 600 && done.status === "PENDING"; n++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    done = (await requests.retrieve(done.id)).data;
  }
  if (done.status !== "COMPLETE") throw new Error(done.status);
  made[name] = done.id;
  csv[name] = await (await fetch(done.report_url)).text();
}
const listed = (await requests.list()).data.map((r) => r.id);
const deleted = (await requests.delete(made.all)).data.id;
await requests.retrieve(made.all).catch(failed("gone"));
await requests.create({ start_time: "soon", end_time: ask.end }).catch(failed("bad"));
await new Telnyx({ apiKey: "wrong.key", baseURL: ask.url + "/v2", maxRetries: 0 })
  .legacy.reporting.batchDetailRecords.messaging.list().catch(failed("telnyx_key"));

const url = `${ask.url}/v1/Account/${ask.key}`;
const client = new plivo.Client(ask.key, ask.secret, { url });
async function every(filters) {
  const found = [];
  for (;;) {
    const page = await client.messages.list({ limit: 20, offset: found.length, ...filters });
    found.push(...page);
    if (!page.meta.next) return found;
  }
}
const found = await every({});
const filters = {};
for (const [name, asked] of Object.entries(ask.plivo_filters)) filters[name] = (await every(asked)).map((m) => m.messageUuid);
const one = await client.messages.get(found[0].messageUuid);
await client.messages.list({ limit: 21 }).catch(failed("limit"));
await client.messages.get("11111111-1111-1111-1111-111111111111").catch(failed("unknown"));
await new plivo.Client(ask.key, "wrong", { url }).messages.list({}).catch(failed("key"));
const snake = (name) => name.replace(/[A-Z]+/g, (c) => "_" + c.toLowerCase());
const plain = (m) => Object.fromEntries(Object.entries(m).filter(([, v]) => v === null || typeof v !== "object")
  .map(([name, value]) => [snake(name), value]));
console.log(JSON.stringify({ csv, made, listed, deleted, errors, filters, objects: found.map(plain), one: plain(one) }));
