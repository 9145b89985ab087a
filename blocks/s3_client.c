/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_client.c - see s3_client.h.
 *
 *   call: [hash the body once] -> attempt -> attempt ...     attempt: keys, date, signature, send
 *
 * LIFO pool: the connection used last is the one most likely still open.
 */
#include "blocks/s3_client.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "blocks/s3_failure.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	IDLE_MAX = 16,
	ATTEMPTS = 5,
	CONNECT_TIMEOUT_MS = 5000,
	STALL_TIMEOUT_MS = 15000,
	CALL_TIMEOUT_MS = 30000,
	SLOWEST_BYTES_PER_MS = 64, /* a body that moves slower than 64 KB/s is given up */
	REPLY_MAX = 1 << 20,
	/* The retry budget, as in the AWS SDKs. */
	TOKENS_MAX = 500,
	TOKENS_RETRY = 5,
	TOKENS_TIMEOUT = 10,
};

struct s3_client {
	char *scheme, *host; /* host with its port, as in the Host header */
	char *bucket, *region, *where;
	char *ca_file, *cert_file, *key_file;
	bool insecure_skip_verify, is_path_style;
	unsigned max_attempts;
	uint64_t backoff_first_ns, backoff_max_ns;
	uint32_t stall_timeout_ms;
	struct s3_credentials *credentials;
	pthread_mutex_t lock; /* idle, rng */
	struct http_client *idle[IDLE_MAX];
	size_t n_idle;
	struct rng rng;
	_Atomic int tokens;
	_Atomic bool interrupt;
	bool (*is_cancelled)(void *arg);
	void *cancel_arg;
	_Atomic int64_t store_ahead_ns; /* the store's clock less this machine's, as last told */
	_Atomic uint64_t n_requests, n_retries, n_failures, n_ops[S3_OPS];
};

/* ---- endpoint ---- */

static char *copy(const char *s)
{
	return s != NULL && s[0] != '\0' ? xstrdup(s) : NULL;
}

/* Behind the scheme, which goes to c->scheme. */
static const char *take_scheme(struct s3_client *c, const char *endpoint, bool insecure)
{
	if (str_has_prefix(endpoint, "http://")) {
		c->scheme = xstrdup("http");
		return endpoint + 7;
	}
	if (str_has_prefix(endpoint, "https://")) {
		c->scheme = xstrdup("https");
		return endpoint + 8;
	}
	c->scheme = xstrdup(insecure ? "http" : "https");
	return endpoint;
}

/* A Host header leaves the scheme's own port out. */
static void drop_default_port(char *host, const char *scheme)
{
	const char *port = strcmp(scheme, "http") == 0 ? ":80" : ":443";
	size_t n = strlen(host), m = strlen(port);

	if (n > m && strcmp(host + n - m, port) == 0)
		host[n - m] = '\0';
}

static int set_host(struct s3_client *c, const struct s3_client_options *o, struct err *err)
{
	char aws[128];
	const char *host;
	size_t n;

	if (o->endpoint == NULL || o->endpoint[0] == '\0') {
		snprintf(aws, sizeof(aws), "https://s3.%s.amazonaws.com%s", c->region,
			 str_has_prefix(c->region, "cn-") ? ".cn" : "");
		host = take_scheme(c, aws, false);
	} else {
		host = take_scheme(c, o->endpoint, o->insecure);
	}
	n = strcspn(host, "/");
	if (n == 0 || strpbrk(host, " ?#@\\\"<>") != NULL ||
	    (host[n] == '/' && host[n + 1] != '\0'))
		return err_set(err, ERR_CONFIG,
			       "s3.endpoint: \"%.100s\" is no host[:port]: write it without a path",
			       o->endpoint);
	c->host = xstrndup(host, n);
	drop_default_port(c->host, c->scheme);
	return 0;
}

static bool is_dns_name(const char *bucket)
{
	size_t n = strlen(bucket);

	for (const char *p = bucket; *p != '\0'; p++)
		if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '-')
			return false;
	return n >= 3 && n <= 63;
}

/* Where buckets are host names: elsewhere the name seldom resolves. As minio-go (Tempo) has it. */
static bool is_known_host(const char *host)
{
	static const char *const tails[] = { ".amazonaws.com", ".amazonaws.com.cn",
					     ".aliyuncs.com" };

	if (strcmp(host, "storage.googleapis.com") == 0)
		return true;
	for (size_t i = 0; i < COUNT_OF(tails); i++)
		if (str_has_suffix(host, tails[i]))
			return true;
	return false;
}

