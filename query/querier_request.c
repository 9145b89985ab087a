/* SPDX-License-Identifier: Apache-2.0
 *
 * querier_request.c - see querier_request.h.
 */
#include "query/querier_request.h"

#include "base/clock.h"
#include "base/str.h"

static int parse_mode(const char *mode, struct store_scope *s, struct err *err)
{
	if (mode == NULL || *mode == '\0' || strcmp(mode, "all") == 0)
		return 0;
	if (strcmp(mode, "ingesters") == 0 || strcmp(mode, "recent") == 0)
		s->blocks = false;
	else if (strcmp(mode, "blocks") == 0)
		s->live = false;
	else
		return err_set(err, ERR_INVALID, "mode \"%.32s\": must be all, ingesters or blocks",
			       mode);
	return 0;
}

static int parse_border(struct http_request *req, const char *name, uint8_t id[16], struct err *err)
{
	const char *text = http_request_param(req, name);

	if (text == NULL || *text == '\0')
		return 0;
	return block_meta_id_bytes(text, id, err) < 0 ? err_wrap(err, "%s", name) : 0;
}

static int parse_age(struct http_request *req, struct store_scope *s, struct err *err)
{
	const char *text = http_request_param(req, "maxListAge");
	uint64_t ms;

	if (text == NULL || *text == '\0')
		return 0;
	if (str_to_u64(bytes_str(text), &ms) < 0)
		return err_set(err, ERR_INVALID, "maxListAge \"%.32s\": not a number", text);
	if (ms < req->received_ns / NS_PER_MS)
		s->listed_since_ns = req->received_ns - ms * NS_PER_MS;
	return 0;
}

int querier_request_parse(struct http_request *req, struct trace_request *r, struct err *err)
{
	r->is_internal = true;
	r->is_leaf = http_request_header(req, PEER_LEAF_HEADER) != NULL;
	if (parse_mode(http_request_param(req, "mode"), &r->scope, err) < 0 ||
	    parse_border(req, "blockStart", r->scope.first, err) < 0 ||
	    parse_border(req, "blockEnd", r->scope.last, err) < 0)
		return -1;
	return parse_age(req, &r->scope, err);
}
