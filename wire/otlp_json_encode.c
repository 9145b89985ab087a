/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_encode.c - see otlp_json_encode.h.
 *
 * DESIGN: a message is walked once to see which fields it has, then once more for each of those, in
 * the order of the table; walking steps over payloads, so this costs the number of fields, not
 * their bytes. A sub-message in several pieces is the list of these pieces (a merge in protobuf is
 * a concatenation), so every message here is a list of parts.
 */
#include "wire/otlp_json_encode.h"

#include "base/arena.h"
#include "wire/otlp_index.h"
#include "wire/otlp_json_schema.h"
#include "wire/pb.h"

/* Nobody writes a sub-message in so many pieces; each costs 16 bytes here, and two on the wire. */
enum { MAX_PIECES = 4096 };

/* A message: the bytes of its fields, in one or more runs. */
struct parts {
	const struct bytes *p;
	size_t n;
};

struct encoder {
	struct json_writer *w;
	struct arena scratch;
	enum otlp_json_dialect dialect;
	unsigned any_depth;
	struct err *err;
};

/* A walk over the fields of a message. */
struct walk {
	struct parts m;
	struct bytes rest;
	size_t at;
};

static int encode_members(struct encoder *e, const struct otlp_json_message *m, struct parts in);

static int walk_next(struct walk *k, struct pb_field *f)
{
	for (;;) {
		int rc = pb_next(&k->rest, f);

		if (rc != 0 || k->at == k->m.n)
			return rc;
		k->rest = k->m.p[k->at++];
	}
}

static int damaged(struct encoder *e)
{
	return err_set(e->err, ERR_INVALID, "otlp protobuf: damaged field");
}

static enum pb_wire wire_of(const struct otlp_json_field *f)
{
	switch (f->type) {
	case OTLP_BOOL:
	case OTLP_INT64:
	case OTLP_UINT32:
	case OTLP_UINT64:
	case OTLP_SINT32:
	case OTLP_ENUM:
		return PB_VARINT;
	case OTLP_FIXED64:
	case OTLP_SFIXED64:
	case OTLP_DOUBLE:
		return PB_FIXED64;
	case OTLP_FIXED32:
		return PB_FIXED32;
	default:
		return PB_LEN;
	}
}

/* Numbers of a list come one by one, or packed. */
static bool wire_fits(const struct otlp_json_field *f, unsigned wire)
{
	return wire == (unsigned)wire_of(f) || (f->packed && wire == PB_LEN);
}

/* The next occurrence of `number` with the wire type of f; others are not ours to judge. */
static int walk_to(struct walk *k, const struct otlp_json_field *f, uint32_t number,
		   struct pb_field *pf)
{
	int rc;

	while ((rc = walk_next(k, pf)) > 0)
		if (pf->number == number && wire_fits(f, pf->wire))
			break;
	return rc;
}

static int encode_message(struct encoder *e, const struct otlp_json_message *m, struct parts in)
{
	json_writer_object(e->w);
	if (m->oneof && e->any_depth++ > OTLP_MAX_DEPTH)
		return err_set(e->err, ERR_INVALID, "otlp protobuf: values nested deeper than %d",
			       OTLP_MAX_DEPTH);
	if (encode_members(e, m, in) < 0)
		return -1;
	e->any_depth -= m->oneof;
	json_writer_object_end(e->w);
	return 0;
}

static void encode_enum(struct encoder *e, const struct otlp_json_field *f, int32_t v)
{
	int n = 0;

	while (f->names[n] != NULL)
		n++;
	if (e->dialect == OTLP_JSON_TEMPO && v >= 0 && v < n)
		json_writer_str(e->w, f->names[v]);
	else
		json_writer_i64(e->w, v);
}