static void set_style(struct s3_client *c, enum s3_lookup lookup)
{
	char *with_bucket;

	c->is_path_style =
		lookup == S3_LOOKUP_PATH ||
		(lookup == S3_LOOKUP_AUTO && !(is_known_host(c->host) && is_dns_name(c->bucket)));
	if (!c->is_path_style) {
		with_bucket = xasprintf("%s.%s", c->bucket, c->host);
		free(c->host);
		c->host = with_bucket;
		c->where = xasprintf("%s://%s", c->scheme, c->host);
	} else {
		c->where = xasprintf("%s://%s/%s", c->scheme, c->host, c->bucket);
	}
}

static int check_bucket(const char *bucket, struct err *err)
{
	if (bucket == NULL || bucket[0] == '\0')
		return err_set(err, ERR_CONFIG, "s3.bucket: is missing");
	for (const char *p = bucket; *p != '\0'; p++)
		if (!isalnum((unsigned char)*p) && strchr("-_.", *p) == NULL)
			return err_set(err, ERR_CONFIG,
				       "s3.bucket: \"%.63s\" is no name of a bucket", bucket);
	return 0;
}

/* ---- new, free, pool ---- */

static bool is_interrupted(void *arg)
{
	struct s3_client *c = arg;

	return atomic_load(&c->interrupt) ||
	       (c->is_cancelled != NULL && c->is_cancelled(c->cancel_arg));
}

static struct http_client *connection_new(struct s3_client *c, struct err *err)
{
	return http_client_new(
		&(struct http_client_settings){ .connect_timeout_ms = CONNECT_TIMEOUT_MS,
						.timeout_ms = CALL_TIMEOUT_MS,
						.stall_timeout_ms = c->stall_timeout_ms,
						.ca_file = c->ca_file,
						.cert_file = c->cert_file,
						.key_file = c->key_file,
						.insecure_skip_verify = c->insecure_skip_verify,
						.is_interrupted = is_interrupted,
						.interrupt_arg = c },
		err);
}

struct s3_client *s3_client_new(const struct s3_client_options *o, struct err *err)
{
	struct s3_credentials_options keys = o->credentials;
	struct s3_client *c = xcalloc(1, sizeof(*c));
	uint64_t seed;

	pthread_mutex_init(&c->lock, NULL);
	rng_kernel(&seed, sizeof(seed));
	rng_seed(&c->rng, seed);
	atomic_init(&c->tokens, TOKENS_MAX);
	c->max_attempts = o->max_attempts ? o->max_attempts : ATTEMPTS;
	c->backoff_first_ns = o->backoff_first_ns ? o->backoff_first_ns : 200 * NS_PER_MS;
	c->backoff_max_ns = o->backoff_max_ns ? o->backoff_max_ns : 5 * NS_PER_S;
	c->stall_timeout_ms = o->stall_timeout_ms ? o->stall_timeout_ms : STALL_TIMEOUT_MS;
	c->insecure_skip_verify = o->insecure_skip_verify;
	c->is_cancelled = o->is_cancelled;
	c->cancel_arg = o->cancel_arg;
	c->region = xstrdup(o->region != NULL && o->region[0] != '\0' ? o->region : "us-east-1");
	c->ca_file = copy(o->ca_file);
	c->cert_file = copy(o->cert_file);
	c->key_file = copy(o->key_file);
	if (check_bucket(o->bucket, err) < 0 || set_host(c, o, err) < 0)
		goto fail;
	c->bucket = xstrdup(o->bucket);
	set_style(c, o->lookup);
	keys.region = c->region;
	keys.ca_file = c->ca_file;
	keys.is_interrupted = is_interrupted;
	keys.interrupt_arg = c;
	c->credentials = s3_credentials_new(&keys);
	/* The first connection now: a missing libcurl is found at start. */
	c->idle[0] = connection_new(c, err);
	if (c->idle[0] == NULL)
		goto fail;
	c->n_idle = 1;
	return c;
fail:
	s3_client_free(c);
	return NULL;
}

