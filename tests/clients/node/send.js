// send.js grpc|http-json|http-proto ENDPOINT COPY - one trace by the unmodified OpenTelemetry SDK
// for Node to ENDPOINT (host:port), and the same spans by a second exporter to COPY (OTLP/gRPC),
// which shows what was sent. Prints trace ids.
'use strict';
const load = (name) => require(require.resolve(name, { paths: [process.env.NODE_MODULES || process.cwd()] }));
const api = load('@opentelemetry/api');
const { NodeTracerProvider, BatchSpanProcessor } = load('@opentelemetry/sdk-trace-node');
const { resourceFromAttributes } = load('@opentelemetry/resources');

const [kind, endpoint, copy] = process.argv.slice(2);
const every = { s: 'text', b: true, i: -5, d: 0.25, ss: ['a', 'b'], bs: [true, false], ns: [1, 2.5], empty: '', utf8: 'zażółć ☃' };

function exporter(which, to) {
  if (which === 'grpc') {
    const { OTLPTraceExporter } = load('@opentelemetry/exporter-trace-otlp-grpc');
    return new OTLPTraceExporter({ url: `http://${to}` });
  }
  const name = which === 'http-json' ? 'http' : 'proto';
  const { OTLPTraceExporter } = load(`@opentelemetry/exporter-trace-otlp-${name}`);
  return new OTLPTraceExporter({ url: `http://${to}/v1/traces` });
}

async function main() {
  const failures = [];
  api.diag.setLogger({ error: (m) => failures.push(m), warn() {}, info() {}, debug() {}, verbose() {} });
  const provider = new NodeTracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'node-shop', ...every }),
    spanLimits: { attributeCountLimit: 12, eventCountLimit: 2, linkCountLimit: 1 },
    spanProcessors: [new BatchSpanProcessor(exporter(kind, endpoint)), new BatchSpanProcessor(exporter('grpc', copy))],
  });
  const tracer = provider.getTracer('node-lib', '7.7', { schemaUrl: 'https://x.test/scope' });
  const remote = {
    traceId: '1234567890abcdef1234567890abcd00', spanId: '1234567890abcdef', traceFlags: 1, isRemote: true,
    traceState: api.createTraceState('vendor=val'),
  };
  const root = tracer.startSpan('root', {
    kind: api.SpanKind.SERVER, attributes: every, links: [{ context: remote, attributes: { l: 1 } }, { context: remote }],
  });
  for (let i = 0; i < 9; i++) root.setAttribute(`more.${i}`, i);
  for (let i = 0; i < 3; i++) root.addEvent(`event ${i}`, every);
  const context = api.trace.setSpan(api.ROOT_CONTEXT, root);
  for (const k of [0, 1, 2, 3, 4]) tracer.startSpan(`child ${k}`, { kind: k }, context).end();
  root.recordException(new Error('went wrong'));
  root.setStatus({ code: api.SpanStatusCode.ERROR, message: 'bad thing' });
  root.end();
  tracer.startSpan('under a remote parent', {}, api.trace.setSpanContext(api.ROOT_CONTEXT, remote)).end();
  await provider.forceFlush();
  await provider.shutdown();
  console.log(root.spanContext().traceId, remote.traceId);
  if (failures.length) {
    console.error(failures.join('\n'));
    process.exit(1);
  }
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
