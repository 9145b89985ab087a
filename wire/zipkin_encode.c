/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_encode.c - see zipkin_encode.h; what becomes of what is docs/formats/zipkin.md.
 *
 * DESIGN: keys that the way back would read as something else are written behind a prefix:
 * otlp.attribute. for a span's, otlp.resource. and otlp.scope. for those of its resource and scope.
 */
#include "wire/zipkin_encode.h"

#include "base/str.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"
#include "wire/zipkin_encode_text.h"
#include "wire/zipkin_otel_text.h"
#include "wire/zipkin_write.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>

/* DEDUPE_MAX: above as many tags a key is not looked for among those before it. */
enum { DEDUPE_MAX = 256 };

/* ---- tags ---- */

static struct bytes joined(struct arena *arena, struct bytes prefix, struct bytes key)
{
	uint8_t *to = arena_alloc(arena, prefix.n + key.n);

	memcpy(to, prefix.p, prefix.n);
	if (key.n > 0)
		memcpy(to + prefix.n, key.p, key.n);
	return (struct bytes){ to, prefix.n + key.n };
}

static void add_tag(struct zipkin_span_room *room, struct arena *arena, struct bytes key,
		    struct bytes value, enum zipkin_tag_place place)
{
	*zipkin_span_room_tag(room, arena) =
		(struct zipkin_span_tag){ .key = key, .value = value, .place = place };
}

static bool has_prefix(struct bytes key, struct bytes prefix)
{
	return key.n >= prefix.n && memcmp(key.p, prefix.p, prefix.n) == 0;
}

static bool is_one_of(struct bytes key, const char *const *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes_eq_str(key, keys[i]))
			return true;
	return false;
}

/* Would the way back read a tag of this key as something else than an attribute? (span.kind and
 * error are looked at by themselves.) */
static bool is_special(struct bytes key)
{
	static const char *const keys[] = { "otel.status_code",
					    "otel.status_description",
					    "otel.scope.name",
					    "otel.scope.version",
					    "otel.library.name",
					    "otel.library.version",
					    "otel.dropped_attributes_count",
					    "otel.dropped_events_count",
					    "otel.dropped_links_count" };

	if (key.n == 0 || (key.p[0] != 'o' && key.p[0] != 'w'))
		return false;
	return has_prefix(key, BYTES_LIT("otlp.")) || bytes_eq_str(key, "w3c.tracestate") ||
	       is_one_of(key, keys, COUNT_OF(keys));
}

/* The same for a resource's, which must not meet an endpoint's either. */
static bool is_special_head(struct bytes key)
{
	static const char *const keys[] = { "error",
					    "span.kind",
					    "peer.service",
					    "service.peer.name",
					    "network.local.address",
					    "network.peer.address",
					    "net.host.port",
					    "net.peer.port" };

	return is_special(key) || is_one_of(key, keys, COUNT_OF(keys));
}

/* ---- resource and scope ---- */

/* Names that stand in for a service's, in this order. */
static const char *const name_sources[] = { "service.name", "faas.name", "k8s.deployment.name",
					    "process.executable.name" };

static bool is_head(const struct zipkin_span_tag *t, const char *key)
{
	return t->place == ZIPKIN_TAG_RESOURCE && bytes_eq_str(t->key, key);
}

/* Take the service's name out of the resource's tags. */
static void take_service_name(struct zipkin_encoder *e)
{
	for (size_t k = 0; k < COUNT_OF(name_sources); k++) {
		for (size_t i = 0; i < e->heads.n_tags; i++) {
			struct zipkin_span_tag *t = &e->heads.tags[i];

			if (!is_head(t, name_sources[k]) || t->value.n == 0)
				continue;
			e->service = t->value;
			t->taken = true;
			if (k > 0)
				add_tag(&e->heads, &e->head_texts,
					BYTES_LIT("otlp.service.name.source"),
					bytes_str(name_sources[k]), ZIPKIN_TAG_SPAN);
			return;
		}
	}
	e->service = e->default_service;
}

