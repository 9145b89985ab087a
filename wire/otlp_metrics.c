/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_metrics.c - the reader of otlp_metrics.h (the writer: otlp_metrics_write.c).
 *
 * DESIGN: one cursor per level (request, resource, scope, metric), each a slice of what is left.
 * Field numbers differ between the kinds of data points for the same thing, so a point is read by
 * a table: (kind, field number) -> what it is and its wire type; five switch statements would say
 * the same five times. LIMITS: METRIC_MAX_BUCKETS; nothing recurses.
 */
#include "wire/otlp_metrics.h"

#include "wire/otlp_index.h"
#include "wire/otlp_validate.h"
#include "wire/pb.h"

#include <math.h>

/* Fields of the envelopes. */
enum {
	ENVELOPE_HEAD = 1, /* Resource of ResourceMetrics, InstrumentationScope of ScopeMetrics */
	ENVELOPE_ITEMS = 2,
	ENVELOPE_SCHEMA_URL = 3,
	SCOPE_NAME = 1,
	SCOPE_VERSION = 2,
	DATA_POINTS = 1,
	DATA_TEMPORALITY = 2,
	DATA_IS_MONOTONIC = 3,
};

/* ---- lists ---- */

static bool varints_count(struct bytes run, uint32_t *n)
{
	uint32_t count = 0;

	for (size_t i = 0; i < run.n; i++)
		count += run.p[i] < 0x80;
	*n = count;
	return run.n == 0 || run.p[run.n - 1] < 0x80;
}

/* One more field of the list, behind which `rest` lies. False: damaged. */
static bool list_add(struct metric_list *l, const struct pb_field *f, uint8_t wire,
		     struct bytes rest)
{
	uint32_t n = 1;

	if (f->wire == PB_LEN && wire == PB_FIXED64) {
		if (f->data.n % 8 != 0)
			return false;
		n = (uint32_t)(f->data.n / 8);
	} else if (f->wire == PB_LEN) {
		if (!varints_count(f->data, &n))
			return false;
	} else if (f->wire != wire) {
		return false;
	}
	if (l->number == 0) {
		l->number = (uint8_t)f->number;
		l->wire = wire;
		l->run = f->wire == PB_LEN ? f->data : BYTES_EMPTY;
		l->rest = f->wire == PB_LEN ? rest : (struct bytes){ f->raw.p, f->raw.n + rest.n };
	}
	l->left += n;
	return true;
}

/* The run is used up: look for the next field of the list. An unpacked element is left in *v. */
static bool list_refill(struct metric_list *l, uint64_t *v, bool *is_element)
{
	struct pb_field f = { 0 };

	while (pb_next(&l->rest, &f) > 0) {
		if (f.number != l->number)
			continue;
		*is_element = f.wire != PB_LEN;
		*v = f.value;
		l->run = f.wire == PB_LEN ? f.data : BYTES_EMPTY;
		return true;
	}
	return false;
}

static bool list_next(struct metric_list *l, uint64_t *v)
{
	bool is_element = false;

	while (l->left > 0 && l->run.n == 0 && !is_element)
		if (!list_refill(l, v, &is_element))
			l->left = 0;
	if (l->left == 0)
		return false;
	l->left--;
	if (is_element)
		return true;
	if (l->wire == PB_VARINT)
		return pb_varint(&l->run, v);
	if (l->run.n < 8)
		return false;
	*v = load_le64(l->run.p);
	l->run.p += 8;
	l->run.n -= 8;
	return true;
}

bool metric_list_next_u64(struct metric_list *l, uint64_t *v)
{
	return list_next(l, v);
}

bool metric_list_next_double(struct metric_list *l, double *v)
{
	uint64_t bits = 0;

	if (!list_next(l, &bits))
		return false;
	memcpy(v, &bits, sizeof(*v));
	return true;
}

bool metric_attribute_next(struct metric_attributes *it, struct bytes *key, struct any_value *value)
{
	struct bytes any;
	struct pb_field f = { 0 };

	while (pb_next(&it->rest, &f) > 0) {
		if (f.number != it->number || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, key, &any);
		any_value_read(any, value);
		return true;
	}
	return false;
}

