/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_v1.c - see zipkin_v1.h.
 *
 * Unlike there, an annotation of the core counts also without a host: some senders name none.
 *
 * DESIGN: a half is one v2 span to be: one per host, found by service name. Annotations are walked
 * once; those of the core (cs, sr, ...) set a half's kind and times, the others belong to a half.
 * At the end each half gathers what it owns.
 */
#include "wire/zipkin_v1.h"

#include "base/mem.h"

enum { OWNER_NONE = 255 };

/* Core annotations, in the order of `core_values`. */
enum core { CS, CR, SR, SS, MS, MR, WS, WR, N_CORE };

struct half {
	struct zipkin_span sp;
	bool has_host;
};

struct split {
	struct zipkin_v1_span *v1;
	struct half half[ZIPKIN_V1_HALVES];
	size_t n_halves;
	struct zipkin_v1_annotation *core[N_CORE]; /* the last of each; NULL: none */
	struct half *at[N_CORE];                   /* the half of each */
	struct zipkin_v1_annotation made[2];       /* a start that the span's own times stand for */
};

void zipkin_v1_reset(struct zipkin_v1_span *v1)
{
	*v1 = (struct zipkin_v1_span){ .annotations = v1->annotations,
				       .binaries = v1->binaries,
				       .cap_annotations = v1->cap_annotations,
				       .cap_binaries = v1->cap_binaries };
}

struct zipkin_v1_annotation *zipkin_v1_annotation(struct zipkin_v1_span *v1, struct meter *meter)
{
	struct zipkin_v1_annotation *a;

	if (v1->n_annotations == v1->cap_annotations)
		v1->annotations = meter_grow(meter, v1->annotations, &v1->cap_annotations,
					     v1->n_annotations + 1, sizeof(*v1->annotations));
	a = &v1->annotations[v1->n_annotations++];
	*a = (struct zipkin_v1_annotation){ 0 };
	return a;
}

struct zipkin_v1_binary *zipkin_v1_binary(struct zipkin_v1_span *v1, struct meter *meter)
{
	struct zipkin_v1_binary *b;

	if (v1->n_binaries == v1->cap_binaries)
		v1->binaries = meter_grow(meter, v1->binaries, &v1->cap_binaries,
					  v1->n_binaries + 1, sizeof(*v1->binaries));
	b = &v1->binaries[v1->n_binaries++];
	*b = (struct zipkin_v1_binary){ 0 };
	return b;
}

void zipkin_v1_fini(struct zipkin_v1_span *v1)
{
	free(v1->annotations);
	free(v1->binaries);
}

/* ---- halves ---- */

static bool is_host(const struct zipkin_span_endpoint *ep)
{
	return ep->service.n > 0 || ep->ip_len > 0 || ep->port > 0;
}

static struct half *new_half(struct split *s, const struct zipkin_span_endpoint *host)
{
	struct zipkin_v1_span *v1 = s->v1;
	struct half *h;

	if (s->n_halves == ZIPKIN_V1_HALVES)
		return &s->half[0];
	h = &s->half[s->n_halves++];
	*h = (struct half){ .sp = { .name = v1->name, .debug = v1->debug } };
	memcpy(h->sp.trace_id, v1->trace_id, 16);
	memcpy(h->sp.id, v1->id, 8);
	memcpy(h->sp.parent_id, v1->parent_id, 8);
	if (host != NULL && is_host(host)) {
		h->sp.local = *host;
		h->has_host = true;
	}
	return h;
}

/* The half of a host: what names none belongs to the first; a half without a host takes it. */
static struct half *half_of(struct split *s, const struct zipkin_span_endpoint *host)
{
	if (!is_host(host))
		return &s->half[0];
	for (size_t i = 0; i < s->n_halves; i++) {
		struct half *h = &s->half[i];

		if (!h->has_host) {
			h->sp.local = *host;
			h->has_host = true;
			return h;
		}
		if (bytes_eq(h->sp.local.service, host->service))
			return h;
	}
	return new_half(s, host);
}

static uint8_t number_of(const struct split *s, const struct half *h)
{
	return (uint8_t)(h - s->half);
}

/* ---- annotations ---- */

