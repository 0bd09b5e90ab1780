// Telnyx's and Plivo's own Node clients: the same ways as in Python. Prints what they saw as JSON.
import { createRequire } from "node:module";
const require = createRequire(process.argv[3] + "/package.json");
const Telnyx = require("telnyx").default ?? require("telnyx");
const plivo = require("plivo");
const ask = JSON.parse(process.argv[2]);

const telnyx = new Telnyx({ apiKey: ask.bearer, baseURL: ask.url + "/v2", maxRetries: 0 });
const requests = telnyx.legacy.reporting.batchDetailRecords.messaging;
const made = (await requests.create({ start_time: ask.start, end_time: ask.end, directions: [2] })).data;
let done = made;
for (let n = 0; n < 300 && done.status === "PENDING"; n++) {
  await new Promise((resolve) => setTimeout(resolve, 100));
  done = (await requests.retrieve(made.id)).data;
}
const csv = await (await fetch(done.report_url)).text();
const listed = (await requests.list()).data.map((r) => r.id);
const deleted = (await requests.delete(made.id)).data.id;
const errors = {};
await requests.retrieve(made.id).catch((e) => (errors.gone = e.status));
await requests.create({ start_time: "soon", end_time: ask.end }).catch((e) => (errors.bad = e.status));

const client = new plivo.Client(ask.key, ask.secret, { url: `${ask.url}/v1/Account/${ask.key}` });
const found = [];
for (;;) {
  const page = await client.messages.list({ limit: 20, offset: found.length });
  found.push(...page);
  if (!page.meta.next) break;
}
const one = await client.messages.get(found[0].messageUuid);
await client.messages.list({ limit: 21 }).catch((e) => (errors.limit = String(e.message ?? e).length > 0));
const wrong = new plivo.Client(ask.key, "wrong", { url: `${ask.url}/v1/Account/${ask.key}` });
await wrong.messages.list({}).catch((e) => (errors.key = e.status ?? String(e)));
console.log(JSON.stringify({
  csv, made: made.id, listed, deleted, errors, status: done.status,
  ids: found.map((m) => m.messageUuid), amounts: found.map((m) => m.totalAmount), one: one.messageUuid,
}));
