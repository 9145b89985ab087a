// signals.js grpc|http-json|http-proto ENDPOINT COPY - logs and metrics by the unmodified
// OpenTelemetry SDK for Node to ENDPOINT (host:port), and the same by a second exporter to COPY
// (OTLP/gRPC), which shows what was sent.
'use strict';
const load = (name) => require(require.resolve(name, { paths: [process.env.NODE_MODULES || process.cwd()] }));
const api = load('@opentelemetry/api');
const { resourceFromAttributes } = load('@opentelemetry/resources');
const { LoggerProvider, BatchLogRecordProcessor } = load('@opentelemetry/sdk-logs');
const { MeterProvider, PeriodicExportingMetricReader, AggregationType } = load('@opentelemetry/sdk-metrics');

const [kind, endpoint, copy] = process.argv.slice(2);
const every = { s: 'text', b: true, i: -5, d: 0.25, ss: ['a', 'b'], empty: '', utf8: 'zażółć ☃' };
const resource = resourceFromAttributes({ 'service.name': 'node-shop', ...every });

function exporter(signal, which, to) {
  const name = { grpc: 'grpc', 'http-json': 'http', 'http-proto': 'proto' }[which];
  const loaded = load(`@opentelemetry/exporter-${signal}-otlp-${name}`);
  const Exporter = signal === 'logs' ? loaded.OTLPLogExporter : loaded.OTLPMetricExporter;
  return new Exporter({ url: which === 'grpc' ? `http://${to}` : `http://${to}/v1/${signal}` });
}

async function logs() {
  const provider = new LoggerProvider({
    resource,
    processors: [exporter('logs', kind, endpoint), exporter('logs', 'grpc', copy)].map((e) => new BatchLogRecordProcessor({ exporter: e })),
  });
  const logger = provider.getLogger('node-lib', '7.7', { schemaUrl: 'https://x.test/scope' });
  logger.emit({ severityNumber: 9, severityText: 'INFO', body: 'order taken', attributes: every });
  logger.emit({ severityNumber: 17, body: { nested: { list: [1, 'two', false, null] } }, eventName: 'an.event' });
  await provider.forceFlush();
  await provider.shutdown();
}

// What one reader collects, to two exporters.
class Both {
  constructor(...exporters) {
    this.exporters = exporters;
  }
  export(metrics, done) {
    let left = this.exporters.length;
    let worst = { code: 0 };
    for (const e of this.exporters)
      e.export(metrics, (r) => {
        worst = r.code ? r : worst;
        if (--left === 0) done(worst);
      });
  }
  async forceFlush() {}
  async shutdown() {
    await Promise.all(this.exporters.map((e) => e.shutdown()));
  }
}

async function metrics() {
  const both = new Both(exporter('metrics', kind, endpoint), exporter('metrics', 'grpc', copy));
  const provider = new MeterProvider({
    resource,
    readers: [new PeriodicExportingMetricReader({ exporter: both, exportIntervalMillis: 3600000 })],
    views: [{ instrumentName: 'exp', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
  });
  const meter = provider.getMeter('node-lib', '7.7', { schemaUrl: 'https://x.test/scope' });
  meter.createCounter('orders', { unit: '1', description: 'taken' }).add(5, { kind: 'a' });
  meter.createUpDownCounter('open').add(-0.5);
  meter.createObservableGauge('heat').addCallback((r) => {
    r.observe(0);
    r.observe(-1.25, { r: 1 });
  });
  for (const name of ['plain', 'exp']) {
    const h = meter.createHistogram(name, { unit: 'ms' });
    for (const v of [0, 0.1, 3, 700.5]) h.record(v, { route: '/' });
  }
  await provider.forceFlush();
  await provider.shutdown();
}

async function main() {
  const failures = [];
  api.diag.setLogger({ error: (m) => failures.push(m), warn() {}, info() {}, debug() {}, verbose() {} });
  await logs();
  await metrics();
  if (failures.length) {
    console.error(failures.join('\n'));
    process.exit(1);
  }
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
