/* SPDX-License-Identifier: Apache-2.0
 *
 * path.c - reads the value of a path from the received bytes. Contract in private.h.
 */
#include "base/str.h"
#include "pipeline/ottl/private.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

enum { RESOURCE_SPANS_RESOURCE = 1, SCOPE_SPANS_SCOPE = 1, SCHEMA_URL = 3 };
enum { SPAN_FLAGS = 16, SPAN_STATUS = 15, STATUS_MESSAGE = 2 };

/* ---- names ---- */

struct path_name {
	const char *name;
	enum ottl_field field;
	bool takes_keys;
};

static const struct path_name resource_names[] = {
	{ "attributes", OTTL_ATTRIBUTES, true },
	{ "schema_url", OTTL_SCHEMA_URL, false },
	{ "dropped_attributes_count", OTTL_DROPPED_ATTRIBUTES, false },
	{ NULL, OTTL_FIELD_NONE, false },
};

static const struct path_name scope_names[] = {
	{ "name", OTTL_NAME, false },
	{ "version", OTTL_VERSION, false },
	{ "attributes", OTTL_ATTRIBUTES, true },
	{ "schema_url", OTTL_SCHEMA_URL, false },
	{ "dropped_attributes_count", OTTL_DROPPED_ATTRIBUTES, false },
	{ NULL, OTTL_FIELD_NONE, false },
};

static const struct path_name span_names[] = {
	{ "trace_id", OTTL_TRACE_ID, false },
	{ "trace_id.string", OTTL_TRACE_ID_STRING, false },
	{ "span_id", OTTL_SPAN_ID, false },
	{ "span_id.string", OTTL_SPAN_ID_STRING, false },
	{ "parent_span_id", OTTL_PARENT_ID, false },
	{ "parent_span_id.string", OTTL_PARENT_ID_STRING, false },
	{ "trace_state", OTTL_TRACE_STATE, true },
	{ "name", OTTL_NAME, false },
	{ "kind", OTTL_KIND, false },
	{ "kind.string", OTTL_KIND_STRING, false },
	{ "kind.deprecated_string", OTTL_KIND_OLD_STRING, false },
	{ "start_time_unix_nano", OTTL_START, false },
	{ "end_time_unix_nano", OTTL_END, false },
	{ "start_time", OTTL_START, false },
	{ "end_time", OTTL_END, false },
	{ "attributes", OTTL_ATTRIBUTES, true },
	{ "status.code", OTTL_STATUS_CODE, false },
	{ "status", OTTL_STATUS_CODE, false },
	{ "status.message", OTTL_STATUS_MESSAGE, false },
	{ "flags", OTTL_FLAGS, false },
	{ "dropped_attributes_count", OTTL_DROPPED_ATTRIBUTES, false },
	{ "dropped_events_count", OTTL_DROPPED_EVENTS, false },
	{ "dropped_links_count", OTTL_DROPPED_LINKS, false },
	{ NULL, OTTL_FIELD_NONE, false },
};

static const struct path_name event_names[] = {
	{ "name", OTTL_NAME, false },
	{ "time_unix_nano", OTTL_TIME, false },
	{ "time", OTTL_TIME, false },
	{ "attributes", OTTL_ATTRIBUTES, true },
	{ "dropped_attributes_count", OTTL_DROPPED_ATTRIBUTES, false },
	{ "event_index", OTTL_EVENT_INDEX, false },
	{ NULL, OTTL_FIELD_NONE, false },
};

static const struct path_name *const names_of[OTTL_CONTEXT_MAX] = {
	[OTTL_RESOURCE] = resource_names,
	[OTTL_SCOPE] = scope_names,
	[OTTL_SPAN] = span_names,
	[OTTL_SPAN_EVENT] = event_names,
};

enum ottl_field ottl_path_field(enum ottl_context context, struct bytes name, bool *takes_keys)
{
	for (const struct path_name *p = names_of[context]; p->name != NULL; p++)
		if (bytes_eq_str(name, p->name)) {
			*takes_keys = p->takes_keys;
			return p->field;
		}
	return OTTL_FIELD_NONE;
}

const char *ottl_path_nearest(enum ottl_context context, const char *name)
{
	const struct path_name *best = names_of[context];

	for (const struct path_name *p = best; p->name != NULL; p++)
		if (str_distance(p->name, name) < str_distance(best->name, name))
			best = p;
	return best->name;
}

/* ---- values ---- */

static void from_any(struct bytes any, struct ottl_value *out)
{
	struct any_value v;

	any_value_read(any, &v);
	*out = (struct ottl_value){ .kind = OTTL_NIL, .s = v.s };
	switch (v.kind) {
	case ANY_STRING:
		out->kind = OTTL_STRING;
		break;
	case ANY_BOOL:
		out->kind = OTTL_BOOL;
		out->b = v.b;
		break;
	case ANY_INT:
		out->kind = OTTL_INT;
		out->i = v.i;
		break;
	case ANY_DOUBLE:
		out->kind = OTTL_DOUBLE;
		out->d = v.d;
		break;
	case ANY_ARRAY:
		out->kind = OTTL_LIST;
		break;
	case ANY_KVLIST:
		out->kind = OTTL_MAP;
		break;
	case ANY_BYTES:
		out->kind = OTTL_BYTES;
		break;
	default:
		break;
	}
}

