/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h - where blocks live: objects under '/'-joined keys, on a local disk or in a bucket.
 *
 * DESIGN: a vtable. These functions check the key, call the implementation and put the key in front
 * of its error; an implementation (backend_local.h, backend_s3.h) sees legal keys only.
 *   put, writer    an object appears whole or not at all, and is durable when the call returns 0
 *   IF_NONE_MATCH  of all who put the same key, one wins and the others get EXISTS: what sections
 *                  commit with. Over a network EXISTS may also mean that one's own put succeeded
 *                  and its answer was lost: who must know reads the winner
 *   list           one level (sub-folders as prefixes) or everything below; never shows unfinished
 *                  objects
 * THREADS: a struct backend may be used from any thread, its calls block on I/O; a writer belongs
 * to one thread at a time.
 * LIMITS: keys of 1..1024 bytes, segments of 1..255; no empty segment, ".", "..", control byte or
 * backslash.
 * ERRORS: NOT_FOUND, EXISTS, TOO_LARGE, CORRUPT (short range), UNAVAILABLE and TIMEOUT (retryable,
 * network only), IO.
 */
#ifndef BLOCKS_BACKEND_H
#define BLOCKS_BACKEND_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum { BACKEND_KEY_MAX = 1024, BACKEND_SEGMENT_MAX = 255, BACKEND_ETAG_SIZE = 128 };

enum backend_put_mode {
	BACKEND_REPLACE,
	BACKEND_IF_NONE_MATCH, /* EXISTS when the key is taken */
};

enum backend_list_mode {
	BACKEND_ONE_LEVEL, /* objects and prefixes directly under the folder */
	BACKEND_RECURSIVE, /* every object below it */
};

/* One line of a listing; the key borrows for the time of the call. */
struct backend_entry {
	const char *key;   /* the full key; a prefix has no '/' at its end */
	bool is_prefix;    /* a folder: size and mtime are 0 */
	uint64_t size;     /* bytes */
	uint64_t mtime_ns; /* wall clock of the store when the object appeared or was renamed */
};

/* Return 0 to go on, 1 to stop the listing (which then returns 0), -1 with err filled to fail it.
 * It may delete the entry it was shown. */
typedef int backend_list_fn(void *arg, const struct backend_entry *e, struct err *err);

struct backend;

/* What an implementation embeds first in its own writer. */
struct backend_writer {
	struct backend *be;
	char key[BACKEND_KEY_MAX + 1];
};

struct backend_ops {
	int (*put)(struct backend *be, const char *key, struct bytes data,
		   enum backend_put_mode mode, struct err *err);
	struct backend_writer *(*writer_open)(struct backend *be, const char *key, struct err *err);
	int (*writer_append)(struct backend_writer *w, struct bytes data, struct err *err);
	/* Both end the writer, whatever they return. */
	int (*writer_finish)(struct backend_writer *w, struct err *err);
	void (*writer_abort)(struct backend_writer *w);
	int (*read)(struct backend *be, const char *key, size_t max, struct buf *out,
		    struct err *err);
	int (*read_range)(struct backend *be, const char *key, uint64_t off, size_t len,
			  struct buf *out, struct err *err);
	/* NULL: as read, always changed. */
	int (*read_changed)(struct backend *be, const char *key, size_t max,
			    char etag[BACKEND_ETAG_SIZE], struct buf *out, struct err *err);
	int (*size)(struct backend *be, const char *key, uint64_t *size, struct err *err);
	int (*list)(struct backend *be, const char *folder, enum backend_list_mode mode,
		    backend_list_fn *fn, void *arg, struct err *err);
	/* NULL: made of a recursive list. */
	int (*list_members)(struct backend *be, const char *folder, const char *name,
			    backend_list_fn *fn, void *arg, struct err *err);
	/* NULL: made of a list of one level. */
	int (*list_after)(struct backend *be, const char *folder, const char *after,
			  backend_list_fn *fn, void *arg, struct err *err);
	int (*remove)(struct backend *be, const char *key, struct err *err);
	int (*rename)(struct backend *be, const char *from, const char *to, struct err *err);
	void (*free)(struct backend *be);
	/* Missing: what writers leave is in listings, or swept by itself. */
	int (*sweep_uploads)(struct backend *be, uint64_t before_ns, size_t *n, struct err *err);
	/* Missing: IF_NONE_MATCH works by nature; nothing here waits for long. */
	int (*prove)(struct backend *be, struct err *err);
	void (*interrupt)(struct backend *be, bool on);
	/* NULL: the store's clock is this machine's. */
	uint64_t (*now_ns)(struct backend *be);
	/* Calls wait for a network: several at once take as long as one, and a list of one level
	 * costs less than a look at each folder. */
	bool is_remote;
};

