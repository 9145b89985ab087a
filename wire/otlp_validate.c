/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_validate.c - see otlp_validate.h.
 *
 * DESIGN: each message first gets one look for its usual shape (otlp_plain.h, where 64 bytes may be
 * read), then the general walk. Recursion is bounded by OTLP_MAX_DEPTH.
 */
#include "wire/otlp_validate.h"

#include "base/str.h"
#include "wire/otlp_index.h"
#include "wire/otlp_plain.h"
#include "wire/pb.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The load functions go through memcpy: one unaligned load each. */
static bool is_ascii(const uint8_t *p, size_t n)
{
	uint64_t acc = 0;

	if (n < 8) {
		for (size_t i = 0; i < n; i++)
			acc |= p[i];
		return !(acc & 0x80);
	}
	for (size_t i = 0; i + 8 <= n; i += 8)
		acc |= load_le64(p + i);
	return !((acc | load_le64(p + n - 8)) & HIGH_BITS);
}

enum otlp_verdict otlp_validate_string(struct bytes s)
{
	if (is_ascii(s.p, s.n))
		return OTLP_VALID;
	return str_is_utf8(s) ? OTLP_VALID : OTLP_BAD_TEXT;
}

/* May a window be laid over p? */
static bool can_look(const uint8_t *p, const uint8_t *end)
{
	return end - p >= OTLP_PLAIN_WINDOW;
}

static enum otlp_verdict validate_any_value(struct bytes in, int depth, const uint8_t *end);

/* ArrayValue (each field 1 an AnyValue) or KeyValueList (each field 1 a KeyValue). */
static enum otlp_verdict validate_list(struct bytes in, bool of_pairs, int depth,
				       const uint8_t *end)
{
	enum otlp_verdict worst = OTLP_VALID;
	struct pb_field f;
	int got;

	if (depth >= OTLP_MAX_DEPTH)
		return OTLP_TOO_DEEP;
	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number != 1)
			continue;
		if (f.wire != PB_LEN)
			return OTLP_DAMAGED;
		worst = otlp_worse(worst, of_pairs ? otlp_validate_key_value(f.data, depth + 1, end)
						   : validate_any_value(f.data, depth + 1, end));
		if (worst < 0)
			return worst;
	}
	return got < 0 ? OTLP_DAMAGED : worst;
}

/* The wire type of each AnyValue member, by field number. */
static const uint8_t any_value_wire[8] = { 0xff,       PB_LEN, PB_VARINT, PB_VARINT,
					   PB_FIXED64, PB_LEN, PB_LEN,    PB_LEN };

static enum otlp_verdict validate_any_value(struct bytes in, int depth, const uint8_t *end)
{
	enum otlp_verdict worst = OTLP_VALID;
	struct pb_field f;
	int got;

	if (can_look(in.p, end) && otlp_any_value_is_plain(in.p, in.n))
		return OTLP_VALID;
	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number > 7)
			continue;
		if (f.wire != any_value_wire[f.number])
			return OTLP_DAMAGED;
		if (f.number == 1)
			worst = otlp_worse(worst, otlp_validate_string(f.data));
		else if (f.number == 5 || f.number == 6)
			worst = otlp_worse(worst, validate_list(f.data, f.number == 6, depth, end));
		if (worst < 0)
			return worst;
	}
	return got < 0 ? OTLP_DAMAGED : worst;
}

enum otlp_verdict otlp_validate_key_value(struct bytes in, int depth, const uint8_t *end)
{
	enum otlp_verdict worst = OTLP_VALID;
	struct pb_field f;
	int got;

	if (can_look(in.p, end) && otlp_key_value_is_plain(in.p, in.n))
		return OTLP_VALID;
	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number > 2)
			continue;
		if (f.wire != PB_LEN)
			return OTLP_DAMAGED;
		worst = otlp_worse(worst, f.number == 1 ? otlp_validate_string(f.data)
							: validate_any_value(f.data, depth, end));
		if (worst < 0)
			return worst;
	}
	return got < 0 ? OTLP_DAMAGED : worst;
}

