/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_span.c - see zipkin_span.h; the mapping itself is docs/formats/zipkin.md.
 */
#include "wire/zipkin_span.h"

#include "base/str.h"
#include "wire/pb.h"
#include "wire/zipkin_otel_text.h"

#include <arpa/inet.h>
#include <stdlib.h>

enum { MAX_LINKS = 128 };

/* ------------------------------------------------------------------ resource keys */

/* Tags that describe where a span was made, by first letter: what the Collector moves to the
 * resource (semantic conventions 1.6 to 1.12), but for service.name, which stands by itself. */
#define KEY(s)                                                                                     \
	{                                                                                          \
		(const uint8_t *)(s), sizeof(s) - 1                                                \
	}
static const struct bytes resource_keys[] = {
	KEY("aws.ecs.cluster.arn"),
	KEY("aws.ecs.container.arn"),
	KEY("aws.ecs.launchtype"),
	KEY("aws.ecs.task.arn"),
	KEY("aws.ecs.task.family"),
	KEY("aws.ecs.task.revision"),
	KEY("aws.eks.cluster.arn"),
	KEY("aws.log.group.arns"),
	KEY("aws.log.group.names"),
	KEY("aws.log.stream.arns"),
	KEY("aws.log.stream.names"),
	KEY("cloud.account.id"),
	KEY("cloud.availability_zone"),
	KEY("cloud.platform"),
	KEY("cloud.provider"),
	KEY("cloud.region"),
	KEY("container.id"),
	KEY("container.image.name"),
	KEY("container.image.tag"),
	KEY("container.name"),
	KEY("container.runtime"),
	KEY("deployment.environment"),
	KEY("device.id"),
	KEY("device.manufacturer"),
	KEY("device.model.identifier"),
	KEY("device.model.name"),
	KEY("faas.id"),
	KEY("faas.instance"),
	KEY("faas.max_memory"),
	KEY("faas.name"),
	KEY("faas.version"),
	KEY("host.arch"),
	KEY("host.id"),
	KEY("host.image.id"),
	KEY("host.image.name"),
	KEY("host.image.version"),
	KEY("host.name"),
	KEY("host.type"),
	KEY("k8s.cluster.name"),
	KEY("k8s.container.name"),
	KEY("k8s.container.restart_count"),
	KEY("k8s.cronjob.name"),
	KEY("k8s.cronjob.uid"),
	KEY("k8s.daemonset.name"),
	KEY("k8s.daemonset.uid"),
	KEY("k8s.deployment.name"),
	KEY("k8s.deployment.uid"),
	KEY("k8s.job.name"),
	KEY("k8s.job.uid"),
	KEY("k8s.namespace.name"),
	KEY("k8s.node.name"),
	KEY("k8s.node.uid"),
	KEY("k8s.pod.name"),
	KEY("k8s.pod.uid"),
	KEY("k8s.replicaset.name"),
	KEY("k8s.replicaset.uid"),
	KEY("k8s.statefulset.name"),
	KEY("k8s.statefulset.uid"),
	KEY("opencensus.exporterversion"),
	KEY("opencensus.resourcetype"),
	KEY("opencensus.starttime"),
	KEY("os.description"),
	KEY("os.name"),
	KEY("os.type"),
	KEY("os.version"),
	KEY("process.command"),
	KEY("process.command_args"),
	KEY("process.command_line"),
	KEY("process.executable.name"),
	KEY("process.executable.path"),
	KEY("process.owner"),
	KEY("process.pid"),
	KEY("process.runtime.description"),
	KEY("process.runtime.name"),
	KEY("process.runtime.version"),
	KEY("service.instance.id"),
	KEY("service.namespace"),
	KEY("service.version"),
	KEY("telemetry.auto.version"),
	KEY("telemetry.sdk.language"),
	KEY("telemetry.sdk.name"),
	KEY("telemetry.sdk.version"),
	KEY("webengine.description"),
	KEY("webengine.name"),
	KEY("webengine.version"),
};
#undef KEY