/* ---- a point ---- */

/* What a field of a data point is. */
enum part {
	PART_NONE,
	PART_ATTRIBUTE,
	PART_START,
	PART_TIME,
	PART_DOUBLE,
	PART_INT,
	PART_EXEMPLAR,
	PART_FLAGS,
	PART_COUNT,
	PART_SUM,
	PART_MIN,
	PART_MAX,
	PART_BUCKET_COUNTS,
	PART_BOUNDS,
	PART_SCALE,
	PART_ZERO_COUNT,
	PART_ZERO_THRESHOLD,
	PART_POSITIVE,
	PART_NEGATIVE,
	PART_QUANTILE,
};

enum { MAX_FIELD = 14 };

/* A NumberDataPoint, of gauges and of sums. */
#define NUMBER_PARTS                                                                               \
	{                                                                                          \
		[2] = PART_START, [3] = PART_TIME, [4] = PART_DOUBLE, [5] = PART_EXEMPLAR,         \
		[6] = PART_INT, [7] = PART_ATTRIBUTE, [8] = PART_FLAGS                             \
	}

static const uint8_t parts[][MAX_FIELD + 1] = {
	[METRIC_GAUGE] = NUMBER_PARTS,
	[METRIC_SUM] = NUMBER_PARTS,
	[METRIC_HISTOGRAM] = { [2] = PART_START,
			       [3] = PART_TIME,
			       [4] = PART_COUNT,
			       [5] = PART_SUM,
			       [6] = PART_BUCKET_COUNTS,
			       [7] = PART_BOUNDS,
			       [8] = PART_EXEMPLAR,
			       [9] = PART_ATTRIBUTE,
			       [10] = PART_FLAGS,
			       [11] = PART_MIN,
			       [12] = PART_MAX },
	[METRIC_EXPONENTIAL_HISTOGRAM] = { [1] = PART_ATTRIBUTE,
					   [2] = PART_START,
					   [3] = PART_TIME,
					   [4] = PART_COUNT,
					   [5] = PART_SUM,
					   [6] = PART_SCALE,
					   [7] = PART_ZERO_COUNT,
					   [8] = PART_POSITIVE,
					   [9] = PART_NEGATIVE,
					   [10] = PART_FLAGS,
					   [11] = PART_EXEMPLAR,
					   [12] = PART_MIN,
					   [13] = PART_MAX,
					   [14] = PART_ZERO_THRESHOLD },
	[METRIC_SUMMARY] = { [2] = PART_START,
			     [3] = PART_TIME,
			     [4] = PART_COUNT,
			     [5] = PART_SUM,
			     [6] = PART_QUANTILE,
			     [7] = PART_ATTRIBUTE,
			     [8] = PART_FLAGS },
};

/* The wire type of each part; lists may be packed, too. */
static const uint8_t wires[] = {
	[PART_ATTRIBUTE] = PB_LEN,      [PART_START] = PB_FIXED64,
	[PART_TIME] = PB_FIXED64,       [PART_DOUBLE] = PB_FIXED64,
	[PART_INT] = PB_FIXED64,        [PART_EXEMPLAR] = PB_LEN,
	[PART_FLAGS] = PB_VARINT,       [PART_COUNT] = PB_FIXED64,
	[PART_SUM] = PB_FIXED64,        [PART_MIN] = PB_FIXED64,
	[PART_MAX] = PB_FIXED64,        [PART_BUCKET_COUNTS] = PB_FIXED64,
	[PART_BOUNDS] = PB_FIXED64,     [PART_SCALE] = PB_VARINT,
	[PART_ZERO_COUNT] = PB_FIXED64, [PART_ZERO_THRESHOLD] = PB_FIXED64,
	[PART_POSITIVE] = PB_LEN,       [PART_NEGATIVE] = PB_LEN,
	[PART_QUANTILE] = PB_LEN,
};

static double as_double(uint64_t bits)
{
	double d;

	memcpy(&d, &bits, sizeof(d));
	return d;
}

