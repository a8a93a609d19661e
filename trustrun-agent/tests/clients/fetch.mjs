// Node's fetch. See README.md.
const start = performance.now();
const urls = process.argv.slice(2);
if (urls.length === 0) {
  console.error("fetch.mjs URL...");
  process.exit(2);
}
const results = await Promise.allSettled(
  urls.map(async (url) => {
    const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
    return (await response.arrayBuffer()).byteLength;
  }),
);
const errors = results.filter((r) => r.status === "rejected").map((r) => r.reason);
const cause = errors[0]?.cause?.errors?.[0] ?? errors[0]?.cause ?? errors[0];
const facts = errors.length === 0
  ? { ok: true, bytes: results.map((r) => r.value) }
  : { ok: false, errno: cause.code ?? null, error: String(cause.message ?? cause), failures: errors.length };
console.log(JSON.stringify({ ...facts, ms: Math.round(performance.now() - start) }));
process.exit(errors.length === 0 ? 0 : 1);