enum { N_RESOURCE_KEYS = COUNT_OF(resource_keys), FIRST_SDK_KEY = 79, LAST_SDK_KEY = 81 };

/* The key's place in resource_keys, or -1. Most tags end at the first letter or the length. */
static int find_resource_key(struct bytes key)
{
	static const struct {
		uint8_t from, to;
	} by_letter[26] = {
		['a' - 'a'] = { 0, 11 },  ['c' - 'a'] = { 11, 21 }, ['d' - 'a'] = { 21, 26 },
		['f' - 'a'] = { 26, 31 }, ['h' - 'a'] = { 31, 38 }, ['k' - 'a'] = { 38, 58 },
		['o' - 'a'] = { 58, 65 }, ['p' - 'a'] = { 65, 75 }, ['s' - 'a'] = { 75, 78 },
		['t' - 'a'] = { 78, 82 }, ['w' - 'a'] = { 82, 85 },
	};
	unsigned letter = key.n > 6 ? (unsigned)key.p[0] - 'a' : 26;

	_Static_assert(N_RESOURCE_KEYS == 85, "by_letter must follow resource_keys");
	if (letter >= 26)
		return -1;
	for (int i = by_letter[letter].from; i < by_letter[letter].to; i++)
		/* All of them have seven letters and more, so most of others end here. */
		if (key.n == resource_keys[i].n &&
		    load_le32(key.p + key.n - 4) == load_le32(resource_keys[i].p + key.n - 4) &&
		    memcmp(key.p, resource_keys[i].p, key.n) == 0)
			return i;
	return -1;
}

bool zipkin_span_is_resource_key(struct bytes key)
{
	return bytes_eq_str(key, "service.name") || find_resource_key(key) >= 0;
}

/* ------------------------------------------------------------------ one span's tags, sorted out */

struct sorted_tags {
	struct bytes trace_state, span_kind, status_code, description, error;
	struct bytes scope_name, scope_version, library_name, library_version;
	struct bytes service_name, name_source;
	struct zipkin_span_tag *kind_tag, *error_tag, *status_tag;
	bool has_peer_service, has_service_peer_name, has_description;
	bool is_otel;          /* an OpenTelemetry exporter made the span */
	uint32_t n_dropped[3]; /* attributes, events, links */
	uint32_t n_resource_tags, n_scope_tags;
	uint64_t has_resource[(N_RESOURCE_KEYS + 63) / 64];
	size_t n_links; /* one above the highest number seen */
	/* Not cleared: has_resource and n_links say what counts. */
	struct bytes resource[N_RESOURCE_KEYS];
	struct zipkin_span_tag *links[MAX_LINKS];
};

/* What stands behind the prefix of a key; false: it has another one, or nothing behind it. */
static bool cut_prefix(struct bytes key, struct bytes prefix, struct bytes *rest)
{
	if (key.n <= prefix.n || memcmp(key.p, prefix.p, prefix.n) != 0)
		return false;
	*rest = (struct bytes){ key.p + prefix.n, key.n - prefix.n };
	return true;
}

static void sort_link_tag(struct sorted_tags *s, struct zipkin_span_tag *t, struct bytes text)
{
	uint64_t number = 0;

	if (str_to_u64(text, &number) < 0 || number >= MAX_LINKS)
		return;
	while (s->n_links <= number)
		s->links[s->n_links++] = NULL;
	s->links[number] = t;
}

static bool take_dropped_count(struct sorted_tags *s, int which, struct bytes text)
{
	uint64_t v = 0;

	if (str_to_u64(text, &v) < 0 || v > UINT32_MAX)
		return false;
	s->n_dropped[which] = (uint32_t)v;
	return true;
}

/* otlp.*: what OTLP has and Zipkin has no place for; ours, but for links and the source of the
 * name. */
