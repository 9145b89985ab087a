/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_index.h - one pass over an ExportTraceServiceRequest that validates it and says where every
 * span lies.
 *
 * Two steps, so that memory is granted before it is used: otlp_count walks the envelopes and says
 * how large the tables must be; otlp_index fills them. No heap allocation per span; the tables are
 * the caller's.
 *
 * What is checked: every length; wire types of known fields; AnyValue depth (OTLP_MAX_DEPTH); UTF-8
 * of every string; id lengths. Damage (and depth) refuses the request; a bad id or bad UTF-8
 * rejects the spans it touches. Envelopes without spans are left out of the tables.
 *
 * SPEC: opentelemetry-proto trace.proto, common.proto, resource.proto (1.9: every AnyValue kind
 * anywhere; ResourceSpans field 1000 of 0.15-0.18 is read when there is no scope_spans).
 * docs/formats/otlp.md. Pure functions, any thread.
 */
#ifndef WIRE_OTLP_INDEX_H
#define WIRE_OTLP_INDEX_H

#include "base/arena.h"
#include "base/err.h"
#include "wire/span.h"

enum { OTLP_MAX_DEPTH = 64 };

/* Upper bounds of what otlp_index will fill. */
struct otlp_counts {
	uint32_t n_spans, n_scopes, n_resources, n_heads;
};

struct otlp_rejects {
	uint32_t n;      /* spans rejected */
	char first[192]; /* why the first was: "resource_spans[0].scope_spans[1].spans[2].trace_id:
			    ..." */
};

struct otlp_result {
	struct otlp_rejects rejects;
	bool is_whole; /* the request's bytes are exactly the tables' content: may be sent as they
			  are */
};

/* Sizes of the tables; -1 when the envelopes are damaged (ERR_INVALID) or the request passes 2 GiB
 * (ERR_TOO_LARGE). */
int otlp_count(struct bytes request, struct otlp_counts *counts, struct err *err);
/* Fill the tables, whose arrays hold what otlp_count said. `arena` gets the rare head that must be
 * rebuilt (a resource or scope sent in several pieces); it lives as long as the tables. Spans get
 * origin 0 and ordinals 0, 1, ... -1: the request is damaged as a whole; the message names the
 * place. */
int otlp_index(struct bytes request, struct span_tables *tables, struct arena *arena,
	       struct otlp_result *result, struct err *err);

/* The same for what is stored and perhaps was written by others: nothing is rejected for its ids or
 * its UTF-8, since refusing a span now would lose it. In the tables an id of another length is cut,
 * or has zeros behind it; the spans' bytes are as they are. Only a span too short to hold two ids
 * has no row, and counts as a reject. */
int otlp_index_stored(struct bytes traces_data, struct span_tables *tables, struct arena *arena,
		      struct otlp_result *result, struct err *err);

/* The same two steps for any signal. Of logs and metrics only envelopes are read, down to the
 * fields of a LogRecord, and to the data points of a Metric, which are counted: a broken one
 * damages the request, nothing is rejected by itself, and an item may be as short as it likes. */
int otlp_count_items(enum otlp_signal signal, struct bytes request, struct otlp_counts *counts,
		     struct err *err);
int otlp_index_items(enum otlp_signal signal, struct bytes request, struct span_tables *tables,
		     struct arena *arena, struct otlp_result *result, struct err *err);

/* Name and trace_state of a span. */
static inline struct bytes span_name(const struct span_ref *sp)
{
	return (struct bytes){ sp->p + sp->name_off, sp->name_len };
}

static inline struct bytes span_trace_state(const struct span_ref *sp)
{
	return (struct bytes){ sp->state, sp->state_len };
}

/* Fill r and th from the trace id and the trace_state. */
void span_read_sampling(struct span_ref *sp);

/* The AnyValue bytes of the first attribute with this key in a run of KeyValue fields numbered
 * `number` of a message (Span 9, Resource 1, InstrumentationScope 3); false when there is none. */
bool otlp_attribute(struct bytes message, uint32_t number, struct bytes key, struct bytes *value);

#endif
