/* SPDX-License-Identifier: Apache-2.0
 *
 * processor_fixture.h - one processor or connector from its YAML, before a sink that keeps what it
 * gets, and batches of spans made to order.
 */
#ifndef TESTS_UNIT_PROCESSOR_FIXTURE_H
#define TESTS_UNIT_PROCESSOR_FIXTURE_H

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cmd/all_components.h"
#include "net/loop.h"
#include "pipeline/conf/tree.h"
#include "pipeline/fanout.h"
#include "pipeline/registry.h"
#include "pipeline/service/service.h"
#include "wire/otlp_json_decode.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { FX_KEPT_MAX = 4096 };

static struct {
	struct service service;
	struct loop *loop;
	struct component processor, sink;
	struct component_counters counts[2];
	struct fanout_target target;
	struct fanout fanout;
	struct arena arena;
	pthread_mutex_t lock;
	struct batch *kept[FX_KEPT_MAX];
	_Atomic unsigned n_kept;
} fx = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void fx_sink(struct component *c, struct batch *b)
{
	(void)c;
	pthread_mutex_lock(&fx.lock);
	assert_true(fx.n_kept < FX_KEPT_MAX);
	fx.kept[fx.n_kept] = b;
	atomic_fetch_add(&fx.n_kept, 1);
	pthread_mutex_unlock(&fx.lock);
}

static const struct component_type fx_sink_type = { .name = "sink",
						    .kind = KIND_EXPORTER,
						    .consume = fx_sink };

static inline void fx_start(const char *type, const char *yaml)
{
	const struct component_type *p = registry_find(KIND_PROCESSOR, bytes_str(type));
	const struct component_type *t =
		p != NULL ? p : registry_find(KIND_CONNECTOR, bytes_str(type));
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = &fx.arena, .errors = &errors };
	struct conf_node *root = NULL;
	void *config = arena_zalloc(&fx.arena, t->config_size);

	assert_int_equal(conf_tree_parse(&b, bytes_str(yaml), conf_tree_source(&b, "t"), &root), 0);
	assert_int_equal(option_parse(t->options, root, config, &fx.arena, &errors, type), 0);
	if (t->validate != NULL)
		t->validate(config, root, &errors, type);
	assert_int_equal(errors.n_errors, 0);
	conf_error_fini(&errors);
	fx.loop = loop_new(0, NULL);
	assert_int_equal(loop_start(fx.loop, NULL), 0);
	fx.service.loops = &fx.loop;
	fx.service.n_loops = 1;
	atomic_store(&fx.service.budget.limit, (int64_t)GIB);
	atomic_store(&fx.service.exemplar_th, TH_UNKNOWN);
	fx.sink = (struct component){
		.type = &fx_sink_type, .id = "sink", .count = &fx.counts[1], .service = &fx.service
	};
	fx.target = (struct fanout_target){ &fx.sink, false };
	fx.fanout = (struct fanout){ &fx.target, 1, 1 };
	fx.processor = (struct component){ .type = t,
					   .id = type,
					   .config = config,
					   .state = xcalloc(1, t->state_size),
					   .count = &fx.counts[0],
					   .service = &fx.service,
					   .out = { &fx.fanout, &fx.fanout } };
	assert_int_equal(t->start(&fx.processor, NULL), 0);
}