static void sort_otlp_tag(struct sorted_tags *s, struct zipkin_span_tag *t)
{
	struct bytes k = t->key, rest;

	if (cut_prefix(k, BYTES_LIT("otlp.link."), &rest)) {
		sort_link_tag(s, t, rest);
	} else if (bytes_eq_str(k, "otlp.service.name.source") && t->value.n > 0) {
		s->name_source = t->value;
		t->taken = true;
	} else if (cut_prefix(k, BYTES_LIT("otlp.attribute."), &rest)) {
		t->key = rest;
	} else if (cut_prefix(k, BYTES_LIT("otlp.resource."), &rest)) {
		*t = (struct zipkin_span_tag){
			.key = rest, .value = t->value, .taken = true, .place = ZIPKIN_TAG_RESOURCE
		};
		s->n_resource_tags++;
	} else if (cut_prefix(k, BYTES_LIT("otlp.scope."), &rest)) {
		*t = (struct zipkin_span_tag){
			.key = rest, .value = t->value, .taken = true, .place = ZIPKIN_TAG_SCOPE
		};
		s->n_scope_tags++;
	}
}

static void sort_otel_tag(struct sorted_tags *s, struct zipkin_span_tag *t)
{
	struct bytes k = t->key;

	t->taken = true;
	if (bytes_eq_str(k, "otel.status_code")) {
		s->status_code = t->value;
		s->status_tag = t;
	} else if (bytes_eq_str(k, "otel.status_description")) {
		s->description = t->value;
		s->has_description = true;
	} else if (bytes_eq_str(k, "otel.scope.name")) {
		s->scope_name = t->value;
	} else if (bytes_eq_str(k, "otel.scope.version")) {
		s->scope_version = t->value;
	} else if (bytes_eq_str(k, "otel.library.name")) {
		s->library_name = t->value;
	} else if (bytes_eq_str(k, "otel.library.version")) {
		s->library_version = t->value;
	} else if (bytes_eq_str(k, "otel.dropped_attributes_count")) {
		t->taken = take_dropped_count(s, 0, t->value);
	} else if (bytes_eq_str(k, "otel.dropped_events_count")) {
		t->taken = take_dropped_count(s, 1, t->value);
	} else if (bytes_eq_str(k, "otel.dropped_links_count")) {
		t->taken = take_dropped_count(s, 2, t->value);
	} else {
		t->taken = false;
	}
	s->is_otel |= t->taken;
}

/* Keys that an endpoint's values replace: only the taken ones matter, and only when they
 * are there. */
static bool is_endpoint_key(const struct zipkin_span *sp, struct bytes k)
{
	if (sp->local.ip_len > 0 && bytes_eq_str(k, "network.local.address"))
		return true;
	if (sp->local.port > 0 && bytes_eq_str(k, "net.host.port"))
		return true;
	if (sp->remote.ip_len > 0 && bytes_eq_str(k, "network.peer.address"))
		return true;
	return sp->remote.port > 0 && bytes_eq_str(k, "net.peer.port");
}

static void sort_tag(struct sorted_tags *s, const struct zipkin_span *sp, struct zipkin_span_tag *t)
{
	struct bytes k = t->key;
	int at = -1;

	t->taken = false;
	t->place = ZIPKIN_TAG_SPAN;
	if (k.n == 0)
		return;
	if (k.p[0] == 'e' && bytes_eq_str(k, "error")) {
		s->error_tag = t;
	} else if (k.p[0] == 'n') {
		t->taken = is_endpoint_key(sp, k);
	} else if (k.n > 5 && memcmp(k.p, "otel.", 5) == 0) {
		sort_otel_tag(s, t);
	} else if (k.n > 5 && memcmp(k.p, "otlp.", 5) == 0) {
		sort_otlp_tag(s, t);
	} else if (bytes_eq_str(k, "w3c.tracestate")) {
		s->trace_state = t->value;
		t->taken = true;
	} else if (bytes_eq_str(k, "span.kind")) {
		s->kind_tag = t;
	} else if (bytes_eq_str(k, "peer.service")) {
		s->has_peer_service = true;
	} else if (bytes_eq_str(k, "service.peer.name")) {
		s->has_service_peer_name = true;
	} else if (bytes_eq_str(k, "service.name")) {
		s->service_name = t->value;
		t->taken = true;
	} else if ((at = find_resource_key(k)) >= 0) {
		s->resource[at] = t->value;
		s->is_otel |= at >= FIRST_SDK_KEY && at <= LAST_SDK_KEY;
		s->has_resource[at >> 6] |= UINT64_C(1) << (at & 63);
		t->taken = true;
	}
}

