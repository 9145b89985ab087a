/* SPDX-License-Identifier: Apache-2.0
 *
 * block_meta.c - see block_meta.h. One table of keys says kind and place of each value; reading
 * walks it.
 */
#include "blocks/block_meta.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/str.h"
#include "blocks/block_columns.h"
#include "blocks/block_index.h"

#include <stdio.h>

/* ---- times ---- */

/* Days since 1970-01-01 of a proleptic Gregorian date: years begin in March, so that the leap day
 * is the last. */
static int64_t days_of(int64_t y, int64_t m, int64_t d)
{
	int64_t era = 0, yoe = 0, doy = 0;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void date_of(int64_t days, int64_t *y, int64_t *m, int64_t *d)
{
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*d = doy - (153 * mp + 2) / 5 + 1;
	*m = mp + (mp < 10 ? 3 : -9);
	*y = yoe + era * 400 + (*m <= 2);
}

static int days_in_month(int y, int m)
{
	static const int days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[m - 1] + (m == 2 && y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
}

/* Take n digits, then the byte `sep` (0: none), off *s. */
static bool take_digits(struct bytes *s, size_t n, char sep, int *v)
{
	if (s->n < n + (sep != 0))
		return false;
	*v = 0;
	for (size_t i = 0; i < n; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return false;
		*v = *v * 10 + (s->p[i] - '0');
	}
	if (sep != 0 && s->p[n] != sep)
		return false;
	s->p += n + (sep != 0);
	s->n -= n + (sep != 0);
	return true;
}

static bool take_fraction(struct bytes *s, uint32_t *ns)
{
	uint32_t unit = 100000000;
	size_t n = 1;

	if (s->n == 0 || s->p[0] != '.')
		return true;
	for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++) {
		*ns += (uint32_t)(s->p[n] - '0') * unit;
		unit /= 10;
	}
	s->p += n;
	s->n -= n;
	return n > 1;
}

/* "Z" or "+hh:mm", and nothing after it. */
static bool take_zone(struct bytes *s, int64_t *offset_s)
{
	int h = 0, m = 0, sign = 0;

	*offset_s = 0;
	if (s->n == 1 && s->p[0] == 'Z')
		return true;
	if (s->n != 6 || (s->p[0] != '+' && s->p[0] != '-'))
		return false;
	sign = s->p[0] == '-' ? -1 : 1;
	s->p++;
	s->n--;
	if (!take_digits(s, 2, ':', &h) || !take_digits(s, 2, 0, &m) || h > 23 || m > 59)
		return false;
	*offset_s = sign * (h * 3600 + m * 60);
	return true;
}

int block_time_parse(struct bytes text, struct block_time *t, struct err *err)
{
	struct bytes s = text;
	int y = 0, mon = 0, d = 0, h = 0, min = 0, sec = 0;
	int64_t offset = 0;
	uint32_t ns = 0;

	if (!take_digits(&s, 4, '-', &y) || !take_digits(&s, 2, '-', &mon) ||
	    !take_digits(&s, 2, 'T', &d) || !take_digits(&s, 2, ':', &h) ||
	    !take_digits(&s, 2, ':', &min) || !take_digits(&s, 2, 0, &sec) || mon < 1 || mon > 12 ||
	    d < 1 || d > days_in_month(y, mon) || h > 23 || min > 59 || sec > 59 ||
	    !take_fraction(&s, &ns) || !take_zone(&s, &offset))
		return err_set(err, ERR_INVALID, "\"%.*s\" is not a time of RFC 3339",
			       (int)MIN(text.n, 40), (const char *)text.p);
	t->s = days_of(y, mon, d) * 86400 + h * 3600 + min * 60 + sec - offset;
	t->ns = ns;
	return 0;
}

void block_time_format(struct block_time t, char out[BLOCK_TIME_TEXT])
{
	int64_t days = t.s / 86400 - (t.s % 86400 < 0), rest = t.s - days * 86400;
	int64_t y = 0, m = 0, d = 0;
	int n = 0;

	date_of(days, &y, &m, &d);
	n = snprintf(out, BLOCK_TIME_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d", (int)y, (int)m, (int)d,
		     (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
	if (t.ns != 0) {
		n += snprintf(out + n, BLOCK_TIME_TEXT - (size_t)n, ".%09u", t.ns);
		while (out[n - 1] == '0')
			n--;
	}
	out[n] = 'Z';
	out[n + 1] = '\0';
}

struct block_time block_time_of_ns(uint64_t unix_ns)
{
	return (struct block_time){ (int64_t)(unix_ns / NS_PER_S), (uint32_t)(unix_ns % NS_PER_S) };
}

int block_time_compare(struct block_time a, struct block_time b)
{
	if (a.s != b.s)
		return a.s < b.s ? -1 : 1;
	return (a.ns > b.ns) - (a.ns < b.ns);
}

/* ---- reading ---- */

enum kind { NAME, UUID, TENANT, TRACE_ID, TIME, U32, U63, U64, ENCODING, COLUMNS, SHARD, SUMS };
enum { SUM_DIGITS = 16 };

static const struct {
	const char *key;
	enum kind kind;
	size_t at;
} keys[] = {
	{ "format", NAME, offsetof(struct block_meta, format) },
	{ "blockID", UUID, offsetof(struct block_meta, id) },
	{ "minID", TRACE_ID, offsetof(struct block_meta, min_id) },
	{ "maxID", TRACE_ID, offsetof(struct block_meta, max_id) },
	{ "tenantID", TENANT, offsetof(struct block_meta, tenant) },
	{ "startTime", TIME, offsetof(struct block_meta, start) },
	{ "endTime", TIME, offsetof(struct block_meta, end) },
	{ "totalObjects", U63, offsetof(struct block_meta, objects) },
	{ "size", U64, offsetof(struct block_meta, size) },
	{ "compactionLevel", U32, offsetof(struct block_meta, compaction_level) },
	{ "encoding", ENCODING, offsetof(struct block_meta, encoding) },
	{ "indexPageSize", U32, offsetof(struct block_meta, index_page_size) },
	{ "totalRecords", U32, offsetof(struct block_meta, records) },
	{ "dataEncoding", NAME, offsetof(struct block_meta, data_encoding) },
	{ "bloomShards", U32, offsetof(struct block_meta, bloom_shards) },
	{ "footerSize", U32, offsetof(struct block_meta, footer_size) },
	{ "dedicatedColumns", COLUMNS, offsetof(struct block_meta, columns) },
	{ "replicationFactor", U32, offsetof(struct block_meta, replication_factor) },
	{ "shard", SHARD, offsetof(struct block_meta, shard) },
	{ "bloomXXH64", SUMS, offsetof(struct block_meta, bloom_sums) },
	{ "ingestedAt", TIME, offsetof(struct block_meta, ingested_at) },
	{ "compactedTime", TIME, offsetof(struct block_meta, compacted_at) },
};

void block_meta_init(struct block_meta *m)
{
	*m = (struct block_meta){ .encoding = CODEC_NONE };
	m->start = m->end = m->ingested_at = m->compacted_at = BLOCK_TIME_NONE;
}

static int want(const struct json_value *v, enum json_kind kind, struct err *err)
{
	if (v->kind == kind)
		return 0;
	return err_set(err, ERR_INVALID, "must be %s, is %s", json_reader_kind_name(kind),
		       json_reader_kind_name(v->kind));
}

static int read_name(const struct json_value *v, char *to, struct err *err)
{
	if (want(v, JSON_STRING, err) < 0)
		return -1;
	if (v->text.n > BLOCK_META_NAME || memchr(v->text.p, 0, v->text.n) != NULL)
		return err_set(err, ERR_INVALID, "\"%.*s\" is longer than %d bytes or has a NUL",
			       (int)MIN(v->text.n, 40), (const char *)v->text.p, BLOCK_META_NAME);
	memcpy(to, v->text.p, v->text.n);
	to[v->text.n] = '\0';
	return 0;
}

static int read_uuid(const struct json_value *v, char *to, struct err *err)
{
	bool ok = v->kind == JSON_STRING && v->text.n == 36;

	for (size_t i = 0; ok && i < 36; i++) {
		uint8_t c = v->text.p[i];

		if (c >= 'A' && c <= 'F')
			c = (uint8_t)(c - 'A' + 'a');
		if (i == 8 || i == 13 || i == 18 || i == 23)
			ok = c == '-';
		else
			ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		to[i] = (char)c;
	}
	to[ok ? 36 : 0] = '\0';
	if (!ok)
		return err_set(err, ERR_INVALID, "\"%.*s\" is not a UUID", (int)MIN(v->text.n, 40),
			       (const char *)v->text.p);
	return 0;
}

int block_meta_id_bytes(const char *id, uint8_t out[16], struct err *err)
{
	char hex[33];
	size_t n = 0;

	for (size_t i = 0; id[i] != '\0' && n < 33; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23)
			n = id[i] == '-' ? n : 33;
		else
			hex[n++] = id[i];
	if (n != 32 || str_unhex((struct bytes){ (const uint8_t *)hex, 32 }, out, 16) < 0)
		return err_set(err, ERR_INVALID, "\"%.40s\" is not a UUID", id);
	return 0;
}

int block_meta_tenant_check(struct bytes tenant, struct err *err)
{
	bool ok = tenant.n > 0 && tenant.n <= BLOCK_META_TENANT;

	for (size_t i = 0; ok && i < tenant.n; i++) {
		uint8_t c = tenant.p[i];

		ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		     (c != 0 && strchr("!_.*'()-", c) != NULL);
	}
	if (ok && !bytes_eq_str(tenant, ".") && !bytes_eq_str(tenant, "..") &&
	    !bytes_eq_str(tenant, "_spanmill"))
		return 0;
	return err_set(
		err, ERR_INVALID,
		"tenant \"%.*s\": must be 1 to 150 of 0-9A-Za-z!_.*'()-, not \".\", \"..\" or "
		"\"_spanmill\"",
		(int)MIN(tenant.n, 40), (const char *)tenant.p);
}

static int read_tenant(const struct json_value *v, char *to, struct err *err)
{
	if (want(v, JSON_STRING, err) < 0 || block_meta_tenant_check(v->text, err) < 0)
		return -1;
	memcpy(to, v->text.p, v->text.n);
	to[v->text.n] = '\0';
	return 0;
}

static int read_trace_id(const struct json_value *v, uint8_t *to, struct err *err)
{
	uint8_t raw[64];
	long n = -1;

	if (want(v, JSON_STRING, err) < 0)
		return -1;
	if (v->text.n <= 64)
		n = str_unbase64(v->text, raw);
	if (n != PAGE_ID)
		return err_set(err, ERR_INVALID, "\"%.*s\" is not base64 of 16 bytes",
			       (int)MIN(v->text.n, 40), (const char *)v->text.p);
	memcpy(to, raw, PAGE_ID);
	return 0;
}

static int read_number(const struct json_value *v, uint64_t max, uint64_t *to, struct err *err)
{
	if (want(v, JSON_NUMBER, err) < 0)
		return -1;
	if (json_reader_u64(v, to) < 0 || *to > max)
		return err_set(err, ERR_INVALID, "%.*s is not an integer of 0 to %llu",
			       (int)MIN(v->text.n, 40), (const char *)v->text.p,
			       (unsigned long long)max);
	return 0;
}

static int read_u32(const struct json_value *v, uint32_t *to, struct err *err)
{
	uint64_t n = 0;

	if (read_number(v, UINT32_MAX, &n, err) < 0)
		return -1;
	*to = (uint32_t)n;
	return 0;
}

static int read_time(const struct json_value *v, struct block_time *to, struct err *err)
{
	return want(v, JSON_STRING, err) < 0 ? -1 : block_time_parse(v->text, to, err);
}

static int read_shard_member(struct json_reader *r, const struct json_value *v,
			     struct block_shard *s, struct err *err)
{
	if (JSON_KEY_IS(v, "hasher"))
		return read_name(v, s->hasher, err);
	if (JSON_KEY_IS(v, "count"))
		return read_u32(v, &s->count, err);
	if (JSON_KEY_IS(v, "index"))
		return read_u32(v, &s->index, err);
	return json_reader_skip(r, v, err);
}

static int read_shard(struct json_reader *r, const struct json_value *v, struct block_shard *s,
		      struct err *err)
{
	struct json_value member;
	int ret = 0;

	if (want(v, JSON_OBJECT, err) < 0)
		return -1;
	while ((ret = json_reader_member(r, &member, err)) == 1)
		if (read_shard_member(r, &member, s, err) < 0)
			return -1;
	if (ret < 0)
		return -1;
	if (s->count == 0 || s->index >= s->count || s->hasher[0] == '\0')
		return err_set(err, ERR_INVALID,
			       "hasher \"%s\", index %u of count %u: no such shard", s->hasher,
			       s->index, s->count);
	return 0;
}

/* 16 hex digits per bloom. More than are kept: as if it was not said. */
static int read_sums(const struct json_value *v, struct block_meta *m, struct err *err)
{
	size_t n = v->text.n / SUM_DIGITS;
	uint8_t raw[8];

	if (want(v, JSON_STRING, err) < 0)
		return -1;
	m->n_bloom_sums = 0;
	for (size_t i = 0; i < n; i++) {
		struct bytes digits = { v->text.p + i * SUM_DIGITS, SUM_DIGITS };

		if (str_unhex(digits, raw, sizeof(raw)) < 0)
			break;
		if (i < BLOCK_META_BLOOM_SUMS)
			m->bloom_sums[i] = load_be64(raw);
		m->n_bloom_sums++;
	}
	if (m->n_bloom_sums != n || v->text.n % SUM_DIGITS != 0)
		return err_set(err, ERR_INVALID, "\"%.*s\" is not 16 hex digits per bloom",
			       (int)MIN(v->text.n, 40), (const char *)v->text.p);
	if (n > BLOCK_META_BLOOM_SUMS)
		m->n_bloom_sums = 0;
	return 0;
}

/* As it stands there. Of another kind than Tempo's: passed over. */
static int read_columns(struct json_reader *r, const struct json_value *v, const char **to,
			struct err *err)
{
	if (json_reader_skip(r, v, err) < 0)
		return -1;
	if (v->kind == JSON_ARRAY)
		*to = block_columns_intern(
			(struct bytes){ r->start + v->off, (size_t)(r->p - (r->start + v->off)) });
	return 0;
}

static int read_value(struct json_reader *r, const struct json_value *v, enum kind kind, void *to,
		      struct err *err)
{
	switch (kind) {
	case NAME:
		return read_name(v, to, err);
	case UUID:
		return read_uuid(v, to, err);
	case TENANT:
		return read_tenant(v, to, err);
	case TRACE_ID:
		return read_trace_id(v, to, err);
	case TIME:
		return read_time(v, to, err);
	case U32:
		return read_u32(v, to, err);
	case U63:
		return read_number(v, INT64_MAX, to, err);
	case U64:
		return read_number(v, UINT64_MAX, to, err);
	case ENCODING:
		return want(v, JSON_STRING, err) < 0 ? -1 : codec_parse(v->text, to, err);
	case COLUMNS:
		return read_columns(r, v, to, err);
	case SHARD:
		return read_shard(r, v, to, err);
	case SUMS:
		return read_sums(v, CONTAINER_OF(to, struct block_meta, bloom_sums), err);
	}
	return -1;
}

static int read_member(struct json_reader *r, const struct json_value *v, struct block_meta *m,
		       struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		void *to = (char *)m + keys[i].at;

		if (!str_eq_nocase(v->key, keys[i].key))
			continue;
		if (v->kind == JSON_NULL)
			return 0;
		if (read_value(r, v, keys[i].kind, to, err) < 0)
			return err_wrap(err, "%s", keys[i].key);
		m->has_min_id |= to == m->min_id;
		m->has_max_id |= to == m->max_id;
		return 0;
	}
	return json_reader_skip(r, v, err);
}

int block_meta_decode(struct json_reader *r, struct block_meta *m, struct err *err)
{
	struct json_value v;
	const char *missing = NULL;
	int ret = 0;

	block_meta_init(m);
	while ((ret = json_reader_member(r, &v, err)) == 1)
		if (read_member(r, &v, m, err) < 0)
			return -1;
	if (ret < 0)
		return -1;
	missing = m->format[0] == '\0'   ? "format"
		  : m->id[0] == '\0'     ? "blockID"
		  : m->tenant[0] == '\0' ? "tenantID"
					 : NULL;
	if (missing != NULL)
		return err_set(err, ERR_INVALID, "%s: is missing", missing);
	return 0;
}

int block_meta_parse(struct bytes json, struct block_meta *m, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value v;
	int ret = -1;

	if (json.n > BLOCK_META_MAX)
		return err_set(err, ERR_INVALID, "meta.json: %zu bytes, the limit is %d", json.n,
			       BLOCK_META_MAX);
	json_reader_init(&r, json, &arena);
	if (json_reader_value(&r, &v, err) < 0 || want(&v, JSON_OBJECT, err) < 0 ||
	    block_meta_decode(&r, m, err) < 0 || json_reader_end(&r, err) < 0)
		err_wrap(err, "meta.json");
	else
		ret = 0;
	arena_fini(&arena);
	return ret;
}

/* ---- writing ---- */

static void put_str(struct json_writer *w, const char *key, const char *v)
{
	json_writer_key(w, key);
	json_writer_str(w, v);
}

static void put_u64(struct json_writer *w, const char *key, uint64_t v)
{
	json_writer_key(w, key);
	json_writer_u64(w, v);
}

static void put_time(struct json_writer *w, const char *key, struct block_time t)
{
	char text[BLOCK_TIME_TEXT];

	block_time_format(t, text);
	put_str(w, key, text);
}

static void put_id(struct json_writer *w, const char *key, const uint8_t id[PAGE_ID])
{
	json_writer_key(w, key);
	json_writer_base64(w, (struct bytes){ id, PAGE_ID });
}

static void put_shard(struct json_writer *w, const struct block_shard *s)
{
	json_writer_key(w, "shard");
	json_writer_object(w);
	put_str(w, "hasher", s->hasher);
	put_u64(w, "count", s->count);
	put_u64(w, "index", s->index);
	json_writer_object_end(w);
}

static void put_sums(struct json_writer *w, const struct block_meta *m)
{
	char text[SUM_DIGITS * BLOCK_META_BLOOM_SUMS + 1] = "";

	for (uint32_t i = 0; i < m->n_bloom_sums; i++)
		snprintf(text + i * SUM_DIGITS, SUM_DIGITS + 1, "%016llx",
			 (unsigned long long)m->bloom_sums[i]);
	put_str(w, "bloomXXH64", text);
}

/* What Tempo does not know. */
static void put_ours(struct json_writer *w, const struct block_meta *m)
{
	if (m->shard.count != 0)
		put_shard(w, &m->shard);
	if (m->n_bloom_sums > 0)
		put_sums(w, m);
	if (m->ingested_at.s != BLOCK_TIME_NONE_S)
		put_time(w, "ingestedAt", m->ingested_at);
}

void block_meta_encode(const struct block_meta *m, struct json_writer *w)
{
	json_writer_object(w);
	put_str(w, "format", m->format);
	put_str(w, "blockID", m->id);
	if (m->has_min_id)
		put_id(w, "minID", m->min_id);
	if (m->has_max_id)
		put_id(w, "maxID", m->max_id);
	put_str(w, "tenantID", m->tenant);
	put_time(w, "startTime", m->start);
	put_time(w, "endTime", m->end);
	put_u64(w, "totalObjects", m->objects);
	if (m->size != 0)
		put_u64(w, "size", m->size);
	put_u64(w, "compactionLevel", m->compaction_level);
	put_str(w, "encoding", codec_name(m->encoding));
	put_u64(w, "indexPageSize", m->index_page_size);
	put_u64(w, "totalRecords", m->records);
	put_str(w, "dataEncoding", m->data_encoding);
	put_u64(w, "bloomShards", m->bloom_shards);
	put_u64(w, "footerSize", m->footer_size);
	if (m->columns != NULL) {
		json_writer_key(w, "dedicatedColumns");
		json_writer_raw(w, bytes_str(m->columns));
	}
	if (m->replication_factor != 0)
		put_u64(w, "replicationFactor", m->replication_factor);
	if (m->compacted_at.s != BLOCK_TIME_NONE_S)
		put_time(w, "compactedTime", m->compacted_at);
	put_ours(w, m);
	json_writer_object_end(w);
}

/* ---- checks ---- */

/* murmur2: the partition that a Java producer chooses for the key, which is the id as 32 lower-case
 * hex digits. */
bool block_shard_may_hold(const struct block_shard *s, const uint8_t id[PAGE_ID])
{
	char hex[2 * PAGE_ID + 1];

	if (s->count == 0 || strcmp(s->hasher, "murmur2") != 0)
		return true;
	str_hex(id, PAGE_ID, hex);
	return (hash_murmur2(hex, 2 * PAGE_ID) & INT32_MAX) % s->count == s->index;
}

uint32_t block_meta_bloom_shards(const struct block_meta *m)
{
	return m->bloom_shards ? m->bloom_shards : BLOCK_META_LEGACY_SHARDS;
}

int block_meta_check_v2(const struct block_meta *m, struct err *err)
{
	if (strcmp(m->format, "v2") != 0)
		return err_set(err, ERR_UNIMPLEMENTED, "format \"%s\": only v2 can be read",
			       m->format);
	if (m->records == 0 && (m->objects > 0 || m->size > 0))
		return err_set(err, ERR_INVALID,
			       "totalRecords is 0, but totalObjects %llu and size %llu",
			       (unsigned long long)m->objects, (unsigned long long)m->size);
	return block_index_page_size_check(m->index_page_size, err);
}