static enum core core_of(const struct zipkin_v1_annotation *a)
{
	static const char core_values[N_CORE][3] = {
		"cs", "cr", "sr", "ss", "ms", "mr", "ws", "wr"
	};

	if (a->value.n == 2)
		for (int i = 0; i < N_CORE; i++)
			if (memcmp(a->value.p, core_values[i], 2) == 0)
				return (enum core)i;
	return N_CORE;
}

static void walk_annotations(struct split *s)
{
	static const enum zipkin_span_kind kinds[N_CORE] = {
		[CS] = ZIPKIN_KIND_CLIENT, [CR] = ZIPKIN_KIND_CLIENT,   [SR] = ZIPKIN_KIND_SERVER,
		[SS] = ZIPKIN_KIND_SERVER, [MS] = ZIPKIN_KIND_PRODUCER, [MR] = ZIPKIN_KIND_CONSUMER,
	};
	struct zipkin_v1_span *v1 = s->v1;

	for (size_t i = 0; i < v1->n_annotations; i++) {
		struct zipkin_v1_annotation *a = &v1->annotations[i];
		struct half *h;
		enum core c;

		if (!is_host(&a->host))
			a->host = v1->local;
		h = half_of(s, &a->host);
		c = core_of(a);
		a->owner = number_of(s, h);
		if (c == N_CORE)
			continue;
		a->owner = OWNER_NONE;
		s->core[c] = a;
		s->at[c] = h;
		if (kinds[c] != ZIPKIN_KIND_NONE)
			h->sp.kind = kinds[c];
	}
}

/* How long; 0, absent, when a time is missing or the clock went back. */
static uint64_t between(const struct zipkin_v1_annotation *begin,
			const struct zipkin_v1_annotation *end)
{
	return begin->timestamp_us > 0 && end->timestamp_us > begin->timestamp_us
		       ? end->timestamp_us - begin->timestamp_us
		       : 0;
}

/* The span's own times where both are there, else those of the annotations. */
static void set_times(struct split *s, struct half *h, const struct zipkin_v1_annotation *begin,
		      const struct zipkin_v1_annotation *end)
{
	if (s->v1->timestamp_us > 0 && s->v1->duration_us > 0) {
		h->sp.timestamp_us = s->v1->timestamp_us;
		h->sp.duration_us = s->v1->duration_us;
	} else {
		h->sp.timestamp_us = begin->timestamp_us;
		h->sp.duration_us = end != NULL ? between(begin, end) : 0;
	}
}

/* An end without its start, where the span's own times end there, too: the start is the span's. */
static void make_start(struct split *s, enum core start, enum core end, int n)
{
	const struct zipkin_v1_annotation *e = s->core[end];
	struct zipkin_v1_annotation *m = &s->made[n];

	if (s->core[start] != NULL || e == NULL || s->v1->timestamp_us == 0 ||
	    s->v1->duration_us == 0 || s->v1->timestamp_us + s->v1->duration_us != e->timestamp_us)
		return;
	*m = *e;
	m->timestamp_us = s->v1->timestamp_us;
	s->core[start] = m;
	s->at[start] = s->at[end];
}

/* Two core annotations of one host name, seen from both sides: a half for the second. */
static void fork_half(struct split *s, enum core first, enum core second, enum core second_end,
		      enum zipkin_span_kind first_kind, enum zipkin_span_kind second_kind)
{
	if (s->at[first] != s->at[second])
		return;
	s->at[first]->sp.kind = first_kind;
	s->at[second] = new_half(s, &s->core[second]->host);
	if (s->at[second] != s->at[first])
		s->at[second]->sp.kind = second_kind;
	if (s->core[second_end] != NULL)
		s->at[second_end] = s->at[second];
}

/* Both ends of a call: the client has the span's times, the server its own. */
static void set_both_ends(struct split *s)
{
	struct half *server;

	fork_half(s, CS, SR, SS, ZIPKIN_KIND_CLIENT, ZIPKIN_KIND_SERVER);
	server = s->at[SR];
	server->sp.shared = true;
	server->sp.timestamp_us = s->core[SR]->timestamp_us;
	server->sp.duration_us = s->core[SS] != NULL ? between(s->core[SR], s->core[SS]) : 0;
	set_times(s, s->at[CS], s->core[CS], s->core[CR]);
}