/* ------------------------------------------------------------------ OTLP fields */

/* memcpy for the lengths that keys and values have, without a call: two words that may overlap. */
static inline void copy_short(uint8_t *to, struct bytes s)
{
	if (s.n >= 8 && s.n <= 16) {
		memcpy(to, s.p, 8);
		memcpy(to + s.n - 8, s.p + s.n - 8, 8);
	} else if (s.n >= 4 && s.n < 8) {
		memcpy(to, s.p, 4);
		memcpy(to + s.n - 4, s.p + s.n - 4, 4);
	} else if (s.n > 0) {
		memcpy(to, s.p, s.n);
	}
}

/* KeyValue with a string, as field `number`: one bound check, no bytes moved. */
static void put_attr(struct buf *b, uint32_t number, struct bytes key, struct bytes value)
{
	size_t any = 1 + pb_varint_size(value.n) + value.n;
	size_t pair = 1 + pb_varint_size(key.n) + key.n + 1 + pb_varint_size(any) + any;
	size_t most = 11 + pair;
	uint8_t *p = b->p + b->n, *from;

	if (UNLIKELY(most > b->cap - b->n || (b->max > 0 && most > b->max - b->n)))
		p = buf_reserve(b, most);
	from = p;
	if (p == NULL)
		return;
	p += pb_varint_write(p, (uint64_t)number << 3 | PB_LEN);
	p += pb_varint_write(p, pair);
	*p++ = 0x0a;
	p += pb_varint_write(p, key.n);
	copy_short(p, key);
	p += key.n;
	*p++ = 0x12;
	p += pb_varint_write(p, any);
	*p++ = 0x0a;
	p += pb_varint_write(p, value.n);
	copy_short(p, value);
	b->n += (size_t)(p + value.n - from);
}

/* KeyValue with a bool or an int. */
static void put_attr_uint(struct buf *b, uint32_t number, const char *key, uint32_t member,
			  uint64_t v)
{
	size_t pair = pb_begin(b, number), any;

	pb_put_str(b, 1, key);
	any = pb_begin(b, 2);
	pb_put_uint(b, member, v);
	pb_end(b, any);
	pb_end(b, pair);
}

/* Microseconds to nanoseconds; the end of time where 64 bits end. */
static uint64_t to_ns(uint64_t us)
{
	return us > UINT64_MAX / 1000 ? UINT64_MAX : us * 1000;
}

static void put_event(struct zipkin_span_batch *b, const struct zipkin_span_annotation *a,
		      bool is_otel)
{
	size_t mark = pb_begin(&b->groups.spans, 11);

	pb_put_fixed64(&b->groups.spans, 1, to_ns(a->timestamp_us));
	if (zipkin_otel_event(&b->groups.spans, b->arena, a->value, is_otel) < 0 && a->value.n > 0)
		pb_put_bytes(&b->groups.spans, 2, a->value);
	pb_end(&b->groups.spans, mark);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return any == 0;
}

static void put_ids(struct buf *b, const struct zipkin_span *sp, const struct sorted_tags *s)
{
	pb_put_bytes(b, 1, (struct bytes){ sp->trace_id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ sp->id, 8 });
	if (s->trace_state.n > 0)
		pb_put_bytes(b, 3, s->trace_state);
	if (!is_zero(sp->parent_id, 8) && memcmp(sp->parent_id, sp->id, 8) != 0)
		pb_put_bytes(b, 4, (struct bytes){ sp->parent_id, 8 });
}

static uint32_t kind_of(const struct zipkin_span *sp, struct sorted_tags *s)
{
	if (sp->kind != ZIPKIN_KIND_NONE || s->kind_tag == NULL ||
	    !str_eq_nocase(s->kind_tag->value, "internal"))
		return (uint32_t)sp->kind;
	s->kind_tag->taken = true;
	return 1;
}

