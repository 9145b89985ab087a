/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_write.c - see zipkin_write.h.
 */
#include "wire/zipkin_write.h"

#include "wire/json_writer.h"
#include "wire/pb.h"

#include <arpa/inet.h>

static bool is_zero(const uint8_t *id, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= id[i];
	return any == 0;
}

static bool is_there(const struct zipkin_span_endpoint *ep)
{
	return ep->service.n > 0 || ep->ip_len > 0 || ep->port > 0;
}

static bool has_parent(const struct zipkin_span *sp)
{
	return !is_zero(sp->parent_id, 8) && memcmp(sp->parent_id, sp->id, 8) != 0;
}

/* ---- JSON ---- */

static void json_endpoint(struct json_writer *w, const char *key,
			  const struct zipkin_span_endpoint *ep)
{
	char text[INET6_ADDRSTRLEN];

	if (!is_there(ep))
		return;
	json_writer_key(w, key);
	json_writer_object(w);
	if (ep->service.n > 0) {
		json_writer_key(w, "serviceName");
		json_writer_bytes(w, ep->service);
	}
	if (ep->has_ipv4) {
		json_writer_key(w, "ipv4");
		json_writer_bytes(w, zipkin_span_ipv4_text(ep, text));
	}
	if (ep->ip_len > 0) {
		json_writer_key(w, ep->ip_len == 4 ? "ipv4" : "ipv6");
		json_writer_bytes(w, zipkin_span_ip_text(ep, text));
	}
	if (ep->port > 0) {
		json_writer_key(w, "port");
		json_writer_u64(w, ep->port);
	}
	json_writer_object_end(w);
}

static void json_ids(struct json_writer *w, const struct zipkin_span *sp)
{
	size_t skip = is_zero(sp->trace_id, 8) ? 8 : 0;

	json_writer_key(w, "traceId");
	json_writer_hex(w, (struct bytes){ sp->trace_id + skip, 16 - skip });
	if (has_parent(sp)) {
		json_writer_key(w, "parentId");
		json_writer_hex(w, (struct bytes){ sp->parent_id, 8 });
	}
	json_writer_key(w, "id");
	json_writer_hex(w, (struct bytes){ sp->id, 8 });
}

static void json_scalars(struct json_writer *w, const struct zipkin_span *sp)
{
	static const char *const kinds[] = { [ZIPKIN_KIND_SERVER] = "SERVER",
					     [ZIPKIN_KIND_CLIENT] = "CLIENT",
					     [ZIPKIN_KIND_PRODUCER] = "PRODUCER",
					     [ZIPKIN_KIND_CONSUMER] = "CONSUMER" };

	if (sp->kind != ZIPKIN_KIND_NONE) {
		json_writer_key(w, "kind");
		json_writer_str(w, kinds[sp->kind]);
	}
	if (sp->name.n > 0) {
		json_writer_key(w, "name");
		json_writer_bytes(w, sp->name);
	}
	if (sp->timestamp_us > 0) {
		json_writer_key(w, "timestamp");
		json_writer_u64(w, sp->timestamp_us);
	}
	if (sp->duration_us > 0) {
		json_writer_key(w, "duration");
		json_writer_u64(w, sp->duration_us);
	}
}

static void json_lists(struct json_writer *w, const struct zipkin_span *sp)
{
	if (sp->n_annotations > 0) {
		json_writer_key(w, "annotations");
		json_writer_array(w);
		for (size_t i = 0; i < sp->n_annotations; i++) {
			json_writer_object(w);
			json_writer_key(w, "timestamp");
			json_writer_u64(w, sp->annotations[i].timestamp_us);
			json_writer_key(w, "value");
			json_writer_bytes(w, sp->annotations[i].value);
			json_writer_object_end(w);
		}
		json_writer_array_end(w);
	}
	if (sp->n_tags > 0) {
		json_writer_key(w, "tags");
		json_writer_object(w);
		for (size_t i = 0; i < sp->n_tags; i++) {
			json_writer_key_bytes(w, sp->tags[i].key);
			json_writer_bytes(w, sp->tags[i].value);
		}
		json_writer_object_end(w);
	}
}

void zipkin_write_json(const struct zipkin_span *sp, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);

	json_writer_object(&w);
	json_ids(&w, sp);
	json_scalars(&w, sp);
	json_endpoint(&w, "localEndpoint", &sp->local);
	json_endpoint(&w, "remoteEndpoint", &sp->remote);
	json_lists(&w, sp);
	if (sp->debug) {
		json_writer_key(&w, "debug");
		json_writer_bool(&w, true);
	}
	if (sp->shared) {
		json_writer_key(&w, "shared");
		json_writer_bool(&w, true);
	}
	json_writer_object_end(&w);
}

/* ---- protobuf ---- */

static void proto_endpoint(struct buf *out, uint32_t number, const struct zipkin_span_endpoint *ep)
{
	size_t mark;

	if (!is_there(ep))
		return;
	mark = pb_begin(out, number);
	if (ep->service.n > 0)
		pb_put_bytes(out, 1, ep->service);
	if (ep->has_ipv4)
		pb_put_bytes(out, 2, (struct bytes){ ep->ipv4, 4 });
	if (ep->ip_len > 0)
		pb_put_bytes(out, ep->ip_len == 4 ? 2 : 3, (struct bytes){ ep->ip, ep->ip_len });
	if (ep->port > 0)
		pb_put_uint(out, 4, ep->port);
	pb_end(out, mark);
}

static void proto_lists(struct buf *out, const struct zipkin_span *sp)
{
	for (size_t i = 0; i < sp->n_annotations; i++) {
		size_t mark = pb_begin(out, 10);

		pb_put_fixed64(out, 1, sp->annotations[i].timestamp_us);
		pb_put_bytes(out, 2, sp->annotations[i].value);
		pb_end(out, mark);
	}
	for (size_t i = 0; i < sp->n_tags; i++) {
		size_t mark = pb_begin(out, 11);

		pb_put_bytes(out, 1, sp->tags[i].key);
		pb_put_bytes(out, 2, sp->tags[i].value);
		pb_end(out, mark);
	}
}

void zipkin_write_proto(const struct zipkin_span *sp, struct buf *out)
{
	static const uint8_t kinds[] = { [ZIPKIN_KIND_CLIENT] = 1,
					 [ZIPKIN_KIND_SERVER] = 2,
					 [ZIPKIN_KIND_PRODUCER] = 3,
					 [ZIPKIN_KIND_CONSUMER] = 4 };
	size_t mark = pb_begin(out, 1);

	pb_put_bytes(out, 1, (struct bytes){ sp->trace_id, 16 });
	if (has_parent(sp))
		pb_put_bytes(out, 2, (struct bytes){ sp->parent_id, 8 });
	pb_put_bytes(out, 3, (struct bytes){ sp->id, 8 });
	if (sp->kind != ZIPKIN_KIND_NONE)
		pb_put_uint(out, 4, kinds[sp->kind]);
	if (sp->name.n > 0)
		pb_put_bytes(out, 5, sp->name);
	if (sp->timestamp_us > 0)
		pb_put_fixed64(out, 6, sp->timestamp_us);
	if (sp->duration_us > 0)
		pb_put_uint(out, 7, sp->duration_us);
	proto_endpoint(out, 8, &sp->local);
	proto_endpoint(out, 9, &sp->remote);
	proto_lists(out, sp);
	if (sp->debug)
		pb_put_uint(out, 12, 1);
	if (sp->shared)
		pb_put_uint(out, 13, 1);
	pb_end(out, mark);
}