void s3_client_free(struct s3_client *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->n_idle; i++)
		http_client_free(c->idle[i]);
	s3_credentials_free(c->credentials);
	free(c->scheme);
	free(c->host);
	free(c->bucket);
	free(c->region);
	free(c->where);
	free(c->ca_file);
	free(c->cert_file);
	free(c->key_file);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct http_client *borrow(struct s3_client *c, struct err *err)
{
	struct http_client *h = NULL;

	pthread_mutex_lock(&c->lock);
	if (c->n_idle > 0)
		h = c->idle[--c->n_idle];
	pthread_mutex_unlock(&c->lock);
	return h != NULL ? h : connection_new(c, err);
}

static void give_back(struct s3_client *c, struct http_client *h)
{
	pthread_mutex_lock(&c->lock);
	if (c->n_idle < IDLE_MAX) {
		c->idle[c->n_idle++] = h;
		h = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	http_client_free(h);
}

/* ---- one attempt ---- */

/* What stays the same over the attempts of a call. */
struct call {
	struct s3_client *c;
	const struct s3_request *r;
	struct buf path, query, url; /* texts, NUL-terminated */
	char hash[SIGV4_HASH_SIZE];
	uint32_t timeout_ms;
};

static void prepare(struct call *k)
{
	const struct s3_client *c = k->c;
	const struct s3_request *r = k->r;
	uint64_t bytes = r->into != NULL ? r->max_reply : 0;

	buf_add_char(&k->path, '/');
	if (c->is_path_style)
		sigv4_encode(bytes_str(c->bucket), false, &k->path);
	if (r->key != NULL) {
		if (c->is_path_style)
			buf_add_char(&k->path, '/');
		sigv4_encode(bytes_str(r->key), true, &k->path);
	}
	sigv4_query(r->params, r->n_params, &k->query);
	buf_printf(&k->url, "%s://%s%s%s%s", c->scheme, c->host, buf_cstr(&k->path),
		   k->query.n > 0 ? "?" : "", buf_cstr(&k->query));
	buf_cstr(&k->url);
	sigv4_hash(r->body, r->n_body, k->hash);
	for (size_t i = 0; i < r->n_body; i++)
		bytes += r->body[i].n;
	k->timeout_ms =
		(uint32_t)MIN(CALL_TIMEOUT_MS + bytes / SLOWEST_BYTES_PER_MS, (uint64_t)INT32_MAX);
}

/* Headers of this attempt, signed, the signature last. Returns how many. */
static size_t sign(const struct call *k, const struct s3_keys *keys, char date[SIGV4_DATE_SIZE],
		   struct buf *authorization, struct http_header *h)
{
	const struct s3_request *r = k->r;
	struct sigv4_signer signer = { keys->access_key, keys->secret_key, k->c->region, "s3" };
	size_t n = 0;

	sigv4_date(clock_wall_ns(), date);
	h[n++] = (struct http_header){ "Host", k->c->host };
	h[n++] = (struct http_header){ "x-amz-date", date };
	h[n++] = (struct http_header){ "x-amz-content-sha256", k->hash };
	if (keys->session_token[0] != '\0')
		h[n++] = (struct http_header){ "x-amz-security-token", keys->session_token };
	for (size_t i = 0; i < r->n_headers; i++)
		h[n++] = r->headers[i];
	sigv4_sign(&(struct sigv4_request){ .method = r->method,
					    .path = (const char *)k->path.p,
					    .query = (const char *)k->query.p,
					    .headers = h,
					    .n_headers = n,
					    .payload_hash = k->hash,
					    .date = date },
		   &signer, authorization);
	h[n++] = (struct http_header){ "Authorization", buf_cstr(authorization) };
	return n;
}

static const char *const op_names[S3_OPS] = { "get", "head", "list", "put", "post", "delete" };
static const char *const op_methods[S3_OPS] = { "GET", "HEAD", NULL, "PUT", "POST", "DELETE" };

const char *s3_op_name(enum s3_op op)
{
	assert((unsigned)op < S3_OPS);
	return op_names[op];
}

/* A GET of the bucket is a list. */
static enum s3_op op_of(const struct s3_request *r)
{
	for (size_t i = 0; i < S3_OPS; i++)
		if (op_methods[i] != NULL && strcmp(r->method, op_methods[i]) == 0)
			return i == S3_OP_GET && r->key == NULL ? S3_OP_LIST : (enum s3_op)i;
	return S3_OP_POST;
}

static int send_once(struct call *k, const struct s3_keys *keys, struct http_reply *reply,
		     struct err *err)
{
	const struct s3_request *r = k->r;
	struct http_header headers[SIGV4_HEADERS_MAX + 1];
	struct http_client *h = borrow(k->c, err);
	struct buf authorization = BUF_INIT;
	char date[SIGV4_DATE_SIZE];
	int ret = -1;

	if (h == NULL)
		return -1;
	atomic_fetch_add(&k->c->n_requests, 1);
	atomic_fetch_add(&k->c->n_ops[op_of(r)], 1);
	ret = http_client_call(
		h,
		&(struct http_call){ .method = r->method,
				     .url = (const char *)k->url.p,
				     .n_headers = sign(k, keys, date, &authorization, headers),
				     .headers = headers,
				     .body = r->body,
				     .n_body = r->n_body,
				     .timeout_ms = k->timeout_ms,
				     .max_reply = r->max_reply ? r->max_reply : REPLY_MAX,
				     .into = r->into },
		reply, err);
	give_back(k->c, h);
	buf_fini(&authorization);
	return ret;
}

enum outcome {
	DONE,    /* 2xx */
	FAILED,  /* for good */
	AGAIN,   /* after a pause */
	NEW_KEY, /* at once, with other keys */
};

/* Only of what the store did: an error may be a proxy's. */
static void note_clock(struct s3_client *c, const struct http_reply *reply)
{
	uint64_t store_s = 0;

	if (s3_failure_date(reply, &store_s))
		atomic_store(&c->store_ahead_ns,
			     (int64_t)(store_s * NS_PER_S) - (int64_t)clock_wall_ns());
}

/* An answer came. */
static enum outcome judge(struct call *k, const struct s3_keys *keys, struct s3_reply *reply,
			  struct err *err)
{
	struct s3_client *c = k->c;
	struct http_reply *http = &reply->http;
	struct s3_error e;
	bool is_good = http->status >= 200 && http->status < 300;

	if (is_good && !(k->r->may_be_error && s3_answer_error(buf_bytes(&http->body), &e))) {
		note_clock(c, http);
		return DONE;
	}
	s3_failure_read(http, &e);
	snprintf(reply->code, sizeof(reply->code), "%s", e.code);
	s3_failure_describe(
		http, &e,
		&(struct s3_context){ .method = k->r->method,
				      .bucket = c->bucket,
				      .region = c->region,
				      .where = c->where,
				      .key_source = s3_credentials_source(c->credentials) },
		err);
	if (s3_failure_is_stale_key(&e)) {
		s3_credentials_distrust(c->credentials, keys->access_key);
		return NEW_KEY;
	}
	reply->is_unsure |= http->status >= 500 || is_good;
	return s3_failure_is_transient(http->status, &e) ? AGAIN : FAILED;
}

static enum outcome attempt(struct call *k, struct s3_reply *reply, struct err *err)
{
	struct s3_keys keys;
	enum outcome outcome = FAILED;

	reply->code[0] = '\0';
	if (s3_credentials_keys(k->c->credentials, &keys, err) < 0)
		return err->retryable ? AGAIN : FAILED;
	if (send_once(k, &keys, &reply->http, err) == 0) {
		outcome = judge(k, &keys, reply, err);
	} else if (err->kind == ERR_UNAVAILABLE || err->kind == ERR_TIMEOUT) {
		reply->is_unsure = true;
		outcome = AGAIN;
	}
	s3_keys_wipe(&keys);
	return outcome;
}

/* ---- trying again ---- */

static bool take_tokens(struct s3_client *c, int n)
{
	int have = atomic_load(&c->tokens);

	while (have >= n)
		if (atomic_compare_exchange_weak(&c->tokens, &have, have - n))
			return true;
	return false;
}

static void add_tokens(struct s3_client *c, int n)
{
	int have = atomic_load(&c->tokens);

	while (!atomic_compare_exchange_weak(&c->tokens, &have, MIN(have + n, (int)TOKENS_MAX))) {
	}
}

/* Half of the pause is certain, half is chance. */
static uint64_t pause_ns(struct s3_client *c, unsigned n_failed, const struct http_reply *reply)
{
	const char *after = http_reply_header(reply, "Retry-After");
	uint64_t full = MIN(c->backoff_first_ns << MIN(n_failed - 1, 16u), c->backoff_max_ns);
	uint64_t said = 0, jittered;

	pthread_mutex_lock(&c->lock);
	jittered = full / 2 + rng_below(&c->rng, full / 2 + 1);
	pthread_mutex_unlock(&c->lock);
	if (after == NULL || str_to_u64(bytes_str(after), &said) < 0 || said > UINT32_MAX)
		said = 0;
	return MAX(jittered, MIN(said * NS_PER_S, c->backoff_max_ns));
}

/* In short sleeps, so that an interrupt is seen. */
static void sleep_for(struct s3_client *c, uint64_t ns)
{
	uint64_t until = clock_mono_ns() + ns, now;

	while ((now = clock_mono_ns()) < until && !is_interrupted(c)) {
		uint64_t step = MIN(until - now, 50 * NS_PER_MS);
		struct timespec ts = { 0, (long)step };

		nanosleep(&ts, NULL);
	}
}

/* False when there shall be no other attempt. */
static bool try_again(struct s3_client *c, const struct s3_request *r, enum outcome outcome,
		      unsigned n_attempts, bool *has_new_key, const struct http_reply *reply,
		      const struct err *err)
{
	if (outcome == NEW_KEY && !*has_new_key) {
		*has_new_key = true;
		return true;
	}
	if (outcome != AGAIN || r->is_once || n_attempts >= c->max_attempts || is_interrupted(c))
		return false;
	if (!take_tokens(c, err->kind == ERR_TIMEOUT ? TOKENS_TIMEOUT : TOKENS_RETRY))
		return false;
	sleep_for(c, pause_ns(c, n_attempts, reply));
	return !is_interrupted(c);
}

int s3_client_call(struct s3_client *c, const struct s3_request *r, struct s3_reply *reply,
		   struct err *err)
{
	struct call k = { .c = c, .r = r };
	struct err local = ERR_INIT;
	unsigned n_attempts = 0;
	bool has_new_key = false, was_unsure;
	enum outcome outcome;

	reply->is_unsure = false;
	prepare(&k);
	do {
		was_unsure = reply->is_unsure;
		outcome = attempt(&k, reply, &local);
		atomic_fetch_add(&c->n_retries, n_attempts > 0);
		n_attempts++;
	} while (outcome != DONE &&
		 try_again(c, r, outcome, n_attempts, &has_new_key, &reply->http, &local));
	/* What the last attempt said is sure, unless it got no answer. */
	if (outcome == DONE || outcome == FAILED)
		reply->is_unsure = was_unsure;
	if (outcome == DONE)
		add_tokens(c, n_attempts > 1 ? TOKENS_RETRY : 1);
	else if (local.kind != ERR_NOT_FOUND && local.kind != ERR_EXISTS &&
		 local.kind != ERR_CORRUPT)
		atomic_fetch_add(&c->n_failures, 1);
	/* Without an answer the message says already where it went. */
	if (outcome == AGAIN && n_attempts > 1)
		err_wrap(&local, "%u attempts%s%.100s", n_attempts,
			 reply->http.status != 0 ? " at " : "",
			 reply->http.status != 0 ? c->where : "");
	if (outcome != DONE && err != NULL)
		*err = local;
	buf_fini(&k.path);
	buf_fini(&k.query);
	buf_fini(&k.url);
	return outcome == DONE ? 0 : -1;
}

void s3_reply_fini(struct s3_reply *reply)
{
	http_reply_fini(&reply->http);
}

void s3_client_interrupt(struct s3_client *c, bool on)
{
	atomic_store(&c->interrupt, on);
}

void s3_client_stats(struct s3_client *c, struct s3_client_stats *out)
{
	out->requests = atomic_load(&c->n_requests);
	for (size_t i = 0; i < S3_OPS; i++)
		out->ops[i] = atomic_load(&c->n_ops[i]);
	out->retries = atomic_load(&c->n_retries);
	out->failures = atomic_load(&c->n_failures);
}

uint64_t s3_client_now_ns(const struct s3_client *c)
{
	return (uint64_t)((int64_t)clock_wall_ns() + atomic_load(&c->store_ahead_ns));
}

const char *s3_client_where(const struct s3_client *c)
{
	return c->where;
}
