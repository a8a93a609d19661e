// Node's dns.resolve4 (c-ares, no C library) and dns.lookup (the C library). See README.md.
import { promises as dns } from "node:dns";

const start = performance.now();
const names = process.argv.slice(2);
if (names.length === 0) {
  console.error("resolve.mjs NAME...");
  process.exit(2);
}
const answers = {};
let failure = null;
for (const name of names) {
  for (const [how, ask] of [
    ["resolve", () => dns.resolve4(name)],
    ["lookup", async () => (await dns.lookup(name, { all: true, family: 4 })).map((a) => a.address)],
  ]) {
    try {
      (answers[name] ??= {})[how] = await ask();
    } catch (error) {
      (answers[name] ??= {})[how] = error.code;
      failure ??= error;
    }
  }
}
const facts = failure === null ? { ok: true } : { ok: false, errno: failure.code, error: failure.message };
console.log(JSON.stringify({ ...facts, answers, ms: Math.round(performance.now() - start) }));
process.exit(failure === null ? 0 : 1);