static const char *read_buckets(struct bytes message, struct metric_buckets *b)
{
	struct pb_field f = { 0 };
	int got;

	if (b->counts.number != 0)
		return "buckets of one sign are given twice";
	while ((got = pb_next(&message, &f)) > 0) {
		if (f.number == 1 && f.wire == PB_VARINT)
			b->offset = pb_unzigzag32((uint32_t)f.value);
		else if (f.number == 2 && !list_add(&b->counts, &f, PB_VARINT, message))
			return "bucket counts are damaged";
	}
	return got < 0 ? "buckets are damaged" : NULL;
}

static const char *read_attribute(struct bytes pair)
{
	switch (otlp_validate_key_value(pair, 0, pair.p + pair.n)) {
	case OTLP_DAMAGED:
		return "an attribute is damaged";
	case OTLP_TOO_DEEP:
		return "an attribute is nested too deep";
	default:
		return NULL;
	}
}

/* The parts that are numbers. */
static void read_number(struct metric_point *p, enum part part, uint64_t v)
{
	switch (part) {
	case PART_START:
		p->start_ns = v;
		break;
	case PART_TIME:
		p->time_ns = v;
		break;
	case PART_DOUBLE:
	case PART_INT:
		p->has_value = true;
		p->number.is_int = part == PART_INT;
		p->number.i = (int64_t)v;
		if (part == PART_DOUBLE)
			p->number.d = as_double(v);
		break;
	case PART_FLAGS:
		p->flags = (uint32_t)v;
		break;
	case PART_COUNT:
		p->count = v;
		break;
	case PART_SUM:
		p->has_sum = true;
		p->sum = as_double(v);
		break;
	case PART_MIN:
		p->has_min = true;
		p->min = as_double(v);
		break;
	case PART_MAX:
		p->has_max = true;
		p->max = as_double(v);
		break;
	case PART_SCALE:
		p->scale = pb_unzigzag32((uint32_t)v);
		break;
	case PART_ZERO_COUNT:
		p->zero_count = v;
		break;
	case PART_ZERO_THRESHOLD:
		p->zero_threshold = as_double(v);
		break;
	default:
		break;
	}
}

/* One field; `rest` lies behind it. Returns the fault or NULL. */
static const char *read_part(struct metric_point *p, enum part part, const struct pb_field *f,
			     struct bytes rest)
{
	if (part == PART_BUCKET_COUNTS || part == PART_BOUNDS) {
		struct metric_list *l = part == PART_BOUNDS ? &p->bounds : &p->counts;

		return list_add(l, f, PB_FIXED64, rest) ? NULL : "a list of buckets is damaged";
	}
	if (f->wire != wires[part])
		return "a field has the wire type of another";
	switch (part) {
	case PART_ATTRIBUTE:
		return read_attribute(f->data);
	case PART_EXEMPLAR:
		p->n_exemplars++;
		return NULL;
	case PART_POSITIVE:
		return read_buckets(f->data, &p->positive);
	case PART_NEGATIVE:
		return read_buckets(f->data, &p->negative);
	case PART_QUANTILE:
		return NULL;
	default:
		read_number(p, part, f->value);
		return NULL;
	}
}

/* The numbers of the fields that iterators look for. */
static void name_fields(enum metric_kind kind, struct metric_point *p)
{
	for (uint8_t i = 1; i <= MAX_FIELD; i++)
		switch (parts[kind][i]) {
		case PART_ATTRIBUTE:
			p->attribute_field = i;
			break;
		case PART_EXEMPLAR:
			p->exemplar_field = i;
			break;
		case PART_QUANTILE:
			p->quantile_field = i;
			break;
		default:
			break;
		}
}

static const char *read_fields(enum metric_kind kind, struct metric_point *p)
{
	struct bytes in = p->message;
	struct pb_field f = { 0 };
	const char *fault = NULL;
	int got = 0;

	while (fault == NULL && (got = pb_next(&in, &f)) > 0) {
		enum part part = f.number <= MAX_FIELD ? parts[kind][f.number] : PART_NONE;

		if (part != PART_NONE)
			fault = read_part(p, part, &f, in);
	}
	return got < 0 ? "it is damaged" : fault;
}

/* ---- does the point make sense? ---- */

