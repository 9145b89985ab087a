// jaeger_send.js udp|http HOST:PORT N - N traces of two spans by the unmodified jaeger-client:
// Thrift over UDP (what its agent sender writes) or over HTTP. Prints a line of JSON per span.
"use strict";
const path = require("path");
const load = (name) => require(path.join(process.env.NODE_MODULES, "node_modules", name));
const { initTracer } = load("jaeger-client");

const [way, target, count] = process.argv.slice(2);
const [host, port] = target.split(":");
const reporter =
  way === "udp"
    ? { agentHost: host, agentPort: Number(port), flushIntervalMs: 50 }
    : { collectorEndpoint: `http://${target}/api/traces`, flushIntervalMs: 50 };

const errors = [];
const tracer = initTracer(
  {
    serviceName: "node-jaeger",
    sampler: { type: "const", param: 1 },
    reporter,
    traceId128bit: true,
  },
  { tags: { team: "shop" }, logger: { info() {}, error: (m) => errors.push(m) } }
);

const hex = (buffer, digits) => buffer.toString("hex").padStart(digits, "0");

function describe(span, parent, more) {
  const c = span.context();
  console.log(
    JSON.stringify({
      trace: hex(c.traceId, 32),
      id: hex(c.spanId, 16),
      name: span.operationName,
      parent: parent ? hex(parent.context().spanId, 16) : null,
      ...more,
    })
  );
}

for (let i = 0; i < Number(count); i++) {
  const root = tracer.startSpan(`root ${i}`);
  root.setTag("span.kind", "client");
  root.setTag("s", "text").setTag("b", true).setTag("d", 0.25).setTag("n", 1e12);
  root.log({ event: "half way", percent: 50 });
  const child = tracer.startSpan("child", { childOf: root });
  child.setTag("error", true);
  child.finish();
  root.finish();
  describe(root, null, { kind: 3, tags: { s: "text", b: true, d: 0.25 }, event: "half way" });
  describe(child, root, { error: true });
}
tracer.close(() => {
  if (errors.length) {
    console.error(errors.join("\n"));
    process.exit(1);
  }
});