static void put_times(struct buf *b, const struct zipkin_span *sp)
{
	uint64_t start = to_ns(sp->timestamp_us), end;

	if (__builtin_add_overflow(start, to_ns(sp->duration_us), &end))
		end = UINT64_MAX;
	if (start > 0)
		pb_put_fixed64(b, 7, start);
	if (end > 0)
		pb_put_fixed64(b, 8, end);
}

/* The address as text. inet_ntop needs 150 ns for an IPv4 address, and most spans have two. */
struct bytes zipkin_span_ip_text(const struct zipkin_span_endpoint *ep, char *text)
{
	char *to = text;

	if (ep->ip_len == 16)
		return bytes_str(inet_ntop(AF_INET6, ep->ip, text, INET6_ADDRSTRLEN));
	for (int i = 0; i < 4; i++) {
		unsigned v = ep->ip[i];

		if (i > 0)
			*to++ = '.';
		if (v >= 100)
			*to++ = (char)('0' + v / 100);
		if (v >= 10)
			*to++ = (char)('0' + v / 10 % 10);
		*to++ = (char)('0' + v % 10);
	}
	return (struct bytes){ (const uint8_t *)text, (size_t)(to - text) };
}

struct bytes zipkin_span_ipv4_text(const struct zipkin_span_endpoint *ep, char *text)
{
	struct zipkin_span_endpoint v4 = { .ip_len = 4 };

	memcpy(v4.ip, ep->ipv4, 4);
	return zipkin_span_ip_text(&v4, text);
}

/* The IPv4 address beside an IPv6 one: OTLP's conventions have no key for a second. */
static void put_ipv4(struct buf *b, struct bytes key, const struct zipkin_span_endpoint *ep)
{
	char text[INET6_ADDRSTRLEN];

	if (ep->has_ipv4)
		put_attr(b, 9, key, zipkin_span_ipv4_text(ep, text));
}

static void put_endpoints(struct buf *b, const struct zipkin_span *sp, const struct sorted_tags *s)
{
	char text[INET6_ADDRSTRLEN];

	if (sp->local.ip_len > 0)
		put_attr(b, 9, BYTES_LIT("network.local.address"),
			 zipkin_span_ip_text(&sp->local, text));
	put_ipv4(b, BYTES_LIT("zipkin.local.ipv4"), &sp->local);
	if (sp->local.port > 0)
		put_attr_uint(b, 9, "net.host.port", ANY_INT, sp->local.port);
	if (sp->remote.service.n > 0 && !s->has_peer_service)
		put_attr(b, 9, BYTES_LIT("peer.service"), sp->remote.service);
	if (sp->remote.service.n > 0 && !s->has_service_peer_name)
		put_attr(b, 9, BYTES_LIT("service.peer.name"), sp->remote.service);
	if (sp->remote.ip_len > 0)
		put_attr(b, 9, BYTES_LIT("network.peer.address"),
			 zipkin_span_ip_text(&sp->remote, text));
	put_ipv4(b, BYTES_LIT("zipkin.remote.ipv4"), &sp->remote);
	if (sp->remote.port > 0)
		put_attr_uint(b, 9, "net.peer.port", ANY_INT, sp->remote.port);
}

static bool is_digits(struct bytes s, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return from < to;
}

/* -?digits and -?digits.digits, as the Collector's parse_string_tags has it, true and false: the
 * typed AnyValue of such a text inside an open KeyValue. False: it stays text. */