static void add_resource(struct zipkin_encoder *e, struct bytes resource)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&resource, &f) > 0) {
		struct zipkin_attr a;
		struct bytes value;

		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		a = zipkin_attr_read(f.data);
		value = zipkin_attr_text(&a, &e->head_texts);
		if (is_special_head(a.key) || (value.n == 0 && bytes_eq_str(a.key, "service.name")))
			a.key = joined(&e->head_texts, BYTES_LIT("otlp.resource."), a.key);
		add_tag(&e->heads, &e->head_texts, a.key, value, ZIPKIN_TAG_RESOURCE);
	}
}

/* Name and version under today's key and under the one that older readers know. */
static void add_scope(struct zipkin_encoder *e, struct bytes scope)
{
	static const char *const keys[][2] = { { "otel.scope.name", "otel.library.name" },
					       { "otel.scope.version", "otel.library.version" } };
	struct pb_field f = { .number = 0 };

	while (pb_next(&scope, &f) > 0) {
		if (f.wire != PB_LEN || f.number > 3 || f.data.n == 0)
			continue;
		if (f.number < 3) {
			for (int i = 0; i < 2; i++)
				add_tag(&e->heads, &e->head_texts, bytes_str(keys[f.number - 1][i]),
					f.data, ZIPKIN_TAG_SPAN);
		} else {
			struct zipkin_attr a = zipkin_attr_read(f.data);

			add_tag(&e->heads, &e->head_texts,
				joined(&e->head_texts, BYTES_LIT("otlp.scope."), a.key),
				zipkin_attr_text(&a, &e->head_texts), ZIPKIN_TAG_SPAN);
		}
	}
}

/* The payload of field `number` in a run of raw fields; empty when it is not there. */
static struct bytes head_field(const struct span_tables *t, uint32_t head, uint32_t n,
			       uint32_t number)
{
	struct bytes found = BYTES_EMPTY;

	for (uint32_t i = head; i < head + n; i++) {
		struct bytes raw = t->heads[i];
		struct pb_field f;

		if (pb_next(&raw, &f) > 0 && f.number == number && f.wire == PB_LEN)
			found = f.data;
	}
	return found;
}

static void enter_scope(struct zipkin_encoder *e, const struct span_tables *t, uint32_t number)
{
	const struct scope_ref *scope = &t->scopes[number];
	const struct resource_ref *resource = &t->resources[scope->resource];

	if (e->tables == t && e->scope == number)
		return;
	zipkin_span_room_reset(&e->heads);
	arena_reset(&e->head_texts);
	add_resource(e, head_field(t, resource->head, resource->n_head, 1));
	take_service_name(e);
	add_scope(e, head_field(t, scope->head, scope->n_head, 1));
	e->tables = t;
	e->scope = number;
}

/* ---- a span ---- */

struct source {
	struct zipkin_encoder *e;
	struct zipkin_span sp;
	uint32_t kind;
	uint64_t start_ns, end_ns;
	struct bytes trace_state, message;
	uint64_t status_code, n_dropped[3];
	uint32_t n_links;
	struct zipkin_attr error; /* the attribute of that name; no key: none */
	struct bytes peer_service, service_peer_name;
	struct bytes local_ipv4, remote_ipv4; /* beside IPv6 addresses */
};

static void put_tag(struct source *s, struct bytes key, struct bytes value)
{
	add_tag(&s->e->room, &s->e->texts, key, value, ZIPKIN_TAG_SPAN);
}

static void put_escaped(struct source *s, const struct zipkin_attr *a)
{
	put_tag(s, joined(&s->e->texts, BYTES_LIT("otlp.attribute."), a->key),
		zipkin_attr_text(a, &s->e->texts));
}

