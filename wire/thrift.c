/* SPDX-License-Identifier: Apache-2.0
 *
 * thrift.c - see thrift.h.
 */
#include "wire/thrift.h"

enum {
	COMPACT_ID = 0x82,
	COMPACT_VERSION = 1,
	BINARY_VERSION = 0x8001,
	COMPACT_TRUE = 1,
	COMPACT_FALSE = 2,
	LONG_LIST = 15,
	UUID_BYTES = 16,
};

/* The compact protocol's types as ours; 0 is none. */
static const uint8_t from_compact[16] = {
	[COMPACT_TRUE] = THRIFT_BOOL,
	[COMPACT_FALSE] = THRIFT_BOOL,
	[3] = THRIFT_BYTE,
	[4] = THRIFT_I16,
	[5] = THRIFT_I32,
	[6] = THRIFT_I64,
	[7] = THRIFT_DOUBLE,
	[8] = THRIFT_STRING,
	[9] = THRIFT_LIST,
	[10] = THRIFT_SET,
	[11] = THRIFT_MAP,
	[12] = THRIFT_STRUCT,
	[13] = THRIFT_UUID,
};

/* The fewest bytes that a value takes; 0: there is no such type. */
static const uint8_t least_binary[THRIFT_UUID + 1] = {
	[THRIFT_BOOL] = 1, [THRIFT_BYTE] = 1, [THRIFT_DOUBLE] = 8, [THRIFT_I16] = 2,
	[THRIFT_I32] = 4,  [THRIFT_I64] = 8,  [THRIFT_STRING] = 4, [THRIFT_STRUCT] = 1,
	[THRIFT_MAP] = 6,  [THRIFT_SET] = 5,  [THRIFT_LIST] = 5,   [THRIFT_UUID] = UUID_BYTES,
};
static const uint8_t least_compact[THRIFT_UUID + 1] = {
	[THRIFT_BOOL] = 1, [THRIFT_BYTE] = 1, [THRIFT_DOUBLE] = 8, [THRIFT_I16] = 1,
	[THRIFT_I32] = 1,  [THRIFT_I64] = 1,  [THRIFT_STRING] = 1, [THRIFT_STRUCT] = 1,
	[THRIFT_MAP] = 1,  [THRIFT_SET] = 1,  [THRIFT_LIST] = 1,   [THRIFT_UUID] = UUID_BYTES,
};

void thrift_fail(struct thrift_reader *r, const char *why, uint64_t value)
{
	if (r->why != NULL)
		return;
	r->why = why;
	r->value = value;
	r->at = (size_t)(r->p - r->begin);
	/* So that whatever is read from here on finds nothing. */
	r->end = r->p;
}

int thrift_failed(const struct thrift_reader *r, struct err *err)
{
	if (LIKELY(r->why == NULL))
		return 0;
	return err_set(err, ERR_INVALID, "thrift: byte %zu: %s (%llu)", r->at, r->why,
		       (unsigned long long)r->value);
}

void thrift_init(struct thrift_reader *r, struct bytes in, enum thrift_protocol protocol)
{
	static const uint8_t nothing[1];

	*r = (struct thrift_reader){ .protocol = protocol };
	r->p = r->begin = in.n > 0 ? in.p : nothing;
	r->end = r->p + in.n;
}

/* ---- bytes ---- */

/* The next n bytes, or NULL. */
static const uint8_t *take(struct thrift_reader *r, size_t n, const char *what)
{
	const uint8_t *p = r->p;

	if (UNLIKELY(n > thrift_left(r))) {
		thrift_fail(r, what, n);
		return NULL;
	}
	r->p += n;
	return p;
}

static uint8_t one_byte(struct thrift_reader *r)
{
	const uint8_t *p = take(r, 1, "the input ends early: bytes wanted");

	return p != NULL ? *p : 0;
}

static uint64_t varint(struct thrift_reader *r)
{
	uint64_t v = 0;

	if (LIKELY(r->p < r->end && *r->p < 0x80))
		return *r->p++;
	for (unsigned i = 0; i < 10; i++) {
		if (r->p + i == r->end)
			break;
		v |= (uint64_t)(r->p[i] & 0x7f) << (7 * i);
		if (r->p[i] < 0x80) {
			r->p += i + 1;
			return v;
		}
	}
	thrift_fail(r, "a number that does not end: bytes left", thrift_left(r));
	return 0;
}

static int64_t zigzag(struct thrift_reader *r)
{
	uint64_t v = varint(r);

	return (int64_t)(v >> 1 ^ (~(v & 1) + 1));
}