static bool put_typed_value(struct buf *b, struct bytes v)
{
	size_t from = v.n > 0 && v.p[0] == '-', point;
	const uint8_t *dot = v.n ? memchr(v.p, '.', v.n) : NULL;
	int64_t i = 0;
	double d = 0;
	size_t any;

	point = dot != NULL ? (size_t)(dot - v.p) : v.n;
	if (bytes_eq_str(v, "true") || bytes_eq_str(v, "false")) {
		any = pb_begin(b, 2);
		pb_put_uint(b, ANY_BOOL, v.n == 4);
	} else if (!is_digits(v, from, point)) {
		return false;
	} else if (dot == NULL && str_to_i64(v, &i) == 0) {
		any = pb_begin(b, 2);
		pb_put_uint(b, ANY_INT, (uint64_t)i);
	} else if (dot != NULL && is_digits(v, point + 1, v.n) && str_to_double(v, &d) == 0) {
		any = pb_begin(b, 2);
		pb_put_double(b, ANY_DOUBLE, d);
	} else {
		return false;
	}
	pb_end(b, any);
	return true;
}

static void put_typed_attr(struct buf *b, struct bytes key, struct bytes value)
{
	size_t before = b->n, pair = pb_begin(b, 9);

	pb_put_bytes(b, 1, key);
	if (put_typed_value(b, value)) {
		pb_end(b, pair);
		return;
	}
	b->n = MIN(before, b->n);
	put_attr(b, 9, key, value);
}

/* A value whose type came with it. */
static void put_binary_attr(struct buf *b, const struct zipkin_span_tag *t)
{
	size_t pair = pb_begin(b, 9), any;

	pb_put_bytes(b, 1, t->key);
	any = pb_begin(b, 2);
	if (t->type == ZIPKIN_TAG_DOUBLE)
		pb_put_fixed64(b, ANY_DOUBLE, t->bits);
	else
		pb_put_uint(b, t->type == ZIPKIN_TAG_BOOL ? ANY_BOOL : ANY_INT, t->bits);
	pb_end(b, any);
	pb_end(b, pair);
}

static void put_attrs(struct buf *b, const struct zipkin_span *sp, const struct sorted_tags *s,
		      bool typed)
{
	for (size_t i = 0; i < sp->n_tags; i++) {
		if (sp->tags[i].taken)
			continue;
		if (UNLIKELY(sp->tags[i].type != ZIPKIN_TAG_TEXT))
			put_binary_attr(b, &sp->tags[i]);
		else if (typed)
			put_typed_attr(b, sp->tags[i].key, sp->tags[i].value);
		else
			put_attr(b, 9, sp->tags[i].key, sp->tags[i].value);
	}
	put_endpoints(b, sp, s);
	if (sp->timestamp_us == 0)
		put_attr_uint(b, 9, "otel.zipkin.absentField.startTime", ANY_BOOL, 1);
	if (sp->debug)
		put_attr_uint(b, 9, "zipkin.debug", ANY_BOOL, 1);
	if (sp->shared)
		put_attr_uint(b, 9, "zipkin.shared", ANY_BOOL, 1);
}

struct status {
	uint32_t code; /* 0 unset, 1 ok, 2 error */
	struct bytes message;
};

/* The status that the tags make; takes the tags that say no more than it. */
static struct status status_of(struct sorted_tags *s)
{
	struct status st = { 0, s->description };
	struct bytes code = s->status_code;
	bool says_error;

	if (str_eq_nocase(code, "error") || str_eq_nocase(code, "status_code_error"))
		st.code = 2;
	else if (str_eq_nocase(code, "ok") || str_eq_nocase(code, "status_code_ok"))
		st.code = 1;
	else if (s->status_tag && !str_eq_nocase(code, "unset") &&
		 !str_eq_nocase(code, "status_code_unset"))
		s->status_tag->taken = false; /* not understood: it stays an attribute */
	if (s->error_tag == NULL || str_eq_nocase(s->error_tag->value, "false"))
		return st;
	says_error = st.code == 2;
	st.code = 2;
	if (str_eq_nocase(s->error_tag->value, "true")) {
		s->error_tag->taken = true;
	} else if (!s->has_description) {
		st.message = s->error_tag->value;
		/* Beside the code it is the specification's form of the message and no more. */
		s->error_tag->taken = says_error;
	}
	return st;
}

static void put_status(struct buf *b, const struct status *st)
{
	size_t mark;

	if (st->code == 0 && st->message.n == 0)
		return;
	mark = pb_begin(b, 15);
	if (st->message.n > 0)
		pb_put_bytes(b, 2, st->message);
	if (st->code > 0)
		pb_put_uint(b, 3, st->code);
	pb_end(b, mark);
}