/* Only what the way back would write just so. */
static bool take_address(const struct zipkin_attr *a, struct zipkin_span_endpoint *ep)
{
	struct zipkin_span_endpoint parsed = { .ip_len = 0 };
	char text[INET6_ADDRSTRLEN];

	if (a->member != ANY_STRING || ep->ip_len > 0)
		return false;
	zipkin_span_endpoint_ip(&parsed, a->text);
	if (parsed.ip_len == 0 || !bytes_eq(zipkin_span_ip_text(&parsed, text), a->text))
		return false;
	memcpy(ep->ip, parsed.ip, sizeof(ep->ip));
	ep->ip_len = parsed.ip_len;
	return true;
}

static bool take_port(const struct zipkin_attr *a, struct zipkin_span_endpoint *ep)
{
	if (a->member != ANY_INT || a->number == 0 || a->number > 65535 || ep->port > 0)
		return false;
	ep->port = (uint16_t)a->number;
	return true;
}

static bool take_name(const struct zipkin_attr *a, struct bytes *to)
{
	if (a->member != ANY_STRING || a->text.n == 0 || to->n > 0)
		return false;
	*to = a->text;
	return true;
}

/* Attributes that are an endpoint's. */
static bool take_endpoint(struct source *s, const struct zipkin_attr *a)
{
	struct bytes k = a->key;

	if (bytes_eq_str(k, "network.local.address"))
		return take_address(a, &s->sp.local);
	if (bytes_eq_str(k, "network.peer.address"))
		return take_address(a, &s->sp.remote);
	if (bytes_eq_str(k, "net.host.port"))
		return take_port(a, &s->sp.local);
	if (bytes_eq_str(k, "net.peer.port"))
		return take_port(a, &s->sp.remote);
	return false;
}

/* Attributes that Zipkin has a place of its own for, or that were made from it. */
static bool take_attr(struct source *s, const struct zipkin_attr *a)
{
	bool is_true = a->member == ANY_BOOL && a->number != 0;
	struct bytes k = a->key;

	switch (k.n > 0 ? k.p[0] : 0) {
	case 'n':
		return take_endpoint(s, a);
	case 'p':
		return bytes_eq_str(k, "peer.service") && take_name(a, &s->peer_service);
	case 's':
		return bytes_eq_str(k, "service.peer.name") && take_name(a, &s->service_peer_name);
	case 'e':
		if (!bytes_eq_str(k, "error"))
			return false;
		s->error = *a;
		return true;
	case 'o':
		return is_true && s->start_ns == 0 &&
		       bytes_eq_str(k, "otel.zipkin.absentField.startTime");
	case 'z':
		if (is_true && bytes_eq_str(k, "zipkin.debug"))
			return s->sp.debug = true;
		if (is_true && bytes_eq_str(k, "zipkin.shared"))
			return s->sp.shared = true;
		if (bytes_eq_str(k, "zipkin.local.ipv4"))
			return take_name(a, &s->local_ipv4);
		return bytes_eq_str(k, "zipkin.remote.ipv4") && take_name(a, &s->remote_ipv4);
	default:
		return false;
	}
}

/* An attribute span.kind that would be taken for the kind, or that the kind needs the place of. */
static bool is_other_kind(const struct source *s, const struct zipkin_attr *a)
{
	if (!bytes_eq_str(a->key, "span.kind"))
		return false;
	return s->kind == SPAN_INTERNAL ||
	       (s->kind == SPAN_UNSPECIFIED && str_eq_nocase(a->text, "internal"));
}

static void put_attr(struct source *s, struct bytes key_value)
{
	struct zipkin_attr a = zipkin_attr_read(key_value);

	if (take_attr(s, &a))
		return;
	if (is_special(a.key) || zipkin_span_is_resource_key(a.key) || is_other_kind(s, &a))
		put_escaped(s, &a);
	else
		put_tag(s, a.key, zipkin_attr_text(&a, &s->e->texts));
}