/* What each field of a small message must be; the sub-span messages are a few rows each. */
enum field_rule {
	R_SKIP,
	R_VARINT,
	R_FIXED64,
	R_FIXED32,
	R_STRING,
	R_PAIR,
	R_TRACE_ID,
	R_SPAN_ID,
	R_ENTITY
};

static const uint8_t rule_wire[] = {
	[R_VARINT] = PB_VARINT, [R_FIXED64] = PB_FIXED64, [R_FIXED32] = PB_FIXED32,
	[R_STRING] = PB_LEN,    [R_PAIR] = PB_LEN,        [R_TRACE_ID] = PB_LEN,
	[R_SPAN_ID] = PB_LEN,   [R_ENTITY] = PB_LEN,
};

static enum otlp_verdict validate_entity_ref(struct bytes ref, const uint8_t *end);

static enum otlp_verdict validate_field(enum field_rule rule, const struct pb_field *f,
					const uint8_t *end)
{
	switch (rule) {
	case R_STRING:
		return otlp_validate_string(f->data);
	case R_PAIR:
		return otlp_validate_key_value(f->data, 0, end);
	case R_TRACE_ID:
		return f->data.n == 16 || f->data.n == 0 ? OTLP_VALID : OTLP_BAD_ID;
	case R_SPAN_ID:
		return f->data.n == 8 || f->data.n == 0 ? OTLP_VALID : OTLP_BAD_ID;
	case R_ENTITY:
		return validate_entity_ref(f->data, end);
	default:
		return OTLP_VALID;
	}
}

/* Walk a message by its rules[0 .. n_rules-1]; *code gets the value of field 3 when it is a varint.
 */
static enum otlp_verdict validate_message(struct bytes in, const uint8_t *rules, size_t n_rules,
					  uint8_t *code, const uint8_t *end)
{
	enum otlp_verdict worst = OTLP_VALID;
	struct pb_field f;
	int got;

	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number >= n_rules || rules[f.number] == R_SKIP)
			continue;
		if (f.wire != rule_wire[rules[f.number]])
			return OTLP_DAMAGED;
		if (code != NULL && f.number == 3)
			*code = (uint8_t)MIN(f.value, 255u);
		worst = otlp_worse(worst, validate_field(rules[f.number], &f, end));
		if (worst < 0)
			return worst;
	}
	return got < 0 ? OTLP_DAMAGED : worst;
}

/* EntityRef: {1 schema_url, 2 type, 3 id_keys, 4 description_keys}, all text. */
static enum otlp_verdict validate_entity_ref(struct bytes ref, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_STRING, R_STRING, R_STRING, R_STRING };

	return validate_message(ref, rules, COUNT_OF(rules), NULL, end);
}

enum otlp_verdict otlp_validate_event(struct bytes event, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_FIXED64, R_STRING, R_PAIR, R_VARINT };

	return validate_message(event, rules, COUNT_OF(rules), NULL, end);
}

enum otlp_verdict otlp_validate_link(struct bytes link, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_TRACE_ID, R_SPAN_ID, R_STRING,
					 R_PAIR, R_VARINT,   R_FIXED32 };

	return validate_message(link, rules, COUNT_OF(rules), NULL, end);
}

enum otlp_verdict otlp_validate_status(struct bytes status, uint8_t *code, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_SKIP, R_STRING, R_VARINT };

	return validate_message(status, rules, COUNT_OF(rules), code, end);
}

enum otlp_verdict otlp_validate_scope(struct bytes scope, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_STRING, R_STRING, R_PAIR, R_VARINT };

	return validate_message(scope, rules, COUNT_OF(rules), NULL, end);
}

enum otlp_verdict otlp_validate_resource(struct bytes resource, const uint8_t *end)
{
	static const uint8_t rules[] = { R_SKIP, R_PAIR, R_VARINT, R_ENTITY };

	return validate_message(resource, rules, COUNT_OF(rules), NULL, end);
}