static void set_incomplete(struct split *s)
{
	static const enum core starts[] = { CS, SR }, ends[] = { CR, SS };

	for (int i = 0; i < 2; i++) {
		if (s->core[starts[i]] != NULL)
			s->at[starts[i]]->sp.timestamp_us = s->core[starts[i]]->timestamp_us;
		if (s->core[ends[i]] != NULL)
			s->core[ends[i]]->owner = number_of(s, s->at[ends[i]]);
	}
	if (s->v1->timestamp_us > 0) {
		s->half[0].sp.timestamp_us = s->v1->timestamp_us;
		s->half[0].sp.duration_us = s->v1->duration_us;
	}
}

static void set_call_times(struct split *s)
{
	make_start(s, CS, CR, 0);
	make_start(s, SR, SS, 1);
	if (s->core[CS] != NULL && s->core[SR] != NULL)
		set_both_ends(s);
	else if (s->core[CS] != NULL && s->core[CR] != NULL)
		set_times(s, s->at[CS], s->core[CS], s->core[CR]);
	else if (s->core[SR] != NULL && s->core[SS] != NULL)
		set_times(s, s->at[SR], s->core[SR], s->core[SS]);
	else
		set_incomplete(s);
	/* Version 1 has no flag for it: who joined a client's span left the time to the client. */
	if (s->core[CS] == NULL && s->core[SR] != NULL &&
	    (s->v1->timestamp_us == 0 || (s->core[SS] != NULL && s->v1->duration_us == 0)))
		s->at[SR]->sp.shared = true;
}

static void set_message_times(struct split *s)
{
	struct zipkin_v1_annotation **c = s->core;

	if (c[MS] != NULL && c[MR] != NULL) {
		struct zipkin_span *sp;

		fork_half(s, MS, MR, WR, ZIPKIN_KIND_PRODUCER, ZIPKIN_KIND_CONSUMER);
		sp = &s->at[MR]->sp;
		sp->shared = true;
		sp->timestamp_us = c[WR] != NULL ? c[WR]->timestamp_us : c[MR]->timestamp_us;
		sp->duration_us = c[WR] != NULL ? between(c[WR], c[MR]) : 0;
		sp = &s->at[MS]->sp;
		sp->timestamp_us = c[MS]->timestamp_us;
		sp->duration_us = c[WS] != NULL ? between(c[MS], c[WS]) : 0;
	} else if (c[MS] != NULL) {
		set_times(s, s->at[MS], c[MS], c[WS]);
	} else if (c[MR] != NULL) {
		set_times(s, s->at[MR], c[WR] != NULL ? c[WR] : c[MR],
			  c[WR] != NULL ? c[MR] : NULL);
	} else {
		for (enum core w = WS; w <= WR; w++)
			if (c[w] != NULL)
				c[w]->owner = number_of(s, s->at[w]);
	}
}

/* ---- binary annotations ---- */

struct addresses {
	const struct zipkin_span_endpoint *ca, *sa, *ma; /* NULL: none */
};

/* An address whatever its value is: true, "true" and "1" are all about. */
static bool take_address(const struct zipkin_v1_binary *b, struct addresses *found)
{
	if (b->key.n != 2 || b->key.p[1] != 'a' || !is_host(&b->host))
		return false;
	if (b->key.p[0] == 'c')
		found->ca = &b->host;
	else if (b->key.p[0] == 's')
		found->sa = &b->host;
	else if (b->key.p[0] == 'm')
		found->ma = &b->host;
	else
		return false;
	return true;
}

static void walk_binaries(struct split *s, struct addresses *found)
{
	for (size_t i = 0; i < s->v1->n_binaries; i++) {
		struct zipkin_v1_binary *b = &s->v1->binaries[i];

		b->owner = OWNER_NONE;
		if (take_address(b, found))
			continue;
		b->owner = number_of(s, half_of(s, is_host(&b->host) ? &b->host : &s->v1->local));
		if (bytes_eq_str(b->key, "lc")) {
			b->key = BYTES_LIT("component");
			if (b->value.n == 0)
				b->owner = OWNER_NONE; /* it only names the host */
		}
	}
}