/* Adds the counts to *sum; false: damaged, or more than 2^64 together. */
static bool add_counts(struct metric_list l, uint64_t *sum)
{
	uint32_t n = l.left;
	uint64_t v = 0;

	for (uint32_t i = 0; i < n; i++)
		if (!metric_list_next_u64(&l, &v) || __builtin_add_overflow(*sum, v, sum))
			return false;
	return true;
}

static bool bounds_ascend(struct metric_list l)
{
	double last = -INFINITY, v = 0;
	uint32_t n = l.left;

	for (uint32_t i = 0; i < n; i++) {
		if (!metric_list_next_double(&l, &v) || isnan(v) || (i > 0 && !(v > last)))
			return false;
		last = v;
	}
	return true;
}

static const char *histogram_fault(const struct metric_point *p)
{
	uint64_t sum = 0;

	if (p->counts.left > METRIC_MAX_BUCKETS)
		return "it has more than 16384 buckets";
	if (p->counts.left != 0 ? p->counts.left != p->bounds.left + 1 : p->bounds.left != 0)
		return "its bucket counts do not go with its bounds";
	if (!bounds_ascend(p->bounds))
		return "its bounds do not ascend";
	if (!add_counts(p->counts, &sum) || sum > p->count)
		return "its buckets hold more than its count";
	return NULL;
}

static bool buckets_are_too_far(const struct metric_buckets *b)
{
	return (int64_t)b->offset + b->counts.left > INT32_MAX;
}

static const char *exponential_fault(const struct metric_point *p)
{
	uint64_t sum = p->zero_count;

	if (p->positive.counts.left > METRIC_MAX_BUCKETS ||
	    p->negative.counts.left > METRIC_MAX_BUCKETS)
		return "it has more than 16384 buckets";
	if (p->scale < METRIC_MIN_SCALE || p->scale > METRIC_MAX_SCALE)
		return "its scale is not in -11..20";
	if (buckets_are_too_far(&p->positive) || buckets_are_too_far(&p->negative))
		return "a bucket's index passes 2^31";
	if (!add_counts(p->positive.counts, &sum) || !add_counts(p->negative.counts, &sum) ||
	    sum > p->count)
		return "its buckets hold more than its count";
	return NULL;
}

static const char *point_fault(enum metric_kind kind, const struct metric_point *p)
{
	if (p->flags & METRIC_NO_RECORDED_VALUE)
		return NULL;
	switch (kind) {
	case METRIC_HISTOGRAM:
		return histogram_fault(p);
	case METRIC_EXPONENTIAL_HISTOGRAM:
		return exponential_fault(p);
	case METRIC_SUMMARY:
		return NULL;
	default:
		return p->has_value ? NULL : "it has no value";
	}
}

/* ---- a metric ---- */

/* A piece of the data: what it says beside points. */
static int read_data(struct bytes data, struct metric *m)
{
	struct pb_field f = { 0 };
	int got;

	while ((got = pb_next(&data, &f)) > 0) {
		if (f.number == DATA_POINTS && f.wire != PB_LEN)
			return -1;
		if (m->kind == METRIC_GAUGE || m->kind == METRIC_SUMMARY || f.wire != PB_VARINT)
			continue;
		if (f.number == DATA_TEMPORALITY)
			m->temporality = (uint8_t)MIN(f.value, UINT8_MAX);
		else if (f.number == DATA_IS_MONOTONIC && m->kind == METRIC_SUM)
			m->is_monotonic = f.value != 0;
	}
	return got;
}

static bool is_data(uint32_t number)
{
	return number == METRIC_GAUGE || number == METRIC_SUM || number == METRIC_HISTOGRAM ||
	       number == METRIC_EXPONENTIAL_HISTOGRAM || number == METRIC_SUMMARY;
}

/* Data of another kind: what came before does not count. */
static void begin_data(struct metric *m, enum metric_kind kind, struct bytes data)
{
	m->kind = kind;
	m->data = data;
	m->temporality = TEMPORALITY_UNSPECIFIED;
	m->is_monotonic = false;
}

