// send_zipkin.js v2|v1|otel URL - spans by the unmodified Zipkin reporter for Node (v2 or v1 JSON), or
// by OpenTelemetry's Zipkin exporter. Prints each span as one line of JSON.
const path = require('path');
const from = (name) => require(path.join(process.env.NODE_MODULES, 'node_modules', name));
const [form, url] = process.argv.slice(2);

const show = (span) => console.log(JSON.stringify(span));

function reporter() {
  const { Tracer, ExplicitContext, BatchRecorder, Annotation, TraceId, option, jsonEncoder } = from('zipkin');
  const { HttpLogger } = from('zipkin-transport-http');
  const logger = new HttpLogger({
    endpoint: url,
    jsonEncoder: form === 'v2' ? jsonEncoder.JSON_V2 : jsonEncoder.JSON_V1,
    httpInterval: 50,
  });
  logger.on('error', (e) => { console.error(`error: ${e.message}`); process.exit(1); });
  const make = (name) => new Tracer({
    ctxImpl: new ExplicitContext(), recorder: new BatchRecorder({ logger }),
    localServiceName: name, traceId128Bit: true, supportsJoin: true,
  });
  const client = make('node-caller');
  const server = make('node-shop');
  const root = client.createRootId();
  client.scoped(() => {
    client.setId(root);
    client.recordServiceName('node-caller');
    client.recordRpc('get');
    client.recordBinary('http.path', '/cart');
    client.recordAnnotation(new Annotation.ClientSend());
    client.recordAnnotation(new Annotation.ServerAddr({ serviceName: 'node-shop', port: 8080 }));
  });
  // The server joins the client's span: one id, two halves.
  const joined = new TraceId({
    traceId: root.traceId, parentId: new option.Some(root.parentSpanId.getOrElse(root.spanId)),
    spanId: root.spanId, sampled: new option.Some(true), shared: true,
  });
  server.scoped(() => {
    server.setId(joined);
    server.recordServiceName('node-shop');
    server.recordRpc('get');
    server.recordAnnotation(new Annotation.ServerRecv());
    server.recordMessage('half way');
    server.recordBinary('error', 'no such table');
    server.recordAnnotation(new Annotation.ServerSend());
  });
  client.scoped(() => {
    client.setId(root);
    client.recordAnnotation(new Annotation.ClientRecv());
  });
  const id = { trace_id: root.traceId.padStart(32, '0'), span_id: root.spanId, name: 'get' };
  show({ ...id, kind: 'CLIENT', service: 'node-caller', attributes: { 'http.path': '/cart', 'peer.service': 'node-shop' } });
  show({ ...id, kind: 'SERVER', service: 'node-shop', attributes: { error: 'no such table' }, events: ['half way'], status: [2, 'no such table'] });
  setTimeout(() => process.exit(0), 500);
}

async function otel() {
  const { NodeTracerProvider, SimpleSpanProcessor } = from('@opentelemetry/sdk-trace-node');
  const { ZipkinExporter } = from('@opentelemetry/exporter-zipkin');
  const { resourceFromAttributes } = from('@opentelemetry/resources');
  const { SpanKind, SpanStatusCode } = from('@opentelemetry/api');
  const provider = new NodeTracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'node-shop' }),
    spanProcessors: [new SimpleSpanProcessor(new ZipkinExporter({ url }))],
  });
  const span = provider.getTracer('node-lib', '1.0').startSpan('root', { kind: SpanKind.PRODUCER, attributes: { k: 'v' } });
  span.addEvent('half way');
  span.setStatus({ code: SpanStatusCode.ERROR, message: 'no such table' });
  span.end();
  const id = span.spanContext();
  show({ trace_id: id.traceId, span_id: id.spanId, name: 'root', kind: 'PRODUCER', service: 'node-shop',
    attributes: { k: 'v' }, events: ['half way'], status: [2, 'no such table'] });
  await provider.shutdown();
}

if (form === 'otel')
  otel();
else
  reporter();