/* A big-endian number of n bytes. */
static uint64_t fixed(struct thrift_reader *r, size_t n)
{
	const uint8_t *p = take(r, n, "the input ends early: bytes wanted");
	uint64_t v = 0;

	for (size_t i = 0; p != NULL && i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* A length or count; what is below zero is above all. */
static uint64_t size(struct thrift_reader *r)
{
	return r->protocol == THRIFT_COMPACT ? varint(r) : fixed(r, 4);
}

/* ---- values ---- */

bool thrift_bool(struct thrift_reader *r)
{
	if (r->bool_in_header) {
		r->bool_in_header = false;
		return r->bool_value;
	}
	return one_byte(r) == 1;
}

int8_t thrift_byte(struct thrift_reader *r)
{
	return (int8_t)one_byte(r);
}

int16_t thrift_i16(struct thrift_reader *r)
{
	return (int16_t)(r->protocol == THRIFT_COMPACT ? zigzag(r) : (int64_t)fixed(r, 2));
}

int32_t thrift_i32(struct thrift_reader *r)
{
	return (int32_t)(r->protocol == THRIFT_COMPACT ? zigzag(r) : (int64_t)fixed(r, 4));
}

int64_t thrift_i64(struct thrift_reader *r)
{
	return r->protocol == THRIFT_COMPACT ? zigzag(r) : (int64_t)fixed(r, 8);
}

/* Little-endian in the compact protocol: that is what its libraries write, whatever its first
 * specification said. */
double thrift_double(struct thrift_reader *r)
{
	const uint8_t *p = take(r, 8, "the input ends early: bytes wanted");
	uint64_t bits;
	double d = 0;

	if (p == NULL)
		return 0;
	bits = r->protocol == THRIFT_COMPACT ? load_le64(p) : load_be64(p);
	memcpy(&d, &bits, sizeof(d));
	return d;
}

struct bytes thrift_string(struct thrift_reader *r)
{
	uint64_t n = size(r);
	const uint8_t *p = take(r, n, "a string longer than what is left: its bytes");

	return p != NULL ? (struct bytes){ p, (size_t)n } : BYTES_EMPTY;
}

/* ---- containers ---- */

static enum thrift_type type_of_compact(struct thrift_reader *r, unsigned nibble)
{
	enum thrift_type t = (enum thrift_type)from_compact[nibble & 15];

	if (UNLIKELY(t == THRIFT_STOP))
		thrift_fail(r, "no such type", nibble & 15);
	return t;
}

static enum thrift_type type_of_binary(struct thrift_reader *r, unsigned byte)
{
	if (LIKELY(byte <= THRIFT_UUID && least_binary[byte] > 0))
		return (enum thrift_type)byte;
	thrift_fail(r, "no such type", byte);
	return THRIFT_STOP;
}

static size_t least_bytes(const struct thrift_reader *r, enum thrift_type t)
{
	return r->protocol == THRIFT_COMPACT ? least_compact[t] : least_binary[t];
}

static uint32_t backed(struct thrift_reader *r, uint64_t n, size_t each)
{
	/* each is 0 only when something failed before. */
	if (LIKELY(each > 0 && n <= thrift_left(r) / each))
		return (uint32_t)n;
	thrift_fail(r, "more elements than there are bytes left for: their number", n);
	return 0;
}

void thrift_struct(struct thrift_reader *r)
{
	if (UNLIKELY(r->depth == THRIFT_MAX_DEPTH)) {
		thrift_fail(r, "nested too deep: levels", r->depth);
		return;
	}
	r->last_id[++r->depth] = 0;
}

static bool end_struct(struct thrift_reader *r)
{
	if (r->depth > 0)
		r->depth--;
	return false;
}

static bool field_compact(struct thrift_reader *r, struct thrift_field *f)
{
	uint8_t head = one_byte(r);
	int16_t *last = &r->last_id[r->depth];

	if (head == 0)
		return end_struct(r);
	f->type = type_of_compact(r, head);
	f->id = head >> 4 != 0 ? (int16_t)(uint16_t)(*last + (head >> 4)) : (int16_t)zigzag(r);
	*last = f->id;
	r->bool_in_header = f->type == THRIFT_BOOL;
	r->bool_value = (head & 15) == COMPACT_TRUE;
	return r->why == NULL;
}

static bool field_binary(struct thrift_reader *r, struct thrift_field *f)
{
	uint8_t head = one_byte(r);

	if (head == 0)
		return end_struct(r);
	f->type = type_of_binary(r, head);
	f->id = (int16_t)fixed(r, 2);
	return r->why == NULL;
}

bool thrift_field(struct thrift_reader *r, struct thrift_field *f)
{
	return r->protocol == THRIFT_COMPACT ? field_compact(r, f) : field_binary(r, f);
}

struct thrift_list thrift_list(struct thrift_reader *r)
{
	unsigned head = one_byte(r), type = r->protocol == THRIFT_COMPACT ? head & 15 : head;
	struct thrift_list l = { THRIFT_STOP, 0 };
	uint64_t n = head >> 4;

	if (r->protocol != THRIFT_COMPACT || n == LONG_LIST)
		n = size(r);
	/* Some write an empty list without a type. */
	if (n == 0)
		return l;
	l.type = r->protocol == THRIFT_COMPACT ? type_of_compact(r, type) : type_of_binary(r, type);
	l.n = backed(r, n, least_bytes(r, l.type));
	return l;
}

bool thrift_element(struct thrift_reader *r, struct thrift_list *l)
{
	if (l->n == 0 || r->why != NULL)
		return false;
	l->n--;
	return true;
}

struct thrift_map thrift_map(struct thrift_reader *r)
{
	bool compact = r->protocol == THRIFT_COMPACT;
	unsigned key = compact ? 0 : one_byte(r), value = compact ? 0 : one_byte(r);
	struct thrift_map m = { THRIFT_STOP, THRIFT_STOP, 0 };
	uint64_t n = size(r);

	if (n == 0)
		return m;
	if (compact) {
		unsigned types = one_byte(r);

		m.key = type_of_compact(r, types >> 4);
		m.value = type_of_compact(r, types);
	} else {
		m.key = type_of_binary(r, key);
		m.value = type_of_binary(r, value);
	}
	m.n = backed(r, n, least_bytes(r, m.key) + least_bytes(r, m.value));
	return m;
}

/* ---- skip ---- */

static void skip_struct(struct thrift_reader *r)
{
	struct thrift_field f;

	thrift_struct(r);
	while (thrift_field(r, &f))
		thrift_skip(r, f.type);
}

/* Lists nest, too: in C's stack as well as in the input. */
static bool enter(struct thrift_reader *r)
{
	thrift_struct(r);
	return r->why == NULL;
}

static void skip_list(struct thrift_reader *r)
{
	struct thrift_list l = thrift_list(r);

	if (!enter(r))
		return;
	while (thrift_element(r, &l))
		thrift_skip(r, l.type);
	end_struct(r);
}

static void skip_map(struct thrift_reader *r)
{
	struct thrift_map m = thrift_map(r);

	if (!enter(r))
		return;
	for (; m.n > 0 && r->why == NULL; m.n--) {
		thrift_skip(r, m.key);
		thrift_skip(r, m.value);
	}
	end_struct(r);
}

void thrift_skip(struct thrift_reader *r, enum thrift_type type)
{
	switch (type) {
	case THRIFT_BOOL:
		(void)thrift_bool(r);
		return;
	case THRIFT_BYTE:
		(void)one_byte(r);
		return;
	case THRIFT_I16:
		(void)thrift_i16(r);
		return;
	case THRIFT_I32:
		(void)thrift_i32(r);
		return;
	case THRIFT_I64:
		(void)thrift_i64(r);
		return;
	case THRIFT_DOUBLE:
		(void)take(r, 8, "the input ends early: bytes wanted");
		return;
	case THRIFT_STRING:
		(void)thrift_string(r);
		return;
	case THRIFT_UUID:
		(void)take(r, UUID_BYTES, "the input ends early: bytes wanted");
		return;
	case THRIFT_STRUCT:
		skip_struct(r);
		return;
	case THRIFT_LIST:
	case THRIFT_SET:
		skip_list(r);
		return;
	case THRIFT_MAP:
		skip_map(r);
		return;
	case THRIFT_STOP:
		break;
	}
	thrift_fail(r, "no such type", type);
}

/* ---- message header ---- */

static void message_compact(struct thrift_reader *r, struct thrift_message *m)
{
	uint8_t id = one_byte(r), version;

	if (r->why == NULL && id == BINARY_VERSION >> 8)
		thrift_fail(r, "a message of the binary protocol where a compact one belongs", id);
	if (r->why == NULL && id != COMPACT_ID)
		thrift_fail(r, "no compact message: it does not begin with 130 but", id);
	version = one_byte(r);
	if (r->why == NULL && (version & 0x1f) != COMPACT_VERSION)
		thrift_fail(r, "version of the compact protocol", version & 0x1f);
	m->type = version >> 5;
	m->seqid = (int32_t)varint(r);
	m->name = thrift_string(r);
}

static void message_binary(struct thrift_reader *r, struct thrift_message *m)
{
	uint32_t head = (uint32_t)fixed(r, 4);

	if (head >> 31 == 0) { /* without a version: the length of the name */
		const uint8_t *p = take(r, head, "a name longer than what is left: its bytes");

		m->name = p != NULL ? (struct bytes){ p, head } : BYTES_EMPTY;
		m->type = one_byte(r);
	} else {
		if (head >> 24 == COMPACT_ID)
			thrift_fail(r,
				    "a message of the compact protocol where a binary one belongs",
				    COMPACT_ID);
		if (head >> 16 != BINARY_VERSION)
			thrift_fail(r, "version of the binary protocol", head >> 16);
		m->type = head & 0xff;
		m->name = thrift_string(r);
	}
	m->seqid = (int32_t)fixed(r, 4);
}

void thrift_message(struct thrift_reader *r, struct thrift_message *m)
{
	*m = (struct thrift_message){ 0 };
	if (r->protocol == THRIFT_COMPACT)
		message_compact(r, m);
	else
		message_binary(r, m);
}