static void set_text(struct ottl_value *out, struct bytes text)
{
	*out = (struct ottl_value){ .kind = OTTL_STRING, .s = text };
}

static void set_int(struct ottl_value *out, uint64_t v)
{
	*out = (struct ottl_value){ .kind = OTTL_INT, .s = BYTES_EMPTY };
	out->i = (int64_t)v;
}

static void set_id(struct ottl_value *out, const uint8_t *id, size_t n, bool as_text,
		   struct arena *scratch)
{
	static const uint8_t none[16];
	char *hex;

	*out = (struct ottl_value){ .kind = OTTL_BYTES, .s = { id, n } };
	if (!as_text)
		return;
	hex = arena_alloc(scratch, 2 * n + 1);
	str_hex(id, n, hex);
	set_text(out, memcmp(id, none, n) == 0 ? BYTES_EMPTY : bytes_str(hex));
}

/* The value below an attribute's by the rest of its keys. */
static void descend(const struct ottl_key *keys, unsigned n, struct ottl_value *v)
{
	for (unsigned i = 0; i < n; i++) {
		struct bytes any = BYTES_EMPTY, rest = v->s;
		struct pb_field f = { 0 };
		uint64_t at = 0;
		bool found = false;

		if (v->kind == OTTL_MAP && !keys[i].is_index)
			found = otlp_attribute(rest, 1, keys[i].name, &any);
		while (v->kind == OTTL_LIST && keys[i].is_index && !found && pb_next(&rest, &f) > 0)
			if (f.number == 1 && at++ == keys[i].index) {
				any = f.data;
				found = true;
			}
		if (!found) {
			*v = (struct ottl_value){ .kind = OTTL_NIL, .s = BYTES_EMPTY };
			return;
		}
		from_any(any, v);
	}
}

/* A message in pieces that end between fields. */
struct message {
	const struct bytes *v;
	size_t n;
};

static void attribute(struct message m, uint32_t number, const struct ottl_node *path,
		      struct ottl_value *out)
{
	struct bytes any;

	*out = (struct ottl_value){ .kind = OTTL_NIL, .s = BYTES_EMPTY };
	for (size_t i = 0; i < m.n; i++)
		if (otlp_attribute(m.v[i], number, path->keys[0].name, &any)) {
			from_any(any, out);
			descend(path->keys + 1, path->n_keys - 1, out);
			return;
		}
}

/* The last field of this number; number 0: there is none. */
static struct pb_field field(struct message m, uint32_t number)
{
	struct pb_field f = { 0 }, found = { 0 };

	for (size_t i = 0; i < m.n; i++)
		for (struct bytes rest = m.v[i]; pb_next(&rest, &f) > 0;)
			if (f.number == number)
				found = f;
	return found;
}

static struct bytes field_bytes(struct message m, uint32_t number)
{
	struct pb_field f = field(m, number);

	return f.number != 0 && f.wire == PB_LEN ? f.data : BYTES_EMPTY;
}

/* ---- contexts ---- */

static void resource_value(const struct ottl_node *path, const struct ottl_subject *s,
			   struct ottl_value *out)
{
	const struct resource_ref *r = &s->tables->resources[s->resource];
	struct message head = { s->tables->heads + r->head, r->n_head };
	struct bytes resource = field_bytes(head, RESOURCE_SPANS_RESOURCE);
	struct message m = { &resource, 1 };

	if (path->field == OTTL_ATTRIBUTES)
		attribute(m, 1, path, out);
	else if (path->field == OTTL_SCHEMA_URL)
		set_text(out, field_bytes(head, SCHEMA_URL));
	else
		set_int(out, field(m, 2).value);
}

static void scope_value(const struct ottl_node *path, const struct ottl_subject *s,
			struct ottl_value *out)
{
	const struct scope_ref *sc = &s->tables->scopes[s->scope];
	struct message head = { s->tables->heads + sc->head, sc->n_head };
	struct bytes scope = field_bytes(head, SCOPE_SPANS_SCOPE);
	struct message m = { &scope, 1 };

	if (path->field == OTTL_ATTRIBUTES)
		attribute(m, 3, path, out);
	else if (path->field == OTTL_SCHEMA_URL)
		set_text(out, field_bytes(head, SCHEMA_URL));
	else if (path->field == OTTL_DROPPED_ATTRIBUTES)
		set_int(out, field(m, 4).value);
	else
		set_text(out, field_bytes(m, path->field == OTTL_NAME ? 1 : 2));
}