static inline void fx_drop_kept(void)
{
	for (unsigned i = 0; i < fx.n_kept; i++) {
		batch_settle(fx.kept[i], VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
		batch_unref(fx.kept[i]);
	}
	atomic_store(&fx.n_kept, 0);
}

static inline void fx_stop(void)
{
	const struct component_type *t = fx.processor.type;

	if (t->drain != NULL)
		t->drain(&fx.processor);
	if (t->shutdown != NULL)
		t->shutdown(&fx.processor);
	loop_stop(fx.loop);
	loop_free(fx.loop);
	fx_drop_kept();
	free(fx.processor.state);
	arena_fini(&fx.arena);
	assert_int_equal(atomic_load(&fx.service.budget.used), 0);
}

static inline void fx_give(struct batch *b)
{
	fx.processor.type->consume(&fx.processor, b);
}

/* A span to be made. */
struct fx_span {
	uint8_t trace_id[16];
	const char *state; /* NULL: none */
	/* sampling.priority: 'i' integer, 'd' double, 's' string; 0: none */
	char priority_kind;
	double priority;
	const char *key, *value; /* one more attribute, of text; NULL: none */
};

static inline void fx_put_span(struct buf *out, const struct fx_span *sp, uint32_t number)
{
	uint8_t id[8] = { 1 };
	size_t kv, value;
	char text[32];

	store_be32(id + 4, number);
	pb_put_bytes(out, 1, (struct bytes){ sp->trace_id, 16 });
	pb_put_bytes(out, 2, (struct bytes){ id, 8 });
	if (sp->state != NULL)
		pb_put_str(out, 3, sp->state);
	pb_put_str(out, 5, "a name");
	if (sp->key != NULL) {
		kv = pb_begin(out, 9);
		pb_put_str(out, 1, sp->key);
		value = pb_begin(out, 2);
		pb_put_str(out, 1, sp->value);
		pb_end(out, value);
		pb_end(out, kv);
	}
	if (sp->priority_kind == 0)
		return;
	kv = pb_begin(out, 9);
	pb_put_str(out, 1, "sampling.priority");
	value = pb_begin(out, 2);
	snprintf(text, sizeof(text), "%g", sp->priority);
	if (sp->priority_kind == 'i')
		pb_put_uint(out, 3, (uint64_t)(int64_t)sp->priority);
	else if (sp->priority_kind == 'd')
		pb_put_double(out, 4, sp->priority);
	else
		pb_put_str(out, 1, text);
	pb_end(out, value);
	pb_end(out, kv);
}

/* A batch of these spans; nobody waits for it. */
static inline struct batch *fx_batch(const struct fx_span *v, uint32_t n, const char *tenant)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	size_t rs = pb_begin(&out, 1), ss = pb_begin(&out, 2);

	for (uint32_t i = 0; i < n; i++) {
		size_t span = pb_begin(&out, 2);

		fx_put_span(&out, &v[i], i);
		pb_end(&out, span);
	}
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new_forced(&fx.service.budget, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_otlp(r, tenant, &fx.service.budget, &result, NULL);
	assert_non_null(b);
	assert_int_equal(b->tables.n_spans, n);
	return b;
}

/* A batch of this OTLP JSON; nobody waits for it. */
static inline struct batch *fx_batch_json(const char *json)
{
	struct arena arena = ARENA_INIT;
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct err err = ERR_INIT;
	struct batch *b;
	struct rcbuf *r;

	if (otlp_json_decode(bytes_str(json), 0, &arena, &out, &err) < 0)
		fail_msg("%s: %s", json, err.msg);
	r = rcbuf_new_forced(&fx.service.budget, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	arena_fini(&arena);
	b = batch_from_otlp(r, "t", &fx.service.budget, &result, &err);
	assert_non_null(b);
	return b;
}

/* What a batch is on the wire, as OTLP JSON; free it. */
static inline char *fx_json(const struct batch *b)
{
	struct arena arena = ARENA_INIT;
	struct buf bytes = BUF_INIT, out = BUF_INIT;
	struct batch_encoding e;
	struct bytes part;

	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&bytes, e.pieces[i]);
	assert_int_equal(bytes.n, e.n_bytes);
	assert_int_equal(batch_encoded_size(b), e.n_bytes);
	part = buf_bytes(&bytes);
	assert_int_equal(otlp_json_encode(&part, 1, OTLP_JSON, 0, &out, NULL), 0);
	buf_add_char(&out, '\0');
	buf_fini(&bytes);
	arena_fini(&arena);
	return (char *)out.p;
}

/* Batches like these, as if they came again over the wire. */
static inline struct batch *fx_again(const struct batch *b)
{
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *again;

	batch_encode(b, &arena, &e);
	r = rcbuf_new_forced(&fx.service.budget, e.n_bytes);
	r->n = 0;
	for (size_t i = 0; i < e.n_pieces; i++) {
		memcpy(r->p + r->n, e.pieces[i].p, e.pieces[i].n);
		r->n += e.pieces[i].n;
	}
	arena_fini(&arena);
	again = batch_from_otlp(r, b->tenant, &fx.service.budget, &result, NULL);
	assert_non_null(again);
	return again;
}

#endif