/* Links stand behind the attributes, but only a link that decodes is no attribute: write them
 * first, into the batch's scratch, and say which tags they took. */
static void put_links(struct zipkin_span_batch *b, struct sorted_tags *s, struct buf *out)
{
	size_t start = b->groups.spans.n;

	for (size_t i = 0; i < s->n_links && s->links[i] != NULL; i++)
		s->links[i]->taken =
			zipkin_otel_link(&b->groups.spans, b->arena, 13, s->links[i]->value) == 0;
	if (b->groups.spans.overflow)
		return;
	buf_add(out, b->groups.spans.p + start, b->groups.spans.n - start);
	b->groups.spans.n = start;
}

static void put_span(struct zipkin_span_batch *b, const struct zipkin_span *sp,
		     struct sorted_tags *s)
{
	struct buf *out = &b->groups.spans;
	uint32_t kind = kind_of(sp, s);
	struct status st = status_of(s);
	size_t mark = pb_begin(out, 2);

	buf_reset(&b->groups.key);
	if (s->n_links > 0)
		put_links(b, s, &b->groups.key);
	put_ids(out, sp, s);
	if (sp->name.n > 0)
		pb_put_bytes(out, 5, sp->name);
	if (kind > 0)
		pb_put_uint(out, 6, kind);
	put_times(out, sp);
	put_attrs(out, sp, s, b->typed_tags);
	if (s->n_dropped[0] > 0)
		pb_put_uint(out, 10, s->n_dropped[0]);
	for (size_t i = 0; i < sp->n_annotations; i++)
		put_event(b, &sp->annotations[i], s->is_otel);
	if (s->n_dropped[1] > 0)
		pb_put_uint(out, 12, s->n_dropped[1]);
	buf_add_bytes(out, buf_bytes(&b->groups.key));
	if (s->n_dropped[2] > 0)
		pb_put_uint(out, 14, s->n_dropped[2]);
	put_status(out, &st);
	pb_end(out, mark);
}

/* ------------------------------------------------------------------ groups */

/* Tags that name their place, as attributes there, field `number`. */
static void put_tags_of(struct buf *b, uint32_t number, const struct zipkin_span *sp,
			enum zipkin_tag_place place)
{
	for (size_t i = 0; i < sp->n_tags; i++)
		if (sp->tags[i].place == place)
			put_attr(b, number, sp->tags[i].key, sp->tags[i].value);
}

/* The Resource message of a span, in a fixed order, so that equal ones are equal bytes. */
static void write_resource(struct buf *b, const struct zipkin_span *sp, const struct sorted_tags *s)
{
	struct bytes name_key = s->name_source.n > 0 ? s->name_source : BYTES_LIT("service.name");
	struct bytes name = s->service_name.n > 0 ? s->service_name : sp->local.service;

	if (name.n > 0)
		put_attr(b, 1, name_key, name);
	for (size_t w = 0; w < COUNT_OF(s->has_resource); w++) {
		for (uint64_t bits = s->has_resource[w]; bits != 0; bits &= bits - 1) {
			int i = (int)(w * 64) + __builtin_ctzll(bits);

			put_attr(b, 1, resource_keys[i], s->resource[i]);
		}
	}
	if (s->n_resource_tags > 0)
		put_tags_of(b, 1, sp, ZIPKIN_TAG_RESOURCE);
}

static void write_scope(struct buf *b, const struct zipkin_span *sp, const struct sorted_tags *s)
{
	struct bytes name = s->scope_name.n > 0 ? s->scope_name : s->library_name;
	struct bytes version = s->scope_version.n > 0 ? s->scope_version : s->library_version;

	if (name.n > 0)
		pb_put_bytes(b, 1, name);
	if (version.n > 0)
		pb_put_bytes(b, 2, version);
	if (s->n_scope_tags > 0)
		put_tags_of(b, 3, sp, ZIPKIN_TAG_SCOPE);
}