static bool is_same_host(const struct zipkin_span_endpoint *a, const struct zipkin_span_endpoint *b)
{
	return bytes_eq(a->service, b->service) && a->ip_len == b->ip_len &&
	       memcmp(a->ip, b->ip, a->ip_len) == 0 && a->port == b->port;
}

/* Nothing says who called whom, but addresses do. */
static void set_remote_by_address(struct split *s, const struct addresses *found)
{
	if (found->ca != NULL && found->sa != NULL) {
		half_of(s, found->ca)->sp.remote = *found->sa;
	} else if (found->sa != NULL) {
		s->half[0].sp.remote = *found->sa;
	} else {
		s->half[0].sp.kind = ZIPKIN_KIND_SERVER;
		s->half[0].sp.remote = *found->ca;
	}
}

static void set_remotes(struct split *s, const struct addresses *found)
{
	struct half *server = s->at[SR] != NULL ? s->at[SR] : s->at[SS];
	struct half *client = s->at[CS] != NULL ? s->at[CS] : s->at[CR];

	if (server == NULL && client == NULL && (found->ca != NULL || found->sa != NULL)) {
		set_remote_by_address(s, found);
		return;
	}
	if (found->ca != NULL && server != NULL && !is_same_host(found->ca, &server->sp.local)) {
		server->sp.remote = *found->ca;
		/* Finagle names the client as the server. */
		if (bytes_eq(found->ca->service, server->sp.local.service))
			server->sp.remote.service = BYTES_EMPTY;
	}
	if (found->sa != NULL && client != NULL)
		client->sp.remote = *found->sa;
	for (enum core m = MS; m <= MR; m++)
		if (found->ma != NULL && s->at[m] != NULL)
			s->at[m]->sp.remote = *found->ma;
}

/* ---- result ---- */

/* What of v2 was in a v1 span is the first half's, where v1 says nothing. */
static void set_v2_members(struct split *s)
{
	struct zipkin_span *sp = &s->half[0].sp;

	if (sp->kind == ZIPKIN_KIND_NONE)
		sp->kind = s->v1->kind;
	if (!is_host(&sp->remote))
		sp->remote = s->v1->remote;
	sp->shared |= s->v1->shared;
}

static void add_half(struct split *s, uint8_t number, struct zipkin_span_room *room,
		     struct zipkin_span_batch *batch)
{
	const struct zipkin_v1_span *v1 = s->v1;
	struct zipkin_span *sp = &s->half[number].sp;

	zipkin_span_room_reset(room);
	for (size_t i = 0; i < v1->n_annotations; i++) {
		const struct zipkin_v1_annotation *a = &v1->annotations[i];

		if (a->owner == number && a->timestamp_us > 0)
			*zipkin_span_room_annotation(room, batch->arena) =
				(struct zipkin_span_annotation){ a->timestamp_us, a->value };
	}
	for (size_t i = 0; i < v1->n_binaries; i++) {
		const struct zipkin_v1_binary *b = &v1->binaries[i];

		if (b->owner == number)
			*zipkin_span_room_tag(room, batch->arena) = (struct zipkin_span_tag){
				.key = b->key, .value = b->value, .type = b->type, .bits = b->bits
			};
	}
	zipkin_span_room_lend(room, sp);
	zipkin_span_batch_add(batch, sp);
}

void zipkin_v1_add(struct zipkin_v1_span *v1, struct zipkin_span_room *room,
		   struct zipkin_span_batch *batch)
{
	struct addresses found = { NULL, NULL, NULL };
	struct split s;

	s.v1 = v1;
	s.n_halves = 0;
	memset(s.core, 0, sizeof(s.core));
	memset(s.at, 0, sizeof(s.at));
	new_half(&s, &v1->local);
	walk_annotations(&s);
	set_call_times(&s);
	set_message_times(&s);
	walk_binaries(&s, &found);
	set_remotes(&s, &found);
	set_v2_members(&s);
	for (size_t i = 0; i < s.n_halves; i++)
		add_half(&s, (uint8_t)i, room, batch);
}