static void encode_scalar(struct encoder *e, const struct otlp_json_field *f,
			  const struct pb_field *pf)
{
	double x = 0;

	switch (f->type) {
	case OTLP_STRING:
		json_writer_bytes(e->w, pf->data);
		break;
	case OTLP_ID:
		if (e->dialect == OTLP_JSON)
			json_writer_hex(e->w, pf->data);
		else
			json_writer_base64(e->w, pf->data);
		break;
	case OTLP_BYTES:
		json_writer_base64(e->w, pf->data);
		break;
	case OTLP_BOOL:
		json_writer_bool(e->w, pf->value != 0);
		break;
	case OTLP_INT64:
	case OTLP_SFIXED64:
		json_writer_i64_str(e->w, (int64_t)pf->value);
		break;
	case OTLP_SINT32:
		json_writer_i64(e->w, pb_unzigzag32((uint32_t)pf->value));
		break;
	case OTLP_UINT64:
	case OTLP_FIXED64:
		json_writer_u64_str(e->w, pf->value);
		break;
	case OTLP_ENUM:
		encode_enum(e, f, (int32_t)pf->value);
		break;
	case OTLP_DOUBLE:
		memcpy(&x, &pf->value, sizeof(x));
		json_writer_double(e->w, x);
		break;
	default:
		json_writer_u64(e->w, (uint32_t)pf->value);
	}
}

static bool is_zero(const struct otlp_json_field *f, const struct pb_field *pf)
{
	switch (wire_of(f)) {
	case PB_LEN:
		return pf->data.n == 0;
	case PB_FIXED64:
		return pf->value == 0;
	default:	/* 32-bit values are cut as protobuf cuts them */
		return f->type == OTLP_BOOL || f->type == OTLP_INT64 ? pf->value == 0 :
								       (uint32_t)pf->value == 0;
	}
}

/* A sub-message whose pieces are spread over its parent: gather them. */
static int encode_merged(struct encoder *e, const struct otlp_json_field *f, struct walk k,
			 size_t n, uint32_t number)
{
	struct bytes *pieces = NULL;
	struct pb_field pf;

	if (n > MAX_PIECES)
		return err_set(e->err, ERR_INVALID, "otlp protobuf: %s: in more than %d pieces",
			       f->name, MAX_PIECES);
	pieces = arena_alloc(&e->scratch, n * sizeof(*pieces));
	for (size_t i = 0; i < n; i++) {
		if (walk_to(&k, f, number, &pf) <= 0)
			return damaged(e);
		pieces[i] = pf.data;
	}
	return encode_message(e, f->message, (struct parts){ pieces, n });
}

static int encode_one(struct encoder *e, const struct otlp_json_field *f, struct walk k,
		      uint32_t number, bool keep_zero)
{
	struct walk again = k;
	struct pb_field pf, last = { 0 };
	size_t n = 0;

	for (; walk_to(&k, f, number, &pf) > 0; n++)
		last = pf;
	if (f->type == OTLP_MESSAGE) {
		json_writer_key(e->w, f->name);
		if (n == 1)
			return encode_message(e, f->message, (struct parts){ &last.data, 1 });
		return encode_merged(e, f, again, n, number);
	}
	if (keep_zero || !is_zero(f, &last)) {
		json_writer_key(e->w, f->name);
		encode_scalar(e, f, &last);
	}
	return 0;
}

/* The numbers of one packed field. */
static int encode_packed(struct encoder *e, const struct otlp_json_field *f, struct bytes in)
{
	struct pb_field pf = { .wire = (uint8_t)wire_of(f) };

	while (in.n > 0 && !e->w->out->overflow) {
		if (pf.wire == PB_VARINT) {
			if (!pb_varint(&in, &pf.value))
				return damaged(e);
		} else {
			if (in.n < 8)
				return damaged(e);
			pf.value = load_le64(in.p);
			in.p += 8;
			in.n -= 8;
		}
		encode_scalar(e, f, &pf);
	}
	return 0;
}

static int encode_list(struct encoder *e, const struct otlp_json_field *f, const char *key,
		       struct walk k, uint32_t number)
{
	struct pb_field pf;

	json_writer_key(e->w, key);
	json_writer_array(e->w);
	while (walk_to(&k, f, number, &pf) > 0) {
		if (f->packed && pf.wire == PB_LEN) {
			if (encode_packed(e, f, pf.data) < 0)
				return -1;
		} else if (f->type != OTLP_MESSAGE)
			encode_scalar(e, f, &pf);
		else if (encode_message(e, f->message, (struct parts){ &pf.data, 1 }) < 0)
			return -1;
		if (e->w->out->overflow)
			break;
	}
	json_writer_array_end(e->w);
	return 0;
}

