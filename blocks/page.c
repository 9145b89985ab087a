/* SPDX-License-Identifier: Apache-2.0
 *
 * page.c - see page.h.
 */
#include "blocks/page.h"

#include "base/str.h"

void page_head_store(uint8_t to[PAGE_HEAD], uint32_t total, uint16_t header_len)
{
	store_le32(to, total);
	store_le16(to + 4, header_len);
}

int page_total(struct bytes head, uint16_t header_len, uint32_t *total, struct err *err)
{
	uint16_t have = 0;

	if (head.n < PAGE_HEAD)
		return err_set(err, ERR_CORRUPT, "page head: only %zu of 6 bytes", head.n);
	*total = load_le32(head.p);
	have = load_le16(head.p + 4);
	if (have != header_len)
		return err_set(err, ERR_CORRUPT, "page header length %u: must be %u", have,
			       header_len);
	if (*total < (uint32_t)PAGE_HEAD + header_len)
		return err_set(err, ERR_CORRUPT, "page total length %u: less than its own head",
			       *total);
	return 0;
}

int page_split(struct bytes page, uint16_t header_len, struct bytes *header, struct bytes *body,
	       struct err *err)
{
	uint32_t total = 0;

	if (page_total(page, header_len, &total, err) < 0)
		return -1;
	if (total != page.n)
		return err_set(err, ERR_CORRUPT, "page total length %u: the page has %zu bytes",
			       total, page.n);
	if (header != NULL)
		*header = (struct bytes){ page.p + PAGE_HEAD, header_len };
	*body = (struct bytes){ page.p + PAGE_HEAD + header_len, page.n - PAGE_HEAD - header_len };
	return 0;
}

void page_object_head_store(uint8_t to[PAGE_OBJECT_HEAD + PAGE_ID], const uint8_t id[PAGE_ID],
			    uint32_t n)
{
	store_le32(to, PAGE_OBJECT_HEAD + PAGE_ID + n);
	store_le32(to + 4, PAGE_ID);
	memcpy(to + PAGE_OBJECT_HEAD, id, PAGE_ID);
}

int page_object_next(struct bytes *body, struct page_object *o, struct err *err)
{
	uint32_t total = 0, id_len = 0;

	if (body->n == 0)
		return 0;
	if (body->n < PAGE_OBJECT_HEAD)
		return err_set(err, ERR_CORRUPT, "object head: only %zu of 8 bytes", body->n);
	total = load_le32(body->p);
	id_len = load_le32(body->p + 4);
	if (total > body->n)
		return err_set(err, ERR_CORRUPT, "object total length %u: only %zu bytes left",
			       total, body->n);
	if (id_len != PAGE_ID)
		return err_set(err, ERR_CORRUPT, "object id length %u: must be 16", id_len);
	if (total < PAGE_OBJECT_HEAD + PAGE_ID)
		return err_set(err, ERR_CORRUPT, "object total length %u: less than its head",
			       total);
	o->id = body->p + PAGE_OBJECT_HEAD;
	o->data.p = o->id + PAGE_ID;
	o->data.n = total - PAGE_OBJECT_HEAD - PAGE_ID;
	body->p += total;
	body->n -= total;
	return 1;
}

static int out_of_order(const uint8_t *id, const uint8_t *prev, struct err *err)
{
	char a[2 * PAGE_ID + 1], b[2 * PAGE_ID + 1];

	str_hex(id, PAGE_ID, a);
	str_hex(prev, PAGE_ID, b);
	return err_set(err, ERR_CORRUPT, "object %s: not above the one before it, %s", a, b);
}

int page_find(struct bytes body, const uint8_t id[PAGE_ID], const uint8_t *last_id,
	      struct page_object *o, struct err *err)
{
	struct page_object each = { NULL, { NULL, 0 } };
	const uint8_t *prev = NULL;
	int ret = 0, found = 0;

	while ((ret = page_object_next(&body, &each, err)) == 1) {
		if (prev != NULL && memcmp(prev, each.id, PAGE_ID) >= 0)
			return out_of_order(each.id, prev, err);
		prev = each.id;
		if (memcmp(each.id, id, PAGE_ID) == 0) {
			*o = each;
			found = 1;
		}
	}
	if (ret < 0)
		return -1;
	if (last_id != NULL && (prev == NULL || memcmp(prev, last_id, PAGE_ID) != 0))
		return err_set(err, ERR_CORRUPT,
			       "page does not end with the id its index record names");
	return found;
}