static void put_annotation(struct source *s, struct bytes event)
{
	struct bytes in = event;
	struct pb_field f = { .number = 0 };
	uint64_t at_ns = 0;

	while (pb_next(&in, &f) > 0)
		if (f.number == 1 && f.wire == PB_FIXED64)
			at_ns = f.value;
	/* An annotation without a time is none. */
	if (at_ns == 0)
		at_ns = MAX(s->start_ns, UINT64_C(1000));
	*zipkin_span_room_annotation(&s->e->room, &s->e->texts) =
		(struct zipkin_span_annotation){ at_ns / 1000,
						 zipkin_event_text(event, &s->e->texts) };
}

static void put_link(struct source *s, struct bytes link)
{
	char key[32];
	int n = snprintf(key, sizeof(key), "otlp.link.%u", s->n_links++);

	put_tag(s, (struct bytes){ arena_dup(&s->e->texts, key, (size_t)n), (size_t)n },
		zipkin_link_text(link, &s->e->texts));
}

static void read_status(struct source *s, struct bytes status)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&status, &f) > 0) {
		if (f.number == 2 && f.wire == PB_LEN)
			s->message = f.data;
		else if (f.number == 3 && f.wire == PB_VARINT)
			s->status_code = f.value;
	}
}

static void read_field(struct source *s, const struct pb_field *f)
{
	switch (f->number) {
	case 3:
		s->trace_state = f->data;
		break;
	case 5:
		s->sp.name = f->data;
		break;
	case 9:
		put_attr(s, f->data);
		break;
	case 10:
	case 12:
	case 14:
		s->n_dropped[(f->number - 10) / 2] = (uint32_t)f->value;
		break;
	case 11:
		put_annotation(s, f->data);
		break;
	case 13:
		put_link(s, f->data);
		break;
	case 15:
		read_status(s, f->data);
		break;
	default:
		break;
	}
}

/* ---- what the fields together make ---- */

static void set_remote_name(struct source *s)
{
	s->sp.remote.service = s->service_peer_name.n > 0 ? s->service_peer_name : s->peer_service;
	/* The way back writes both keys. */
	if (s->peer_service.n > 0 && !bytes_eq(s->peer_service, s->sp.remote.service))
		put_tag(s, BYTES_LIT("peer.service"), s->peer_service);
}

/* Beside an IPv6 address it is the endpoint's, else a tag. */
static void set_ipv4(struct source *s, const char *key, struct bytes text,
		     struct zipkin_span_endpoint *ep)
{
	const struct zipkin_attr a = { .member = ANY_STRING, .text = text };
	struct zipkin_span_endpoint v4 = { .ip_len = 0 };

	if (text.n == 0)
		return;
	if (ep->ip_len == 16 && take_address(&a, &v4) && v4.ip_len == 4) {
		memcpy(ep->ipv4, v4.ip, 4);
		ep->has_ipv4 = true;
	} else {
		put_tag(s, bytes_str(key), text);
	}
}

static bool is_word(struct bytes text)
{
	return str_eq_nocase(text, "true") || str_eq_nocase(text, "false");
}

/* An error of Zipkin's own: its text is the message and stays. */
static bool is_native_error(const struct source *s)
{
	return s->error.member == ANY_STRING && !is_word(s->error.text) &&
	       bytes_eq(s->error.text, s->message);
}

static void put_error(struct source *s)
{
	if (is_native_error(s)) {
		put_tag(s, BYTES_LIT("error"), s->error.text);
		return;
	}
	put_tag(s, BYTES_LIT("otel.status_code"), BYTES_LIT("ERROR"));
	if (s->error.key.n > 0)
		put_escaped(s, &s->error);
	if (s->message.n > 0 && !is_word(s->message)) {
		put_tag(s, BYTES_LIT("error"), s->message);
		return;
	}
	put_tag(s, BYTES_LIT("error"), BYTES_LIT("true"));
	if (s->message.n > 0)
		put_tag(s, BYTES_LIT("otel.status_description"), s->message);
}