static struct walk walk_of(struct parts in)
{
	return (struct walk){ .m = in };
}

/* Which numbers (below 32; field 1000 is bit 31) occur, and for AnyValue the last of them. */
static int see_fields(struct encoder *e, const struct otlp_json_message *m, struct parts in,
		      uint32_t *seen)
{
	struct walk k = walk_of(in);
	struct pb_field pf;
	int rc = 0;

	*seen = 0;
	while ((rc = walk_next(&k, &pf)) > 0) {
		for (size_t i = 0; i < m->n_fields; i++) {
			const struct otlp_json_field *f = &m->fields[i];

			if (!wire_fits(f, pf.wire))
				continue;
			if (f->number == pf.number)
				*seen = (m->oneof ? 0 : *seen) | 1u << f->number;
			else if (f->old_number != 0 && f->old_number == pf.number)
				*seen |= 1u << 31;
		}
	}
	return rc < 0 ? damaged(e) : 0;
}

static int encode_members(struct encoder *e, const struct otlp_json_message *m, struct parts in)
{
	uint32_t seen = 0;

	if (see_fields(e, m, in, &seen) < 0)
		return -1;
	for (size_t i = 0; i < m->n_fields; i++) {
		const struct otlp_json_field *f = &m->fields[i];
		uint32_t number = f->number;
		int rc = 0;

		if (!(seen >> number & 1) && f->old_number != 0 && seen >> 31)
			number = f->old_number;
		else if (!(seen >> number & 1)) {
			if (f->always && e->dialect == OTLP_JSON) {
				json_writer_key(e->w, f->name);
				json_writer_raw(e->w, BYTES_LIT("{}"));
			}
			continue;
		}
		rc = f->repeated ? encode_list(e, f, f->name, walk_of(in), number) :
				   encode_one(e, f, walk_of(in), number,
					      m->oneof || f->presence);
		if (rc < 0)
			return -1;
		if (e->w->out->overflow)
			return 0;
	}
	return 0;
}

static int encode_root(struct json_writer *w, const struct otlp_json_message *root,
		       const char *key, const struct bytes *parts, size_t n_parts,
		       enum otlp_json_dialect dialect, struct err *err)
{
	struct encoder e = { .w = w, .dialect = dialect, .err = err };
	struct parts in = { parts, n_parts };
	uint32_t seen = 0;
	int rc = -1;

	rc = see_fields(&e, root, in, &seen);
	if (rc == 0 && seen != 0)
		rc = encode_list(&e, &root->fields[0], key, walk_of(in), 1);
	arena_fini(&e.scratch);
	return rc;
}

int otlp_json_encode_list(struct json_writer *w, const char *key, const struct bytes *parts,
			  size_t n_parts, enum otlp_json_dialect dialect, struct err *err)
{
	return encode_root(w, &otlp_json_traces_data, key, parts, n_parts, dialect, err);
}

int otlp_json_encode(const struct bytes *parts, size_t n_parts, enum otlp_json_dialect dialect,
		     size_t max_bytes, struct buf *out, struct err *err)
{
	return otlp_json_encode_items(OTLP_TRACES, parts, n_parts, dialect, max_bytes, out, err);
}

int otlp_json_encode_items(enum otlp_signal signal, const struct bytes *parts, size_t n_parts,
			   enum otlp_json_dialect dialect, size_t max_bytes, struct buf *out,
			   struct err *err)
{
	const struct otlp_json_message *root = otlp_json_roots[signal];
	size_t start = out->n, outer_max = out->max;
	bool outer_overflow = out->overflow;
	struct json_writer w = JSON_WRITER(out);
	int rc = 0;

	out->overflow = false;
	if (max_bytes > 0 && (outer_max == 0 || max_bytes < outer_max - start))
		out->max = start + max_bytes;
	json_writer_object(&w);
	rc = encode_root(&w, root, root->fields[0].name, parts, n_parts, dialect, err);
	json_writer_object_end(&w);
	if (rc == 0 && out->overflow)
		rc = err_set(err, ERR_TOO_LARGE, "otlp json: larger than %zu bytes",
			     out->max - start);
	if (rc < 0)
		out->n = start;
	out->max = outer_max;
	out->overflow = outer_overflow;
	return rc;
}