static const char *kind_text(uint8_t kind, bool is_old)
{
	static const char *const names[][2] = {
		{ "Unspecified", "SPAN_KIND_UNSPECIFIED" }, { "Internal", "SPAN_KIND_INTERNAL" },
		{ "Server", "SPAN_KIND_SERVER" },           { "Client", "SPAN_KIND_CLIENT" },
		{ "Producer", "SPAN_KIND_PRODUCER" },       { "Consumer", "SPAN_KIND_CONSUMER" },
	};

	return kind < COUNT_OF(names) ? names[kind][is_old] : "";
}

/* The whole tracestate, or one member's value. */
static void trace_state_value(const struct ottl_node *path, const struct span_ref *sp,
			      struct ottl_value *out)
{
	struct bytes rest = span_trace_state(sp), key;

	set_text(out, rest);
	if (path->n_keys == 0)
		return;
	key = path->keys[0].name;
	while (rest.n > 0) {
		const uint8_t *comma = memchr(rest.p, ',', rest.n);
		size_t n = comma ? (size_t)(comma - rest.p) : rest.n;
		struct bytes member = { rest.p, n };

		rest.p += n + (comma != NULL);
		rest.n -= n + (comma != NULL);
		while (member.n > 0 && member.p[0] == ' ') {
			member.p++;
			member.n--;
		}
		if (member.n > key.n && member.p[key.n] == '=' &&
		    memcmp(member.p, key.p, key.n) == 0) {
			set_text(out, (struct bytes){ member.p + key.n + 1, member.n - key.n - 1 });
			return;
		}
	}
	set_text(out, BYTES_EMPTY);
}

static void ids_value(const struct ottl_node *path, const struct span_ref *sp,
		      struct arena *scratch, struct ottl_value *out)
{
	switch (path->field) {
	case OTTL_TRACE_ID:
	case OTTL_TRACE_ID_STRING:
		set_id(out, sp->trace_id, 16, path->field == OTTL_TRACE_ID_STRING, scratch);
		break;
	case OTTL_SPAN_ID:
	case OTTL_SPAN_ID_STRING:
		set_id(out, sp->span_id, 8, path->field == OTTL_SPAN_ID_STRING, scratch);
		break;
	default:
		set_id(out, sp->parent_id, 8, path->field == OTTL_PARENT_ID_STRING, scratch);
		break;
	}
}

static void span_value(const struct ottl_node *path, const struct span_ref *sp,
		       struct arena *scratch, struct ottl_value *out)
{
	const struct bytes whole = { sp->p, sp->len };
	struct message m = { sp->pieces ? sp->pieces : &whole, sp->pieces ? sp->n_pieces : 1 };
	struct bytes status;

	switch (path->field) {
	case OTTL_ATTRIBUTES:
		attribute(m, 9, path, out);
		break;
	case OTTL_TRACE_STATE:
		trace_state_value(path, sp, out);
		break;
	case OTTL_NAME:
		set_text(out, span_name(sp));
		break;
	case OTTL_KIND:
		set_int(out, sp->kind);
		break;
	case OTTL_KIND_STRING:
	case OTTL_KIND_OLD_STRING:
		set_text(out, bytes_str(kind_text(sp->kind, path->field == OTTL_KIND_OLD_STRING)));
		break;
	case OTTL_START:
		set_int(out, sp->start_ns);
		break;
	case OTTL_END:
		set_int(out, sp->end_ns);
		break;
	case OTTL_STATUS_CODE:
		set_int(out, sp->status);
		break;
	case OTTL_STATUS_MESSAGE:
		status = field_bytes(m, SPAN_STATUS);
		set_text(out, field_bytes((struct message){ &status, 1 }, STATUS_MESSAGE));
		break;
	case OTTL_FLAGS:
		set_int(out, sp->flags);
		break;
	case OTTL_DROPPED_ATTRIBUTES:
		set_int(out, field(m, 10).value);
		break;
	case OTTL_DROPPED_EVENTS:
		set_int(out, field(m, 12).value);
		break;
	case OTTL_DROPPED_LINKS:
		set_int(out, field(m, 14).value);
		break;
	default:
		ids_value(path, sp, scratch, out);
		break;
	}
}

static void event_value(const struct ottl_node *path, const struct ottl_subject *s,
			struct ottl_value *out)
{
	struct message m = { &s->event, 1 };

	switch (path->field) {
	case OTTL_ATTRIBUTES:
		attribute(m, 3, path, out);
		break;
	case OTTL_NAME:
		set_text(out, field_bytes(m, 2));
		break;
	case OTTL_TIME:
		set_int(out, field(m, 1).value);
		break;
	case OTTL_EVENT_INDEX:
		set_int(out, s->event_index);
		break;
	default:
		set_int(out, field(m, 4).value);
		break;
	}
}

void ottl_path_get(const struct ottl_node *path, const struct ottl_subject *subject,
		   struct arena *scratch, struct ottl_value *out)
{
	if (path->context == OTTL_RESOURCE)
		resource_value(path, subject, out);
	else if (path->context == OTTL_SCOPE)
		scope_value(path, subject, out);
	else if (path->context == OTTL_SPAN)
		span_value(path, subject->span, scratch, out);
	else
		event_value(path, subject, out);
}
