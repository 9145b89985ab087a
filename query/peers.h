/* SPDX-License-Identifier: Apache-2.0
 *
 * peers.h - the other query nodes a look-up asks: who they are by now, and how they are asked.
 *
 *   names ("host:port", "dns+host:port") --resolver, every 10 s--> peers (one per address)
 *   peers_call: several of them at once, on the caller's thread
 *
 * A dns+ name is all its addresses, asked for again and again (a headless service in Kubernetes).
 * When a name cannot be resolved any more its last addresses stay; they will say themselves that
 * they are away. An address that left its name is asked for a minute more where keeps_left says so,
 * unless another has taken its place: a builder that died is out of DNS before anybody else reads
 * what it had read. A peer that let a call time out is given little time, but for one call every
 * ten seconds, so that a frozen peer does not make every look-up wait in full.
 * THREADS: any; calls block. OWNERSHIP: a snapshot holds references.
 * LIMITS: an answer is bounded by max_reply and charged as it grows; PEERS_MAX addresses.
 */
#ifndef QUERY_PEERS_H
#define QUERY_PEERS_H

#include "base/buf.h"
#include "net/http_request.h"
#include "query/query_memory.h"

#include <stdatomic.h>

enum { PEERS_MAX = 1024, PEER_ADDRESS = 320, PEER_PATH = 256, PEER_HEADERS = 4 };

struct peers;

struct peers_options {
	const char *what;         /* "builder": for messages; a literal */
	const char *const *names; /* copied */
	size_t n;
	bool keeps_left;             /* what left a name is still asked for a while */
	uint32_t timeout_ms;         /* of a call */
	size_t max_reply;            /* bytes of an answer */
	struct query_memory *memory; /* borrowed */
};

/* One address. */
struct peer {
	_Atomic uint32_t refs;
	_Atomic uint64_t slow_until_ns; /* clock_mono_ns: it let a call time out; 0: it did not */
	uint64_t left_ns;           /* under the lock: when its name was without it; 0: it is not */
	char address[PEER_ADDRESS]; /* "192.0.2.1:3200", "[::1]:3200", "host:3200" */
};

struct peer_list {
	struct peer **v; /* by address */
	size_t n, cap;
	char missing[256]; /* a name without an address; "" when each has one */
	uint64_t left_ns;  /* when an address was last seen to have gone; 0: none has */
};

struct peer_call {
	struct peer *peer;
	char path[PEER_PATH]; /* with the query */
	bool is_patient;      /* the full time-out, though the peer was slow: who else is there? */
	struct buf body;      /* of a 200 in protobuf */
	struct err err;       /* NONE: there is a body; the text names the peer */
	uint64_t live_ms;     /* what PEER_LIVE_HEADER said; PEER_LIVE_UNSAID */
	uint64_t answered_ns; /* clock_mono_ns after the round */
	struct query_memory *memory;
	size_t charged; /* for body */
};

/* Answers with live data say how far back they reach: what became visible in blocks more than so
 * many milliseconds ago may be missing from them. */
#define PEER_LIVE_HEADER "X-Spanmill-Live-Ms"
/* A request with it is answered from one's own data only. */
#define PEER_LEAF_HEADER "X-Spanmill-Leaf"
#define PEER_LIVE_UNSAID UINT64_MAX

/* INVALID: neither host:port nor dns+host:port; the text says what is wrong with it. */
int peers_check_name(const char *name, struct err *err);

/* NULL when there are no names. */
struct peers *peers_new(const struct peers_options *o);
int peers_start(struct peers *p, struct err *err);
/* Calls under way end within a second or so, later ones at once. NULL is fine. */
void peers_interrupt(struct peers *p);
/* No call may be under way. NULL is fine. */
void peers_free(struct peers *p);

/* Who there is now; soon after the start this waits for names to be resolved, two seconds at most.
 * Free with peer_list_fini. */
void peers_snapshot(struct peers *p, struct peer_list *out);
void peer_list_fini(struct peer_list *l);
/* It let a call time out, and none was answered since. */
bool peer_is_slow(const struct peer *peer);

void peer_call_fini(struct peer_call *c);
/* GET all, at once. The headers are sent with each, beside Accept. */
void peers_call(struct peers *p, struct peer_call *calls, size_t n,
		const struct http_header *headers, size_t n_headers);

struct peers_stats {
	uint64_t calls, failures;
	size_t peers;
};
void peers_stats(struct peers *p, struct peers_stats *out);
const char *peers_what(const struct peers *p);

#endif