static void put_status(struct source *s)
{
	if (s->status_code == STATUS_ERROR) {
		put_error(s);
		return;
	}
	if (s->status_code == STATUS_OK)
		put_tag(s, BYTES_LIT("otel.status_code"), BYTES_LIT("OK"));
	if (s->message.n > 0)
		put_tag(s, BYTES_LIT("otel.status_description"), s->message);
	/* Any other value would make an error of it. */
	if (s->error.key.n > 0 && str_eq_nocase(zipkin_attr_text(&s->error, &s->e->texts), "false"))
		put_tag(s, BYTES_LIT("error"), BYTES_LIT("false"));
	else if (s->error.key.n > 0)
		put_escaped(s, &s->error);
}

static void put_dropped_counts(struct source *s)
{
	static const char *const keys[] = { "otel.dropped_attributes_count",
					    "otel.dropped_events_count",
					    "otel.dropped_links_count" };
	char text[16];

	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		int n = snprintf(text, sizeof(text), "%" PRIu64, s->n_dropped[i]);

		if (s->n_dropped[i] > 0)
			put_tag(s, bytes_str(keys[i]),
				(struct bytes){ arena_dup(&s->e->texts, text, (size_t)n),
						(size_t)n });
	}
}

/* Between 0 and 1 us is 1. */
static uint64_t to_us(uint64_t ns)
{
	return ns > 0 && ns < 1000 ? 1 : ns / 1000;
}

static void set_times(struct source *s)
{
	s->sp.timestamp_us = to_us(s->start_ns);
	s->sp.duration_us = s->end_ns > s->start_ns ? to_us(s->end_ns - s->start_ns) : 0;
}

static void set_kind(struct source *s)
{
	if (s->kind == SPAN_INTERNAL)
		put_tag(s, BYTES_LIT("span.kind"), BYTES_LIT("internal"));
	else if (s->kind <= SPAN_CONSUMER)
		s->sp.kind = (enum zipkin_span_kind)s->kind;
}

/* The tags of resource and scope behind the span's; where a key is taken, one of the resource's
 * goes behind a prefix. */
static void put_heads(struct source *s)
{
	struct zipkin_encoder *e = s->e;
	size_t n_own = e->room.n_tags;

	for (size_t i = 0; i < e->heads.n_tags; i++) {
		const struct zipkin_span_tag *t = &e->heads.tags[i];
		struct bytes key = t->key;

		if (t->taken)
			continue;
		for (size_t k = 0; k < n_own && n_own <= DEDUPE_MAX; k++)
			if (bytes_eq(e->room.tags[k].key, t->key)) {
				key = joined(&e->texts, BYTES_LIT("otlp.resource."), t->key);
				break;
			}
		put_tag(s, key, t->value);
	}
}

/* The span's bytes in one run. */
static struct bytes whole(const struct span_ref *sp, struct arena *arena)
{
	uint8_t *to, *p;

	if (sp->pieces == NULL)
		return (struct bytes){ sp->p, sp->len };
	p = to = arena_alloc(arena, sp->len);
	for (size_t i = 0; i < sp->n_pieces; i++) {
		memcpy(p, sp->pieces[i].p, sp->pieces[i].n);
		p += sp->pieces[i].n;
	}
	return (struct bytes){ to, sp->len };
}

static void encode_span(struct zipkin_encoder *e, const struct span_tables *t, uint32_t number,
			struct buf *out)
{
	const struct span_ref *ref = &t->spans[number];
	struct source s = {
		.e = e, .kind = ref->kind, .start_ns = ref->start_ns, .end_ns = ref->end_ns
	};
	struct pb_field f = { .number = 0 };
	struct bytes in;