int metric_read(struct bytes message, struct metric *m)
{
	struct bytes *const texts[] = { NULL, &m->name, &m->description, &m->unit };
	struct pb_field f = { 0 };
	int got;

	m->name = m->description = m->unit = BYTES_EMPTY;
	begin_data(m, METRIC_NONE, BYTES_EMPTY);
	while ((got = pb_next(&message, &f)) > 0) {
		if (f.number >= 1 && f.number <= 3 && f.wire == PB_LEN)
			*texts[f.number] = f.data;
		if (!is_data(f.number))
			continue;
		if (m->kind != (enum metric_kind)f.number)
			begin_data(m, (enum metric_kind)f.number,
				   (struct bytes){ f.raw.p, f.raw.n + message.n });
		if (f.wire != PB_LEN || read_data(f.data, m) < 0)
			return -1;
	}
	return got;
}

/* The next payload of field `number` of *in; others are passed over. */
static int next_payload(struct bytes *in, uint32_t number, struct bytes *out)
{
	struct pb_field f = { 0 };
	int got;

	while ((got = pb_next(in, &f)) > 0) {
		if (f.number != number)
			continue;
		*out = f.data;
		return f.wire == PB_LEN ? 1 : -1;
	}
	return got;
}

int metric_next_point(const struct metric *m, struct metric_points *at, struct metric_point *p)
{
	struct bytes message;
	int got;

	if (m->kind == METRIC_NONE)
		return 0;
	while ((got = next_payload(&at->points, DATA_POINTS, &message)) == 0) {
		got = next_payload(&at->fields, m->kind, &at->points);
		if (got <= 0)
			return got;
	}
	if (got < 0)
		return -1;
	*p = (struct metric_point){ .message = message };
	name_fields(m->kind, p);
	p->fault = read_fields(m->kind, p);
	if (p->fault == NULL)
		p->fault = point_fault(m->kind, p);
	return 1;
}

/* ---- exemplars, quantiles ---- */

static bool read_exemplar(struct bytes in, struct metric_exemplar *x)
{
	struct pb_field f = { 0 };
	int got;

	*x = (struct metric_exemplar){ .message = in };
	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number == 2 && f.wire == PB_FIXED64)
			x->time_ns = f.value;
		if ((f.number == 3 || f.number == 6) && f.wire == PB_FIXED64) {
			x->has_value = true;
			x->number.is_int = f.number == 6;
			x->number.i = (int64_t)f.value;
			if (f.number == 3)
				x->number.d = as_double(f.value);
		}
		if (f.number == 4 && f.wire == PB_LEN)
			x->span_id = f.data.n == 8 ? f.data : BYTES_EMPTY;
		if (f.number == 5 && f.wire == PB_LEN)
			x->trace_id = f.data.n == 16 ? f.data : BYTES_EMPTY;
		if (f.number == METRIC_EXEMPLAR_ATTRIBUTES &&
		    (f.wire != PB_LEN || read_attribute(f.data) != NULL))
			return false;
	}
	return got == 0;
}

bool metric_exemplar_next(const struct metric_point *p, struct bytes *it, struct metric_exemplar *x)
{
	struct pb_field f = { 0 };

	while (p->n_exemplars > 0 && pb_next(it, &f) > 0)
		if (f.number == p->exemplar_field && f.wire == PB_LEN && read_exemplar(f.data, x))
			return true;
	return false;
}

bool metric_quantile_next(const struct metric_point *p, struct bytes *it, double *quantile,
			  double *value)
{
	struct bytes in;
	struct pb_field f = { 0 };

	while (p->quantile_field != 0 && pb_next(it, &f) > 0) {
		if (f.number != p->quantile_field || f.wire != PB_LEN)
			continue;
		*quantile = *value = 0;
		in = f.data;
		while (pb_next(&in, &f) > 0)
			if (f.wire == PB_FIXED64 && (f.number == 1 || f.number == 2))
				*(f.number == 1 ? quantile : value) = as_double(f.value);
		return true;
	}
	return false;
}

/* ---- the walk ---- */

static void read_scope(struct metric_scope *scope)
{
	struct bytes in = scope->message;
	struct pb_field f = { 0 };

	scope->name = scope->version = BYTES_EMPTY;
	while (pb_next(&in, &f) > 0) {
		if (f.number == SCOPE_NAME && f.wire == PB_LEN)
			scope->name = f.data;
		else if (f.number == SCOPE_VERSION && f.wire == PB_LEN)
			scope->version = f.data;
	}
}