static struct otlp_groups_scope *scope_of(struct otlp_groups *g, const struct zipkin_span *sp,
					  const struct sorted_tags *s)
{
	struct otlp_groups_resource *rs;

	write_resource(otlp_groups_resource_begin(g), sp, s);
	rs = otlp_groups_resource_end(g);
	write_scope(otlp_groups_scope_begin(g, rs), sp, s);
	return otlp_groups_scope_end(g, rs);
}

/* ------------------------------------------------------------------ public */

void zipkin_span_endpoint_bytes(struct zipkin_span_endpoint *ep, struct bytes ip)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (ip.n == 16 && memcmp(ip.p, mapped, 12) == 0)
		ip = (struct bytes){ ip.p + 12, 4 };
	if (ip.n == 4 && ep->ip_len == 16) {
		memcpy(ep->ipv4, ip.p, 4);
		ep->has_ipv4 = true;
		return;
	}
	if (ip.n == 16 && ep->ip_len == 4) {
		memcpy(ep->ipv4, ep->ip, 4);
		ep->has_ipv4 = true;
	}
	memcpy(ep->ip, ip.p, ip.n);
	ep->ip_len = (uint8_t)ip.n;
}

void zipkin_span_endpoint_ip(struct zipkin_span_endpoint *ep, struct bytes text)
{
	char copy[INET6_ADDRSTRLEN];
	uint8_t ip[16];

	if (text.n == 0 || text.n >= sizeof(copy))
		return;
	memcpy(copy, text.p, text.n);
	copy[text.n] = '\0';
	if (strlen(copy) != text.n)
		return;
	if (inet_pton(AF_INET, copy, ip) == 1)
		zipkin_span_endpoint_bytes(ep, (struct bytes){ ip, 4 });
	else if (inet_pton(AF_INET6, copy, ip) == 1)
		zipkin_span_endpoint_bytes(ep, (struct bytes){ ip, 16 });
}

struct zipkin_span_tag *zipkin_span_room_tag(struct zipkin_span_room *r, struct arena *arena)
{
	if (r->n_tags == r->cap_tags)
		r->tags = meter_grow(arena->meter, r->tags, &r->cap_tags, r->n_tags + 1,
				     sizeof(*r->tags));
	return &r->tags[r->n_tags++];
}

struct zipkin_span_annotation *zipkin_span_room_annotation(struct zipkin_span_room *r,
							   struct arena *arena)
{
	if (r->n_annotations == r->cap_annotations)
		r->annotations = meter_grow(arena->meter, r->annotations, &r->cap_annotations,
					    r->n_annotations + 1, sizeof(*r->annotations));
	return &r->annotations[r->n_annotations++];
}

void zipkin_span_room_fini(struct zipkin_span_room *r)
{
	free(r->tags);
	free(r->annotations);
}

void zipkin_span_batch_init(struct zipkin_span_batch *b, struct arena *arena, size_t max_bytes)
{
	*b = (struct zipkin_span_batch){ .arena = arena };
	otlp_groups_init(&b->groups, arena, max_bytes);
}

void zipkin_span_batch_add(struct zipkin_span_batch *b, struct zipkin_span *sp)
{
	size_t off = b->groups.spans.n, key_cap = b->groups.key.cap;
	struct sorted_tags s;

	memset(&s, 0, offsetof(struct sorted_tags, resource));
	for (size_t i = 0; i < sp->n_tags; i++)
		sort_tag(&s, sp, &sp->tags[i]);
	put_span(b, sp, &s);
	if (b->groups.spans.overflow)
		return;
	otlp_groups_add(&b->groups, scope_of(&b->groups, sp, &s), off);
	meter_force(b->arena->meter, b->groups.key.cap - key_cap);
}

int zipkin_span_batch_encode(struct zipkin_span_batch *b, struct buf *out, struct err *err)
{
	return otlp_groups_encode(&b->groups, "zipkin", out, err);
}

void zipkin_span_batch_fini(struct zipkin_span_batch *b)
{
	otlp_groups_fini(&b->groups);
}