/* What an implementation embeds first in itself. */
struct backend {
	const struct backend_ops *ops;
};

/* INVALID, with the key and the rule it breaks. */
int backend_key_check(const char *key, struct err *err);
/* "a/b/c" into out from printf-like arguments; INVALID when it is too long or illegal. */
int backend_key(char out[BACKEND_KEY_MAX + 1], struct err *err, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

/* Write a whole object. Borrows data. */
int backend_put(struct backend *be, const char *key, struct bytes data, enum backend_put_mode mode,
		struct err *err);
/* Write an object piece by piece, replacing what is there when it is finished. NULL on error. */
struct backend_writer *backend_writer_open(struct backend *be, const char *key, struct err *err);
/* Borrows data. After an error only abort is left. */
int backend_writer_append(struct backend_writer *w, struct bytes data, struct err *err);
/* Make the object visible and durable, and free w, also on error. After an error, as after one of
 * put, the object may have become visible (a store can fail after the fact); it is whole in any
 * case. */
int backend_writer_finish(struct backend_writer *w, struct err *err);
/* Drop what was written and free w. NULL is fine. */
void backend_writer_abort(struct backend_writer *w);

/* Append a whole object to out; TOO_LARGE above max bytes, before they are read. */
int backend_read(struct backend *be, const char *key, size_t max, struct buf *out, struct err *err);
/* The same unless the object is still what it was when *etag was given: then nothing is appended. 1
 * = read, and *etag is set; 0 = unchanged; -1. An empty etag matches nothing; a store that gives
 * none has changed every time. */
int backend_read_changed(struct backend *be, const char *key, size_t max,
			 char etag[BACKEND_ETAG_SIZE], struct buf *out, struct err *err);
/* Append exactly len bytes from offset off; CORRUPT when the object ends before. len 0 reads
 * nothing. */
int backend_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
		       struct buf *out, struct err *err);
int backend_size(struct backend *be, const char *key, uint64_t *size, struct err *err);
/* Call fn for what is under `folder` ("" is the root, no '/' at the end). A folder that is not
 * there is empty. Order: local, byte order of names level by level; s3, the store's. A store may go
 * on showing an emptied folder as a prefix for a while. */
int backend_list(struct backend *be, const char *folder, enum backend_list_mode mode,
		 backend_list_fn *fn, void *arg, struct err *err);
/* Call fn for each object <folder>/<any one segment>/<name>, in byte order; folder is not the root.
 * What it costs is the backend's cheapest way: a look at each sub-folder, or a list of all keys. */
int backend_list_members(struct backend *be, const char *folder, const char *name,
			 backend_list_fn *fn, void *arg, struct err *err);
/* One level of a folder, but only what lies behind the key `after` in byte order: cheap when that
 * is little, however much lies before. */
int backend_list_after(struct backend *be, const char *folder, const char *after,
		       backend_list_fn *fn, void *arg, struct err *err);
/* Missing is fine. */
int backend_delete(struct backend *be, const char *key, struct err *err);
/* Give an object another key without replacing: EXISTS when `to` is taken, NOT_FOUND when `from`
 * is gone. Its mtime becomes the time of the call. Atomic on a local disk only; elsewhere a crash
 * may leave both keys with equal bytes, and the same rename again finishes it. */
int backend_rename(struct backend *be, const char *from, const char *to, struct err *err);
/* Drop what writers of blocks that were opened before then (wall clock of the store) and never
 * ended left where no listing shows it; at most a thousand a call. *n gets their number. */
int backend_sweep_uploads(struct backend *be, uint64_t before_ns, size_t *n, struct err *err);
/* Prove that this store decides between conditional puts, by two of them under _spanmill/probe/:
 * who relies on IF_NONE_MATCH calls this at start. UNIMPLEMENTED when the store does not. */
int backend_prove_conditional(struct backend *be, struct err *err);
/* The wall clock that gives objects their mtime, as far as its last answer told; this machine's
 * before there is one. Of a bucket it is up to a second behind, as its mtimes are. What asks how
 * old an object is asks this: this machine's clock may be wrong. */
uint64_t backend_now_ns(struct backend *be);
/* How much younger than it says an object may be: clocks of buckets count whole seconds. */
uint64_t backend_mtime_spare_ns(const struct backend *be);
/* See struct backend_ops. */
bool backend_is_remote(const struct backend *be);
/* While on, calls under way and later ones end soon, with UNAVAILABLE, instead of waiting for a
 * store that hangs. Any thread. */
void backend_interrupt(struct backend *be, bool on);
/* NULL is fine. No writer may be open. */
void backend_free(struct backend *be);

#endif