/* The Resource or scope, and the schema_url, of a run of an envelope's fields. */
static void read_head(struct bytes head, struct bytes *message, struct bytes *schema_url)
{
	struct pb_field f = { 0 };

	while (pb_next(&head, &f) > 0) {
		if (f.number == ENVELOPE_HEAD && f.wire == PB_LEN)
			*message = f.data;
		else if (f.number == ENVELOPE_SCHEMA_URL && f.wire == PB_LEN)
			*schema_url = f.data;
	}
}

static void begin(struct metrics_reader *r)
{
	*r = (struct metrics_reader){ .resource_row = UINT32_MAX, .scope_row = UINT32_MAX };
	r->resource.no = r->scope.no = r->metric.no = UINT32_MAX;
}

static void begin_resource(struct metrics_reader *r)
{
	r->resource = (struct metric_resource){ .no = r->resource.no + 1 };
}

static void begin_scope(struct metrics_reader *r)
{
	r->scope = (struct metric_scope){ .no = r->scope.no + 1 };
}

static int begin_metric(struct metrics_reader *r, struct bytes message)
{
	if (metric_read(message, &r->metric) < 0)
		return -1;
	r->metric.no++;
	r->points = (struct metric_points){ r->metric.data, BYTES_EMPTY };
	return 1;
}

void metrics_reader_items(struct metrics_reader *r, const struct span_tables *tables)
{
	begin(r);
	r->tables = tables;
}

void metrics_reader_request(struct metrics_reader *r, struct bytes request)
{
	begin(r);
	r->request = request;
}

static void enter_scope_row(struct metrics_reader *r, uint32_t row)
{
	const struct scope_ref *s = &r->tables->scopes[row];
	const struct resource_ref *res = &r->tables->resources[s->resource];

	if (s->resource != r->resource_row) {
		begin_resource(r);
		r->resource_row = s->resource;
		for (uint32_t i = 0; i < res->n_head; i++)
			read_head(r->tables->heads[res->head + i], &r->resource.message,
				  &r->resource.schema_url);
	}
	begin_scope(r);
	r->scope_row = row;
	for (uint32_t i = 0; i < s->n_head; i++)
		read_head(r->tables->heads[s->head + i], &r->scope.message, &r->scope.schema_url);
	read_scope(&r->scope);
}

static int next_item(struct metrics_reader *r)
{
	const struct span_ref *sp;

	if (r->next_item >= r->tables->n_spans)
		return 0;
	r->item = r->next_item++;
	sp = &r->tables->spans[r->item];
	assert(sp->pieces == NULL); /* nothing edits a Metric */
	if (sp->scope != r->scope_row)
		enter_scope_row(r, sp->scope);
	return begin_metric(r, (struct bytes){ sp->p, sp->len });
}

static int next_resource(struct metrics_reader *r)
{
	int got = next_payload(&r->request, 1, &r->scopes);

	if (got <= 0)
		return got;
	begin_resource(r);
	read_head(r->scopes, &r->resource.message, &r->resource.schema_url);
	return 1;
}

static int next_scope(struct metrics_reader *r)
{
	int got;

	while ((got = next_payload(&r->scopes, ENVELOPE_ITEMS, &r->metrics)) == 0) {
		got = next_resource(r);
		if (got <= 0)
			return got;
	}
	if (got < 0)
		return -1;
	begin_scope(r);
	read_head(r->metrics, &r->scope.message, &r->scope.schema_url);
	read_scope(&r->scope);
	return 1;
}

static int next_metric(struct metrics_reader *r)
{
	struct bytes message;
	int got;

	while ((got = next_payload(&r->metrics, ENVELOPE_ITEMS, &message)) == 0) {
		got = next_scope(r);
		if (got <= 0)
			return got;
	}
	return got < 0 ? -1 : begin_metric(r, message);
}

int metrics_next(struct metrics_reader *r, struct metric_point *p)
{
	int got;

	while ((got = metric_next_point(&r->metric, &r->points, p)) == 0) {
		got = r->tables != NULL ? next_item(r) : next_metric(r);
		if (got <= 0)
			return got;
	}
	return got;
}
