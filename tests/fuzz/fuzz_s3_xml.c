/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_s3_xml.c - whatever a store, STS, a metadata service or a credentials file says: no crash,
 * and what is taken has the form the headers promise.
 */
#include "blocks/s3_answer.h"
#include "blocks/s3_key_sources.h"
#include "blocks/s3_profile.h"
#include "wire/xml_reader.h"

static int see_upload(void *arg, const struct s3_pending_upload *u, struct err *err)
{
	(void)arg, (void)err;
	assert(u->key[0] != '\0' && u->id[0] != '\0' && u->begun_ns > 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Opens and closes pair up, and the depth is that of what is open. */
static void try_reader(struct bytes in)
{
	struct xml_reader r;
	struct xml_item item;
	unsigned depth = 0, n_open = 0;
	int got;

	xml_reader_init(&r, in);
	while ((got = xml_reader_next(&r, &item, NULL)) > 0) {
		assert(item.name.p >= in.p && item.name.p + item.name.n <= in.p + in.n);
		if (item.kind == XML_OPEN) {
			assert(item.depth == ++depth && depth <= XML_DEPTH_MAX);
			n_open++;
		} else {
			assert(item.depth == depth-- && item.text.n <= in.n);
		}
	}
	assert(got < 0 || (depth == 0 && n_open > 0));
	xml_reader_fini(&r);
}

static void try_listing(struct bytes in)
{
	struct s3_listing l;

	if (s3_answer_listing(in, &l, NULL) == 0) {
		assert(!l.is_truncated || l.token[0] != '\0');
		for (size_t i = 0; i < l.n; i++) {
			assert(strlen(l.entries[i].key) <= in.n);
			assert(i == 0 || strcmp(l.entries[i - 1].key, l.entries[i].key) <= 0);
		}
	}
	s3_listing_fini(&l);
}

static void try_keys(struct bytes in)
{
	struct s3_keys k;

	if (s3_answer_assumed_role(in, &k, NULL) == 0)
		assert(k.access_key[0] && k.secret_key[0] && k.session_token[0]);
	if (s3_keys_from_json(in, &k, NULL) == 0)
		assert(k.access_key[0] && k.secret_key[0]);
	if (s3_profile_read(in, "default", &k, NULL) > 0)
		assert(k.access_key[0] && k.secret_key[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in = { data, size };
	char id[S3_UPLOAD_ID_SIZE];
	struct s3_error e;

	try_reader(in);
	try_listing(in);
	try_keys(in);
	s3_answer_uploads(in, see_upload, NULL, NULL);
	s3_answer_is_completed(in);
	if (s3_answer_error(in, &e))
		assert(strlen(e.code) < sizeof(e.code));
	if (s3_answer_upload_id(in, id, NULL) == 0)
		assert(id[0] != '\0');
	return 0;
}