	enter_scope(e, t, ref->scope);
	zipkin_span_room_reset(&e->room);
	arena_reset(&e->texts);
	memcpy(s.sp.trace_id, ref->trace_id, 16);
	memcpy(s.sp.id, ref->span_id, 8);
	memcpy(s.sp.parent_id, ref->parent_id, 8);
	s.sp.local.service = e->service;
	in = whole(ref, &e->texts);
	while (pb_next(&in, &f) > 0)
		read_field(&s, &f);
	if (s.trace_state.n > 0)
		put_tag(&s, BYTES_LIT("w3c.tracestate"), s.trace_state);
	set_times(&s);
	set_kind(&s);
	set_remote_name(&s);
	set_ipv4(&s, "zipkin.local.ipv4", s.local_ipv4, &s.sp.local);
	set_ipv4(&s, "zipkin.remote.ipv4", s.remote_ipv4, &s.sp.remote);
	put_status(&s);
	put_dropped_counts(&s);
	put_heads(&s);
	zipkin_span_room_lend(&e->room, &s.sp);
	if (e->form == ZIPKIN_JSON)
		zipkin_write_json(&s.sp, out);
	else
		zipkin_write_proto(&s.sp, out);
}

/* ---- public ---- */

void zipkin_encoder_init(struct zipkin_encoder *e, enum zipkin_form form,
			 const char *default_service)
{
	*e = (struct zipkin_encoder){ .form = form,
				      .default_service = bytes_str(default_service),
				      .scope = UINT32_MAX };
}

void zipkin_encoder_fini(struct zipkin_encoder *e)
{
	zipkin_span_room_fini(&e->heads);
	zipkin_span_room_fini(&e->room);
	arena_fini(&e->head_texts);
	arena_fini(&e->texts);
}

uint32_t zipkin_encode_list(struct zipkin_encoder *e, const struct span_tables *t, uint32_t first,
			    size_t max_bytes, struct buf *out)
{
	size_t start = out->n;
	uint32_t i = first;

	e->scope = UINT32_MAX; /* other tables may lie at the same place */
	if (e->form == ZIPKIN_JSON)
		buf_add_char(out, '[');
	for (; i < t->n_spans; i++) {
		size_t before = out->n;

		if (e->form == ZIPKIN_JSON && i > first)
			buf_add_char(out, ',');
		encode_span(e, t, i, out);
		if (max_bytes > 0 && i > first &&
		    out->n - start + (e->form == ZIPKIN_JSON) > max_bytes) {
			out->n = before;
			break;
		}
	}
	if (e->form == ZIPKIN_JSON)
		buf_add_char(out, ']');
	return i;
}

/* Tables of a request, in the arena. */
static int read_request(struct bytes request, struct arena *arena, struct span_tables *t,
			struct err *err)
{
	struct otlp_counts n;
	struct otlp_result result;

	*t = (struct span_tables){ .n_spans = 0 };
	if (request.n == 0) /* and perhaps nowhere: p may be NULL */
		return 0;
	if (otlp_count(request, &n, err) < 0)
		return -1;
	t->spans = arena_alloc(arena, n.n_spans * sizeof(*t->spans));
	t->scopes = arena_alloc(arena, n.n_scopes * sizeof(*t->scopes));
	t->resources = arena_alloc(arena, n.n_resources * sizeof(*t->resources));
	t->heads = arena_alloc(arena, n.n_heads * sizeof(*t->heads));
	return otlp_index(request, t, arena, &result, err);
}

int zipkin_encode_request(struct bytes request, enum zipkin_form form, size_t max_bytes,
			  struct buf *out, struct err *err)
{
	size_t start = out->n, max = out->max;
	struct arena arena = ARENA_INIT;
	struct zipkin_encoder e;
	struct span_tables t;
	bool outer = out->overflow;
	int rc = read_request(request, &arena, &t, err);

	if (rc == 0) {
		if (max_bytes > 0)
			out->max = max > 0 ? MIN(max, start + max_bytes) : start + max_bytes;
		out->overflow = false;
		zipkin_encoder_init(&e, form, "");
		zipkin_encode_list(&e, &t, 0, 0, out);
		zipkin_encoder_fini(&e);
		if (out->overflow)
			rc = err_set(err, ERR_TOO_LARGE, "zipkin: larger than %zu bytes",
				     max_bytes);
		out->n = rc < 0 ? start : out->n;
		out->max = max;
		out->overflow = outer;
	}
	arena_fini(&arena);
	return rc;
}
