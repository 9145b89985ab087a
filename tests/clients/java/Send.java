/* SPDX-License-Identifier: Apache-2.0
 *
 * Send.java grpc|http-proto ENDPOINT COPY - one trace by the unmodified OpenTelemetry SDK for Java to
 * ENDPOINT (host:port), and the same spans by a second exporter to COPY (OTLP/gRPC), which shows what
 * was sent. Prints trace ids.
 */
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SpanLimits;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.util.concurrent.TimeUnit;

public class Send {
    static final Attributes EVERY = Attributes.builder()
            .put("s", "text").put("b", true).put("i", -5).put("d", 0.25).put("empty", "").put("utf8", "zażółć ☃")
            .put(AttributeKey.stringArrayKey("ss"), "a", "b").put(AttributeKey.booleanArrayKey("bs"), true, false)
            .put(AttributeKey.longArrayKey("is"), 1L, -2L).put(AttributeKey.doubleArrayKey("ds"), 1.0, 2.5).build();

    static SpanExporter exporter(String kind, String to) {
        if (kind.equals("grpc"))
            return OtlpGrpcSpanExporter.builder().setEndpoint("http://" + to).setCompression("gzip").build();
        return OtlpHttpSpanExporter.builder().setEndpoint("http://" + to + "/v1/traces").build();
    }

    public static void main(String[] args) {
        SdkTracerProvider provider = SdkTracerProvider.builder()
                .setResource(Resource.create(EVERY.toBuilder().put("service.name", "java-shop").build()))
                .setSpanLimits(SpanLimits.builder().setMaxNumberOfAttributes(12).setMaxNumberOfEvents(2)
                        .setMaxNumberOfLinks(1).build())
                .addSpanProcessor(BatchSpanProcessor.builder(exporter(args[0], args[1])).build())
                .addSpanProcessor(BatchSpanProcessor.builder(exporter("grpc", args[2])).build()).build();
        Tracer tracer = provider.tracerBuilder("java-lib").setInstrumentationVersion("7.7")
                .setSchemaUrl("https://x.test/scope").build();
        SpanContext remote = SpanContext.createFromRemoteParent("1234567890abcdef1234567890abcd00", "1234567890abcdef",
                TraceFlags.getSampled(), TraceState.builder().put("vendor", "val").build());
        Span root = tracer.spanBuilder("root").setNoParent().setSpanKind(SpanKind.SERVER).setAllAttributes(EVERY)
                .addLink(remote, Attributes.builder().put("l", 1).build()).addLink(remote).startSpan();
        for (int i = 0; i < 9; i++)
            root.setAttribute("more." + i, i);
        for (int i = 0; i < 3; i++)
            root.addEvent("event " + i, EVERY);
        Context context = Context.root().with(root);
        for (SpanKind kind : SpanKind.values())
            tracer.spanBuilder("child " + kind).setSpanKind(kind).setParent(context).startSpan().end();
        root.recordException(new IllegalStateException("went wrong"));
        root.setStatus(StatusCode.ERROR, "bad thing");
        root.end();
        tracer.spanBuilder("under a remote parent").setParent(Context.root().with(Span.wrap(remote))).startSpan().end();
        boolean ok = provider.shutdown().join(20, TimeUnit.SECONDS).isSuccess();
        System.out.println(root.getSpanContext().getTraceId() + " " + remote.getTraceId());
        System.exit(ok ? 0 : 1);
    }
}
