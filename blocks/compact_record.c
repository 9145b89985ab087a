/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_record.c - see compact_record.h.
 */
#include "blocks/compact_record.h"

#include "base/mem.h"
#include "base/str.h"
#include "blocks/sealed_json.h"

enum { RECORD_BYTES_MAX = 16 * 1024 * 1024, DIGITS = 20 };

int compact_record_folder(char out[BACKEND_KEY_MAX + 1], const char *tenant, struct err *err)
{
	return backend_key(out, err, COMPACT_RECORDS "/%s", tenant);
}

int compact_record_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, uint64_t number,
		       struct err *err)
{
	return backend_key(out, err, COMPACT_RECORDS "/%s/%020llu.json", tenant,
			   (unsigned long long)number);
}

bool compact_record_number(const char *key, uint64_t *number)
{
	const char *name = strrchr(key, '/');

	if (name == NULL || strlen(++name) != DIGITS + 5 || strcmp(name + DIGITS, ".json") != 0)
		return false;
	return str_to_u64((struct bytes){ (const uint8_t *)name, DIGITS }, number) == 0 &&
	       *number > 0 && *number < UINT64_MAX;
}

/* ---- writing ---- */

static void put_str(struct json_writer *w, const char *key, const char *v)
{
	json_writer_key(w, key);
	json_writer_str(w, v);
}

void compact_record_encode(const struct compact_record *r, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	char created[BLOCK_TIME_TEXT];

	block_time_format(r->created_at, created);
	json_writer_object(&w);
	json_writer_key(&w, "number");
	json_writer_u64(&w, r->number);
	put_str(&w, "id", r->id);
	put_str(&w, "previous", r->previous);
	put_str(&w, "createdAt", created);
	json_writer_key(&w, "inputs");
	json_writer_array(&w);
	for (size_t i = 0; i < r->n_inputs; i++)
		json_writer_str(&w, r->inputs[i]);
	json_writer_array_end(&w);
	json_writer_key(&w, "outputs");
	json_writer_array(&w);
	for (size_t i = 0; i < r->n_outputs; i++)
		block_meta_encode(&r->outputs[i], &w);
	json_writer_array_end(&w);
	json_writer_object_end(&w);
	sealed_json_close(out);
}

/* ---- reading ---- */

static int bad(struct err *err, const char *what)
{
	return err_set(err, ERR_CORRUPT, "compaction record: %s", what);
}

static int take_id(const struct json_value *v, char to[COMPACT_ID], struct err *err)
{
	if (v->kind != JSON_STRING || (v->text.n != COMPACT_ID - 1 && v->text.n != 0) ||
	    memchr(v->text.p, 0, v->text.n) != NULL || memchr(v->text.p, '/', v->text.n) != NULL)
		return bad(err, "not an id");
	memcpy(to, v->text.p, v->text.n);
	to[v->text.n] = '\0';
	return 0;
}

static int take_inputs(struct json_reader *r, struct compact_record *rec, struct err *err)
{
	struct json_value v;
	int got;

	rec->inputs = xcalloc(COMPACT_RECORD_MAX, sizeof(*rec->inputs));
	while ((got = json_reader_element(r, &v, err)) > 0) {
		if (rec->n_inputs == COMPACT_RECORD_MAX)
			return bad(err, "too many inputs");
		if (take_id(&v, rec->inputs[rec->n_inputs++], err) < 0)
			return -1;
	}
	return got;
}

static int take_outputs(struct json_reader *r, struct compact_record *rec, struct err *err)
{
	struct json_value v;
	int got;

	rec->outputs = xcalloc(COMPACT_RECORD_MAX, sizeof(*rec->outputs));
	while ((got = json_reader_element(r, &v, err)) > 0) {
		if (rec->n_outputs == COMPACT_RECORD_MAX || v.kind != JSON_OBJECT)
			return bad(err, "too many outputs, or one is no object");
		if (block_meta_decode(r, &rec->outputs[rec->n_outputs], err) < 0)
			return -1;
		rec->n_outputs++;
	}
	return got;
}

static int take_member(struct json_reader *r, const struct json_value *v,
		       struct compact_record *rec, struct err *err)
{
	if (JSON_KEY_IS(v, "number"))
		return json_reader_u64(v, &rec->number);
	if (JSON_KEY_IS(v, "id"))
		return take_id(v, rec->id, err);
	if (JSON_KEY_IS(v, "previous"))
		return take_id(v, rec->previous, err);
	if (JSON_KEY_IS(v, "createdAt") && v->kind == JSON_STRING)
		return block_time_parse(v->text, &rec->created_at, err);
	if (JSON_KEY_IS(v, "inputs") && v->kind == JSON_ARRAY && rec->inputs == NULL)
		return take_inputs(r, rec, err);
	if (JSON_KEY_IS(v, "outputs") && v->kind == JSON_ARRAY && rec->outputs == NULL)
		return take_outputs(r, rec, err);
	return json_reader_skip(r, v, err);
}

static int check(const struct compact_record *rec, const char *tenant, uint64_t number,
		 struct err *err)
{
	if (rec->number != number)
		return bad(err, "has another number than its key");
	if (rec->id[0] == '\0' || rec->n_inputs == 0)
		return bad(err, "has no id, or no inputs");
	for (size_t i = 0; i < rec->n_outputs; i++)
		if (strcmp(rec->outputs[i].tenant, tenant) != 0)
			return bad(err, "has an output of another tenant");
	return 0;
}

int compact_record_decode(struct bytes json, const char *tenant, uint64_t number,
			  struct compact_record *rec, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value v;
	int got = -1;

	memset(rec, 0, sizeof(*rec));
	json_reader_init(&r, json, &arena);
	bad(err, "not a sealed object");
	if (sealed_json_has_crc(json) && sealed_json_is_right(json) &&
	    json_reader_value(&r, &v, err) == 0 && v.kind == JSON_OBJECT) {
		while ((got = json_reader_member(&r, &v, err)) > 0)
			if (take_member(&r, &v, rec, err) < 0) {
				got = -1;
				break;
			}
		if (got == 0)
			got = json_reader_end(&r, err);
		if (got == 0)
			got = check(rec, tenant, number, err);
	}
	if (got == 0)
		err_clear(err);
	else if (err != NULL)
		err->kind = ERR_CORRUPT;
	arena_fini(&arena);
	return got < 0 ? -1 : 0;
}

/* ---- the store ---- */

int compact_record_put(struct backend *be, const char *tenant, const struct compact_record *r,
		       struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret;

	if (compact_record_key(key, tenant, r->number, err) < 0)
		return -1;
	compact_record_encode(r, &json);
	ret = backend_put(be, key, buf_bytes(&json), BACKEND_IF_NONE_MATCH, err);
	buf_fini(&json);
	return ret;
}

int compact_record_read(struct backend *be, const char *tenant, uint64_t number,
			struct compact_record *r, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret = -1;

	memset(r, 0, sizeof(*r));
	if (compact_record_key(key, tenant, number, err) == 0 &&
	    backend_read(be, key, RECORD_BYTES_MAX, &json, err) == 0)
		ret = compact_record_decode(buf_bytes(&json), tenant, number, r, err);
	buf_fini(&json);
	return ret;
}

void compact_record_fini(struct compact_record *r)
{
	free(r->inputs);
	free(r->outputs);
	memset(r, 0, sizeof(*r));
}
