/* SPDX-License-Identifier: Apache-2.0
 *
 * content_coding.h - whole bodies in and out of gzip, deflate, zstd, snappy and lz4, with every
 * bound said by the caller.
 *
 * Used for HTTP Content-Encoding and for gRPC messages. Any thread; (de)compressors are kept per
 * thread.
 */
#ifndef NET_CONTENT_CODING_H
#define NET_CONTENT_CODING_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rcbuf.h"

enum content_coding {
	CONTENT_IDENTITY,
	CONTENT_GZIP,    /* RFC 1952, several members allowed */
	CONTENT_DEFLATE, /* RFC 1950; raw RFC 1951 is understood, as browsers do */
	CONTENT_ZSTD,    /* RFC 8878, several frames allowed */
	CONTENT_SNAPPY,  /* block or framed, told apart by the first bytes; written as a block */
	CONTENT_SNAPPY_FRAMED, /* the same, written framed */
	CONTENT_LZ4,           /* frames, several allowed */
};

/* The coding a Content-Encoding or grpc-encoding value names (any case, spaces around; empty is
 * identity). 0, or -1 for an unknown name or a list of several codings. */
int content_coding_parse(struct bytes name, enum content_coding *coding);
/* The name to put in a header; never NULL. */
const char *content_coding_name(enum content_coding coding);
/* Does an Accept-Encoding value (RFC 9110 12.5.3) allow gzip? q=0 says no. */
bool content_coding_accepts_gzip(struct bytes accept_encoding);

/* Inflate `in` into *out (returns new ref; NULL on error), at most max_out bytes. Memory is charged
 * to budget (may be NULL) before it is written and grows with what the input really holds, whatever
 * its header promises: no buffer larger than max_out is ever asked for. Identity is a copy. Errors:
 * INVALID damaged, cut short or followed by junk; TOO_LARGE over max_out, or over what an otherwise
 * empty budget could hold beside `in`; EXHAUSTED the budget refused. */
int content_decode(enum content_coding coding, struct bytes in, size_t max_out,
		   struct budget *budget, struct rcbuf **out, struct err *err);

/* The same of a body from outside: it may also not hold more than max_ratio times its own bytes (0:
 * any), unless that is less than CONTENT_RATIO_FREE. More is TOO_LARGE. Deflate cannot exceed 1,032
 * (RFC 1951: 258 bytes for two bits), spans with random ids stay below 100. */
enum { CONTENT_RATIO_FREE = 65536, CONTENT_RATIO_DEFAULT = 1100 };
struct content_bounds {
	size_t max_out;
	unsigned max_ratio;
};
int content_decode_bounded(enum content_coding coding, struct bytes in,
			   const struct content_bounds *bounds, struct budget *budget,
			   struct rcbuf **out, struct err *err);

/* Append the compressed form of `in` to out. level 1 (fast) to 9, 0 = the coding's default; snappy
 * and lz4 have none. Fails with TOO_LARGE only when out has a cap. */
int content_encode(enum content_coding coding, int level, struct bytes in, struct buf *out,
		   struct err *err);

#endif
