/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_json.c - whatever the reader takes, the writer must write so that the reader takes it again,
 * equally; skipping must judge as walking does; numbers must not trip.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_numbers(const struct json_value *v)
{
	uint64_t u = 0;
	int64_t i = 0;
	double d = 0;

	if (json_reader_u64(v, &u) == 0 && u <= (uint64_t)INT64_MAX)
		assert(json_reader_i64(v, &i) == 0 && (uint64_t)i == u);
	(void)(json_reader_double(v, &d) == 0);
}

static int copy_value(struct json_reader *r, const struct json_value *v, struct json_writer *w)
{
	struct json_value inner;
	int rc = 0;

	try_numbers(v);
	switch (v->kind) {
	case JSON_NULL:
		json_writer_null(w);
		break;
	case JSON_FALSE:
	case JSON_TRUE:
		json_writer_bool(w, v->kind == JSON_TRUE);
		break;
	case JSON_NUMBER:
		json_writer_raw(w, v->text);
		break;
	case JSON_STRING:
		json_writer_bytes(w, v->text);
		break;
	case JSON_ARRAY:
		json_writer_array(w);
		while ((rc = json_reader_element(r, &inner, NULL)) > 0)
			if (copy_value(r, &inner, w) < 0)
				return -1;
		json_writer_array_end(w);
		break;
	case JSON_OBJECT:
		json_writer_object(w);
		while ((rc = json_reader_member(r, &inner, NULL)) > 0) {
			json_writer_key_bytes(w, inner.key);
			if (copy_value(r, &inner, w) < 0)
				return -1;
		}
		json_writer_object_end(w);
		break;
	}
	return rc;
}

static int copy_text(struct bytes in, bool lax, bool walk, struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct json_writer w = JSON_WRITER(out);
	struct json_reader r;
	struct json_value v;
	int rc = -1;

	json_reader_init(&r, in, &a);
	r.keep_bad_utf8 = lax;
	if (json_reader_value(&r, &v, NULL) == 0)
		rc = walk ? copy_value(&r, &v, &w) : json_reader_skip(&r, &v, NULL);
	if (rc == 0)
		rc = json_reader_end(&r, NULL);
	arena_fini(&a);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int lax = 0; lax < 2; lax++) {
		struct buf once = BUF_INIT, twice = BUF_INIT, none = BUF_INIT;
		int rc = copy_text((struct bytes){ data, size }, lax, true, &once);

		assert(copy_text((struct bytes){ data, size }, lax, false, &none) == rc);
		if (rc == 0) {
			assert(copy_text(buf_bytes(&once), false, true, &twice) == 0);
			assert(bytes_eq(buf_bytes(&once), buf_bytes(&twice)));
		}
		buf_fini(&once);
		buf_fini(&twice);
		buf_fini(&none);
	}
	return 0;
}
