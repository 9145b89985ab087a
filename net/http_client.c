/* SPDX-License-Identifier: Apache-2.0
 *
 * http_client.c - see http_client.h.
 *
 * DESIGN: libcurl brings 30 libraries, which cost 3 ms and 6.5 MB at start (measured, with OpenSSL
 * there already), so it is not linked but loaded when first used; the table `lib` holds the
 * functions, their types come from its header.
 *
 * OWNERSHIP, THREADS: a client owns one easy handle with its connections; one thread at a time.
 *
 * LIMITS: max_reply, HEADERS_MAX, the two time-outs.
 */
#include "net/http_client.h"

#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>

enum {
	CONNECT_TIMEOUT_MS = 5000,
	TIMEOUT_MS = 30000,
	HEADERS_MAX = 65536,
	WHERE_MAX = HTTP_WHERE_MAX,
	GRANT_MIN = 16384,
	POLL_MS = 1000,
	INTERRUPT_POLL_MS = 100,
	IDLE_POLL_MS = 60000
};
#define REPLY_MAX (64 * MIB)
#define ERROR_MAX MIB /* of an answer that is not what `into` is for */

/* ---- the library ---- */

static struct {
	CURLcode (*global_init)(long flags);
	CURL *(*easy_init)(void);
	void (*easy_reset)(CURL *);
	void (*easy_cleanup)(CURL *);
	CURLcode (*setopt)(CURL *, CURLoption, ...);
	CURLcode (*getinfo)(CURL *, CURLINFO, ...);
	CURLcode (*perform)(CURL *);
	const char *(*strerror)(CURLcode);
	struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
	void (*slist_free_all)(struct curl_slist *);
	CURLM *(*multi_init)(void);
	CURLMcode (*multi_add)(CURLM *, CURL *);
	CURLMcode (*multi_remove)(CURLM *, CURL *);
	CURLMcode (*multi_perform)(CURLM *, int *);
	CURLMcode (*multi_poll)(CURLM *, struct curl_waitfd *, unsigned, int, int *);
	CURLMsg *(*multi_read)(CURLM *, int *);
	CURLMcode (*multi_cleanup)(CURLM *);
	CURLMcode (*multi_setopt)(CURLM *, CURLMoption, ...);
	CURLMcode (*multi_wakeup)(CURLM *);
	char why[256]; /* it could not be loaded; "" when it was */
} lib;

static pthread_once_t lib_once = PTHREAD_ONCE_INIT;

static void load_library(void)
{
	static const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "curl_global_init", &lib.global_init },
		{ "curl_easy_init", &lib.easy_init },
		{ "curl_easy_reset", &lib.easy_reset },
		{ "curl_easy_cleanup", &lib.easy_cleanup },
		{ "curl_easy_setopt", &lib.setopt },
		{ "curl_easy_getinfo", &lib.getinfo },
		{ "curl_easy_perform", &lib.perform },
		{ "curl_easy_strerror", &lib.strerror },
		{ "curl_slist_append", &lib.slist_append },
		{ "curl_slist_free_all", &lib.slist_free_all },
		{ "curl_multi_init", &lib.multi_init },
		{ "curl_multi_add_handle", &lib.multi_add },
		{ "curl_multi_remove_handle", &lib.multi_remove },
		{ "curl_multi_perform", &lib.multi_perform },
		{ "curl_multi_poll", &lib.multi_poll },
		{ "curl_multi_info_read", &lib.multi_read },
		{ "curl_multi_cleanup", &lib.multi_cleanup },
		{ "curl_multi_setopt", &lib.multi_setopt },
		{ "curl_multi_wakeup", &lib.multi_wakeup },
	};
	void *so = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
	bool ok = so != NULL;

	for (size_t i = 0; ok && i < COUNT_OF(symbols); i++) {
		void *p = dlsym(so, symbols[i].name);

		/* ISO C has no conversion from an object's to a function's address. */
		memcpy(symbols[i].slot, &p, sizeof(p));
		ok = p != NULL;
	}
	if (!ok)
		snprintf(lib.why, sizeof(lib.why), "%s", dlerror());
	else if (lib.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		snprintf(lib.why, sizeof(lib.why), "curl_global_init failed");
}

/* ---- a client ---- */

struct http_client {
	CURL *easy;
	CURLM *multi; /* of calls that may be interrupted; NULL before the first */
	struct http_client_settings settings; /* strings are ours */
	char why[CURL_ERROR_SIZE];
};

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

struct http_client *http_client_new(const struct http_client_settings *settings, struct err *err)
{
	struct http_client *c = NULL;

	pthread_once(&lib_once, load_library);
	if (lib.why[0] != '\0') {
		err_set(err, ERR_UNIMPLEMENTED, "http client: libcurl: %s", lib.why);
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	if (settings != NULL)
		c->settings = *settings;
	c->settings.unix_socket = copy(c->settings.unix_socket);
	c->settings.ca_file = copy(c->settings.ca_file);
	c->settings.cert_file = copy(c->settings.cert_file);
	c->settings.key_file = copy(c->settings.key_file);
	c->settings.proxy = copy(c->settings.proxy);
	c->settings.min_tls = copy(c->settings.min_tls);
	c->settings.max_tls = copy(c->settings.max_tls);
	c->easy = lib.easy_init();
	if (c->easy == NULL) {
		err_set(err, ERR_INTERNAL, "http client: curl_easy_init failed");
		http_client_free(c);
		return NULL;
	}
	return c;
}

void http_client_free(struct http_client *c)
{
	if (c == NULL)
		return;
	if (c->easy != NULL)
		lib.easy_cleanup(c->easy);
	if (c->multi != NULL)
		lib.multi_cleanup(c->multi);
	free((char *)(uintptr_t)c->settings.unix_socket);
	free((char *)(uintptr_t)c->settings.ca_file);
	free((char *)(uintptr_t)c->settings.cert_file);
	free((char *)(uintptr_t)c->settings.key_file);
	free((char *)(uintptr_t)c->settings.proxy);
	free((char *)(uintptr_t)c->settings.min_tls);
	free((char *)(uintptr_t)c->settings.max_tls);
	free(c);
}

/* ---- what libcurl calls ---- */

/* The pieces of a body, as a stream. */
struct upload {
	const struct bytes *pieces;
	size_t n, i, at; /* piece, offset in it */
};

static size_t upload_read(char *to, size_t size, size_t n, void *arg)
{
	struct upload *u = arg;
	size_t room = size * n, done = 0;

	while (u->i < u->n && done < room) {
		struct bytes piece = u->pieces[u->i];
		size_t step = MIN(room - done, piece.n - u->at);

		if (step > 0)
			memcpy(to + done, piece.p + u->at, step);
		done += step;
		u->at += step;
		if (u->at == piece.n) {
			u->i++;
			u->at = 0;
		}
	}
	return done;
}

/* Back to the start: a kept connection turned out to be closed. */
static int upload_seek(void *arg, curl_off_t offset, int origin)
{
	struct upload *u = arg;

	if (offset != 0 || origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	u->i = u->at = 0;
	return CURL_SEEKFUNC_OK;
}

/* Where an answer goes. */
struct download {
	CURL *easy;
	struct http_reply *reply;
	struct buf *into; /* may be NULL */
	size_t start;     /* of what is ours in it */
	size_t max;
	bool has_begun, is_good; /* of a body; a 2xx for `into` */
	size_t too_large;        /* the limit that was passed, or 0 */
	bool (*grant)(void *arg, size_t n);
	void *grant_arg;
	size_t granted;
	bool is_refused;
};

/* At the first byte: what is announced as too large is not read. */
static void begin_body(struct download *d)
{
	curl_off_t announced = -1;
	long status = 0;

	d->has_begun = true;
	lib.getinfo(d->easy, CURLINFO_RESPONSE_CODE, &status);
	lib.getinfo(d->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
	d->is_good = d->into != NULL && status >= 200 && status < 300;
	if (d->into != NULL && !d->is_good)
		d->max = ERROR_MAX;
	if (announced > 0 && (uint64_t)announced > d->max)
		d->too_large = d->max;
}

/* Memory for `need` bytes of the body, in steps that double as the buffer does. */
static bool has_grant(struct download *d, size_t need)
{
	size_t step = MAX(need - MIN(need, d->granted), MAX(d->granted, (size_t)GRANT_MIN));

	if (d->grant == NULL || need <= d->granted)
		return true;
	d->is_refused = !d->grant(d->grant_arg, step);
	d->granted += d->is_refused ? 0 : step;
	return !d->is_refused;
}

static size_t reply_body(char *p, size_t size, size_t n, void *arg)
{
	struct download *d = arg;
	struct buf *to;
	size_t len = size * n, have;

	if (!d->has_begun)
		begin_body(d);
	to = d->is_good ? d->into : &d->reply->body;
	have = d->is_good ? to->n - d->start : to->n;
	if (have + len > d->max)
		d->too_large = d->max;
	if (d->too_large > 0 || !has_grant(d, have + len))
		return 0;
	return buf_add(to, p, len) < 0 ? 0 : len;
}

static bool may_be_interrupted(const struct http_client *c)
{
	return c->settings.interrupt != NULL || c->settings.is_interrupted != NULL;
}

static bool is_interrupted(const struct http_client *c)
{
	const struct http_client_settings *set = &c->settings;

	return (set->interrupt != NULL && atomic_load(set->interrupt)) ||
	       (set->is_interrupted != NULL && set->is_interrupted(set->interrupt_arg));
}

/* Called about once a second, and whenever something moves. */
static int progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)a, (void)b, (void)c, (void)d;
	return is_interrupted(arg);
}

static size_t reply_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_reply *r = ((struct download *)arg)->reply;
	size_t len = size * n, end = len;
	const char *colon = memchr(p, ':', len);
	size_t value = 0;

	if (len >= 5 && memcmp(p, "HTTP/", 5) == 0)
		buf_reset(&r->headers); /* those before were of a 100 Continue */
	if (colon == NULL)
		return len;
	value = (size_t)(colon - p) + 1;
	while (value < end && isspace((unsigned char)p[value]))
		value++;
	while (end > value && isspace((unsigned char)p[end - 1]))
		end--;
	buf_add(&r->headers, p, (size_t)(colon - p));
	buf_add_char(&r->headers, '\0');
	buf_add(&r->headers, p + value, end - value);
	buf_add_char(&r->headers, '\0');
	return r->headers.overflow ? 0 : len;
}

/* ---- errors ---- */

/* Where a URL points, for messages: without user, and without what may be a secret in the query. */
static void where_of(const char *url, char out[WHERE_MAX], char peer[WHERE_MAX])
{
	const char *rest = strstr(url, "://");
	const char *host = rest ? rest + 3 : url;
	size_t authority = strcspn(host, "/?#");
	const char *at = memchr(host, '@', authority);
	size_t n = strcspn(host, "?#");

	if (at != NULL) {
		size_t user = (size_t)(at + 1 - host);

		host += user;
		authority -= user;
		n -= user;
	}
	snprintf(out, WHERE_MAX, "%.*s%.*s", rest ? (int)(rest + 3 - url) : 0, url,
		 (int)MIN(n, (size_t)WHERE_MAX), host);
	snprintf(peer, WHERE_MAX, "%.*s", (int)MIN(authority, (size_t)WHERE_MAX), host);
}

void http_client_where(const char *url, char out[HTTP_WHERE_MAX])
{
	char peer[WHERE_MAX];

	where_of(url, out, peer);
}

static enum err_kind kind_of(CURLcode rc)
{
	switch (rc) {
	case CURLE_OPERATION_TIMEDOUT:
		return ERR_TIMEOUT;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_BAD_CONTENT_ENCODING:
		return ERR_INVALID;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
		return ERR_PERMISSION;
	default:
		return ERR_UNAVAILABLE;
	}
}

/* "connection refused" as the system says it, in lower case. */
static void system_text(long number, char out[64])
{
	snprintf(out, 64, "%s", strerror((int)number));
	out[0] = (char)tolower((unsigned char)out[0]);
}

static int call_failed(struct http_client *c, const struct http_call *call, const char *method,
		       const struct download *d, CURLcode rc, struct err *err)
{
	char where[WHERE_MAX], peer[WHERE_MAX], text[64];
	long number = 0;

	where_of(call->url, where, peer);
	lib.getinfo(c->easy, CURLINFO_OS_ERRNO, &number);
	if (d->too_large > 0 || d->reply->headers.overflow)
		err_set(err, ERR_TOO_LARGE, "answer over %zu bytes",
			d->too_large > 0 ? d->too_large : (size_t)HEADERS_MAX);
	else if (d->is_refused)
		err_set(err, ERR_EXHAUSTED, "no memory for an answer of more than %zu bytes",
			d->granted);
	else if (rc == CURLE_ABORTED_BY_CALLBACK)
		err_set(err, ERR_UNAVAILABLE, "interrupted");
	else if (rc == CURLE_COULDNT_RESOLVE_HOST)
		err_set(err, ERR_UNAVAILABLE, "resolve %s: no address", peer);
	else if (rc == CURLE_COULDNT_CONNECT && number != 0) {
		system_text(number, text);
		err_set(err, ERR_UNAVAILABLE, "connect %s: %s",
			c->settings.unix_socket ? c->settings.unix_socket : peer, text);
	} else
		err_set(err, kind_of(rc), "%s: %s", peer, c->why[0] ? c->why : lib.strerror(rc));
	return err_wrap(err, "%s %s", method, where);
}

/* ---- a call ---- */

static size_t body_size(const struct http_call *call)
{
	size_t n = 0;

	for (size_t i = 0; i < call->n_body; i++)
		n += call->body[i].n;
	return n;
}

static struct curl_slist *add_header(struct curl_slist *list, const char *line)
{
	struct curl_slist *longer = lib.slist_append(list, line);

	if (longer == NULL)
		abort(); /* out of memory */
	return longer;
}

/* What the caller wants sent, and no extras of libcurl's. -1: a line break in a header. */
static int make_headers(const struct http_call *call, struct curl_slist **list, struct err *err)
{
	bool typed = false;

	for (size_t i = 0; i < call->n_headers; i++) {
		const struct http_header *h = &call->headers[i];
		char *line = NULL;

		if (strpbrk(h->name, "\r\n:") != NULL || strpbrk(h->value, "\r\n") != NULL)
			return err_set(err, ERR_INVALID, "header %.64s: line break in it", h->name);
		typed |= strcasecmp(h->name, "Content-Type") == 0;
		/* "Name;" is libcurl's way to send one without a value. */
		line = h->value[0] ? xasprintf("%s: %s", h->name, h->value)
				   : xasprintf("%s;", h->name);
		*list = add_header(*list, line);
		free(line);
	}
	*list = add_header(*list, "Expect:");
	if (!typed)
		*list = add_header(*list, "Content-Type:");
	return 0;
}

/* "1.2" as libcurl counts versions, whose highest ones are 16 bits up; 0: its own choice. */
static long tls_version(const char *name)
{
	static const struct {
		const char *name;
		long version;
	} versions[] = { { "1.0", CURL_SSLVERSION_TLSv1_0 },
			 { "1.1", CURL_SSLVERSION_TLSv1_1 },
			 { "1.2", CURL_SSLVERSION_TLSv1_2 },
			 { "1.3", CURL_SSLVERSION_TLSv1_3 } };

	for (size_t i = 0; name != NULL && i < COUNT_OF(versions); i++)
		if (strcmp(name, versions[i].name) == 0)
			return versions[i].version;
	return CURL_SSLVERSION_DEFAULT;
}

static void set_tls(struct http_client *c)
{
	const struct http_client_settings *set = &c->settings;
	long versions = tls_version(set->min_tls) | tls_version(set->max_tls) << 16;

	if (versions != CURL_SSLVERSION_DEFAULT)
		lib.setopt(c->easy, CURLOPT_SSLVERSION, versions);
	if (set->ca_file != NULL)
		lib.setopt(c->easy, CURLOPT_CAINFO, set->ca_file);
	if (set->cert_file != NULL)
		lib.setopt(c->easy, CURLOPT_SSLCERT, set->cert_file);
	if (set->key_file != NULL)
		lib.setopt(c->easy, CURLOPT_SSLKEY, set->key_file);
	if (set->insecure_skip_verify) {
		lib.setopt(c->easy, CURLOPT_SSL_VERIFYPEER, 0L);
		lib.setopt(c->easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

static void set_connection(struct http_client *c, const struct http_call *call)
{
	const struct http_client_settings *set = &c->settings;
	long connect_ms = set->connect_timeout_ms ? set->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	long total_ms = set->timeout_ms ? set->timeout_ms : TIMEOUT_MS;

	lib.easy_reset(c->easy); /* keeps the connections */
	lib.setopt(c->easy, CURLOPT_URL, call->url);
	lib.setopt(c->easy, CURLOPT_ERRORBUFFER, c->why);
	lib.setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
	lib.setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https");
	lib.setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	lib.setopt(c->easy, CURLOPT_USERAGENT, "spanmill/" SPANMILL_VERSION);
	lib.setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
	lib.setopt(c->easy, CURLOPT_TIMEOUT_MS,
		   call->timeout_ms ? (long)call->timeout_ms : total_ms);
	lib.setopt(c->easy, CURLOPT_PATH_AS_IS, 1L);
	if (set->stall_timeout_ms > 0) {
		lib.setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
		lib.setopt(c->easy, CURLOPT_LOW_SPEED_TIME, (long)set->stall_timeout_ms / 1000);
	}
	if (set->no_proxy || set->proxy != NULL)
		lib.setopt(c->easy, CURLOPT_PROXY, set->no_proxy ? "" : set->proxy);
	if (may_be_interrupted(c)) {
		lib.setopt(c->easy, CURLOPT_NOPROGRESS, 0L);
		lib.setopt(c->easy, CURLOPT_XFERINFOFUNCTION, progress);
		lib.setopt(c->easy, CURLOPT_XFERINFODATA, c);
	}
	if (set->unix_socket != NULL)
		lib.setopt(c->easy, CURLOPT_UNIX_SOCKET_PATH, set->unix_socket);
	if (set->one_call_per_connection)
		lib.setopt(c->easy, CURLOPT_FORBID_REUSE, 1L);
	if (set->max_idle_s > 0)
		lib.setopt(c->easy, CURLOPT_MAXAGE_CONN, (long)set->max_idle_s);
	set_tls(c);
}

static void set_request(struct http_client *c, const struct http_call *call, const char *method,
			struct upload *u)
{
	if (call->accept_compressed)
		lib.setopt(c->easy, CURLOPT_ACCEPT_ENCODING, "gzip");
	if (strcmp(method, "HEAD") == 0) {
		lib.setopt(c->easy, CURLOPT_NOBODY, 1L);
	} else if (call->n_body > 0 || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) {
		lib.setopt(c->easy, CURLOPT_POST, 1L);
		lib.setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_size(call));
		lib.setopt(c->easy, CURLOPT_READFUNCTION, upload_read);
		lib.setopt(c->easy, CURLOPT_READDATA, u);
		lib.setopt(c->easy, CURLOPT_SEEKFUNCTION, upload_seek);
		lib.setopt(c->easy, CURLOPT_SEEKDATA, u);
		lib.setopt(c->easy, CURLOPT_CUSTOMREQUEST, method);
	} else {
		lib.setopt(c->easy, CURLOPT_CUSTOMREQUEST, method);
	}
}

static void set_reply(struct http_client *c, struct download *d)
{
	buf_reset(&d->reply->headers);
	buf_reset(&d->reply->body);
	d->reply->headers.overflow = false;
	d->reply->status = 0;
	d->reply->headers.max = HEADERS_MAX;
	lib.setopt(c->easy, CURLOPT_WRITEFUNCTION, reply_body);
	lib.setopt(c->easy, CURLOPT_WRITEDATA, d);
	lib.setopt(c->easy, CURLOPT_HEADERFUNCTION, reply_header);
	lib.setopt(c->easy, CURLOPT_HEADERDATA, d);
}

/* One call under way. Its address must not change: libcurl writes to it. */
struct call_state {
	const struct http_call *call;
	const char *method;
	struct upload upload;
	struct download download;
	struct curl_slist *headers;
};

/* Everything said to libcurl, nothing sent. */
static int call_begin(struct http_client *c, const struct http_call *call, struct http_reply *reply,
		      struct call_state *s, struct err *err)
{
	*s = (struct call_state){
		.call = call,
		.method = call->method       ? call->method
			  : call->n_body > 0 ? "POST"
					     : "GET",
		.upload = { .pieces = call->body, .n = call->n_body },
		.download = { .easy = c->easy,
			      .reply = reply,
			      .into = call->into,
			      .start = call->into ? call->into->n : 0,
			      .max = call->max_reply ? call->max_reply : REPLY_MAX,
			      .grant = call->grant,
			      .grant_arg = call->grant_arg },
	};
	c->why[0] = '\0';
	set_connection(c, call);
	set_request(c, call, s->method, &s->upload);
	set_reply(c, &s->download);
	if (make_headers(call, &s->headers, err) < 0)
		return -1;
	lib.setopt(c->easy, CURLOPT_HTTPHEADER, s->headers);
	return 0;
}

/* It was carried out, with rc. */
static int call_end(struct http_client *c, struct call_state *s, CURLcode rc, struct err *err)
{
	long status = 0;

	if (rc != CURLE_OK)
		return call_failed(c, s->call, s->method, &s->download, rc, err);
	lib.getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	s->download.reply->status = (int)status;
	return 0;
}

static void call_fini(struct call_state *s, bool failed)
{
	if (failed && s->call->into != NULL)
		s->call->into->n = s->download.start;
	lib.slist_free_all(s->headers);
}

/* As curl_easy_perform, but looks up ten times a second: that calls back once, and a stop that has
 * several calls to end would wait seconds. */
static CURLcode perform(struct http_client *c)
{
	CURLcode rc = CURLE_ABORTED_BY_CALLBACK;
	int running = 0, left = 0;
	CURLMsg *m;

	if (!may_be_interrupted(c))
		return lib.perform(c->easy);
	if (c->multi == NULL)
		c->multi = lib.multi_init();
	if (c->multi == NULL || lib.multi_add(c->multi, c->easy) != CURLM_OK)
		return CURLE_FAILED_INIT;
	while (!is_interrupted(c) && lib.multi_perform(c->multi, &running) == CURLM_OK &&
	       running > 0)
		lib.multi_poll(c->multi, NULL, 0, INTERRUPT_POLL_MS, NULL);
	while ((m = lib.multi_read(c->multi, &left)) != NULL)
		if (m->msg == CURLMSG_DONE)
			rc = m->data.result;
	lib.multi_remove(c->multi, c->easy);
	return rc;
}

int http_client_call(struct http_client *c, const struct http_call *call, struct http_reply *reply,
		     struct err *err)
{
	struct call_state s;
	int ret = call_begin(c, call, reply, &s, err);

	if (ret == 0)
		ret = call_end(c, &s, perform(c), err);
	call_fini(&s, ret < 0);
	return ret;
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
	const char *p = (const char *)reply->headers.p;
	size_t left = reply->headers.n;

	while (left > 0) {
		size_t n = strlen(p) + 1;
		const char *value = p + n;
		size_t both = n + strlen(value) + 1;

		if (strcasecmp(p, name) == 0)
			return value;
		p += both;
		left -= both;
	}
	return NULL;
}

void http_reply_fini(struct http_reply *reply)
{
	buf_fini(&reply->headers);
	buf_fini(&reply->body);
	*reply = (struct http_reply)HTTP_REPLY_INIT;
}

/* ---- several at once ---- */

struct http_group {
	CURLM *multi; /* owns the connections */
	struct http_client_settings settings;
	struct http_client **clients; /* one per call of the largest round so far */
	size_t n, cap;
};

struct http_group *http_group_new(const struct http_client_settings *settings, struct err *err)
{
	struct http_client *first = http_client_new(settings, err);
	struct http_group *g;

	if (first == NULL)
		return NULL;
	g = xcalloc(1, sizeof(*g));
	g->clients = xgrow(g->clients, &g->cap, 1, sizeof(*g->clients));
	g->clients[g->n++] = first;
	g->settings = first->settings; /* its strings live as long as it does */
	g->multi = lib.multi_init();
	if (g->multi == NULL) {
		err_set(err, ERR_INTERNAL, "http client: curl_multi_init failed");
		http_group_free(g);
		return NULL;
	}
	return g;
}

void http_group_free(struct http_group *g)
{
	if (g == NULL)
		return;
	for (size_t i = g->n; i-- > 0;)
		http_client_free(g->clients[i]);
	if (g->multi != NULL)
		lib.multi_cleanup(g->multi);
	free(g->clients);
	free(g);
}

static struct http_client *client_of(struct http_group *g, size_t i, struct err *err)
{
	struct http_client *c;

	if (i < g->n)
		return g->clients[i];
	c = http_client_new(&g->settings, err);
	if (c == NULL)
		return NULL;
	g->clients = xgrow(g->clients, &g->cap, g->n + 1, sizeof(*g->clients));
	g->clients[g->n++] = c;
	return c;
}

/* Until nothing runs any more. Every call has its time-out, so this ends. */
static void turn(struct http_group *g)
{
	int running = 0;

	while (lib.multi_perform(g->multi, &running) == CURLM_OK && running > 0)
		lib.multi_poll(g->multi, NULL, 0, POLL_MS, NULL);
}

/* What became of client c's call. Those never told of did not run. */
static void take_results(struct http_group *g, CURLcode *rcs, size_t n)
{
	CURLMsg *m;
	int left = 0;

	while ((m = lib.multi_read(g->multi, &left)) != NULL)
		for (size_t i = 0; m->msg == CURLMSG_DONE && i < n; i++)
			if (g->clients[i]->easy == m->easy_handle)
				rcs[i] = m->data.result;
}

void http_group_call(struct http_group *g, const struct http_call *calls,
		     struct http_reply *replies, struct err *errs, size_t n)
{
	struct call_state *states = xcalloc(n, sizeof(*states));
	CURLcode *rcs = xmalloc(n * sizeof(*rcs));
	size_t begun = 0;

	for (; begun < n && client_of(g, begun, &errs[begun]) != NULL; begun++) {
		struct http_client *c = g->clients[begun];

		err_clear(&errs[begun]);
		rcs[begun] = CURLE_FAILED_INIT;
		if (call_begin(c, &calls[begun], &replies[begun], &states[begun], &errs[begun]) ==
		    0)
			lib.multi_add(g->multi, c->easy);
	}
	for (size_t i = begun + 1; i < n; i++)
		errs[i] = errs[begun];
	turn(g);
	take_results(g, rcs, begun);
	for (size_t i = 0; i < begun; i++) {
		lib.multi_remove(g->multi, g->clients[i]->easy);
		if (errs[i].kind == ERR_NONE)
			call_end(g->clients[i], &states[i], rcs[i], &errs[i]);
		call_fini(&states[i], errs[i].kind != ERR_NONE);
	}
	free(rcs);
	free(states);
}

/* ---- calls that nobody waits for ---- */

enum { STAGE_NONE, STAGE_QUEUED, STAGE_RUNNING, STAGE_CANCELLED };

struct http_lane {
	CURLM *multi;
	struct http_client *pattern; /* its settings are those of all */
	struct http_client **spare;  /* clients without a call */
	size_t n_spare, cap_spare;
	struct http_lane_call *running; /* the lane thread's */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* all below, and the calls' stage */
	pthread_cond_t given_up;
	struct http_lane_call *queued, **queued_tail;
	bool stopping;
};

struct http_lane *http_lane_new(const struct http_client_settings *settings,
				const struct http_lane_limits *limits, struct err *err)
{
	struct http_client *pattern = http_client_new(settings, err);
	struct http_lane *l;

	if (pattern == NULL)
		return NULL;
	l = xcalloc(1, sizeof(*l));
	l->pattern = pattern;
	l->queued_tail = &l->queued;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->given_up, NULL);
	l->multi = lib.multi_init();
	if (l->multi == NULL) {
		err_set(err, ERR_INTERNAL, "http client: curl_multi_init failed");
		http_lane_free(l);
		return NULL;
	}
	if (limits != NULL && limits->max_conns > 0)
		lib.multi_setopt(l->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)limits->max_conns);
	if (limits != NULL && limits->max_idle > 0)
		lib.multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)limits->max_idle);
	return l;
}

/* The call is not libcurl's any more; its client waits for the next one. */
static void lane_put_client(struct http_lane *l, struct http_lane_call *c, bool failed)
{
	if (c->state != NULL)
		call_fini(c->state, failed);
	free(c->state);
	c->state = NULL;
	if (c->client == NULL)
		return;
	l->spare = xgrow(l->spare, &l->cap_spare, l->n_spare + 1, sizeof(*l->spare));
	l->spare[l->n_spare++] = c->client;
	c->client = NULL;
}

static void lane_done(struct http_lane *l, struct http_lane_call *c)
{
	bool given_up;

	lane_put_client(l, c, c->err.kind != ERR_NONE);
	pthread_mutex_lock(&l->lock);
	given_up = c->stage == STAGE_CANCELLED;
	c->stage = STAGE_NONE;
	if (given_up)
		pthread_cond_broadcast(&l->given_up);
	pthread_mutex_unlock(&l->lock);
	if (!given_up)
		c->done(c);
}

static void lane_begin(struct http_lane *l, struct http_lane_call *c)
{
	c->client = l->n_spare > 0 ? l->spare[--l->n_spare]
				   : http_client_new(&l->pattern->settings, &c->err);
	if (c->client != NULL) {
		c->state = xcalloc(1, sizeof(*c->state));
		if (call_begin(c->client, &c->call, &c->reply, c->state, &c->err) == 0 &&
		    lib.multi_add(l->multi, c->client->easy) == CURLM_OK) {
			c->next = l->running;
			l->running = c;
			return;
		}
		if (c->err.kind == ERR_NONE)
			err_set(&c->err, ERR_INTERNAL, "http client: curl_multi_add failed");
	}
	lane_done(l, c);
}

/* Off the list of those that run; NULL when there is none like it. */
static struct http_lane_call *lane_take_running(struct http_lane *l, const CURL *easy)
{
	struct http_lane_call **at = &l->running, *c;

	while ((c = *at) != NULL &&
	       (easy != NULL ? c->client->easy != easy : c->stage != STAGE_CANCELLED))
		at = &c->next;
	if (c != NULL) {
		*at = c->next;
		lib.multi_remove(l->multi, c->client->easy);
	}
	return c;
}

/* Start what is queued, give up what is to be given up. False: the end. */
static bool lane_commands(struct http_lane *l)
{
	struct http_lane_call *c, *next;
	bool stopping;

	pthread_mutex_lock(&l->lock);
	c = l->queued;
	l->queued = NULL;
	l->queued_tail = &l->queued;
	stopping = l->stopping;
	for (struct http_lane_call *q = c; q != NULL; q = q->next)
		if (q->stage == STAGE_QUEUED)
			q->stage = STAGE_RUNNING;
	pthread_mutex_unlock(&l->lock);
	for (; c != NULL; c = next) {
		next = c->next;
		lane_begin(l, c);
	}
	for (;;) {
		pthread_mutex_lock(&l->lock);
		c = lane_take_running(l, NULL);
		pthread_mutex_unlock(&l->lock);
		if (c == NULL)
			return !stopping;
		err_set(&c->err, ERR_UNAVAILABLE, "cancelled");
		lane_done(l, c);
	}
}

static void *lane_thread(void *arg)
{
	struct http_lane *l = arg;
	struct http_lane_call *c;
	int running = 0, left = 0;
	CURLMsg *m;

	pthread_setname_np(pthread_self(), "http");
	while (lane_commands(l)) {
		lib.multi_perform(l->multi, &running);
		while ((m = lib.multi_read(l->multi, &left)) != NULL) {
			CURLcode rc = m->data.result;

			if (m->msg != CURLMSG_DONE)
				continue;
			c = lane_take_running(l, m->easy_handle);
			call_end(c->client, c->state, rc, &c->err);
			lane_done(l, c);
		}
		lib.multi_poll(l->multi, NULL, 0, running > 0 ? POLL_MS : IDLE_POLL_MS, NULL);
	}
	return NULL;
}

/* With the lock. */
static void lane_start_thread(struct http_lane *l)
{
	sigset_t all, before;

	if (l->has_thread)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	l->has_thread = pthread_create(&l->thread, NULL, lane_thread, l) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void http_lane_start(struct http_lane *l, struct http_lane_call *c)
{
	bool ok;

	err_clear(&c->err);
	pthread_mutex_lock(&l->lock);
	lane_start_thread(l);
	ok = l->has_thread;
	if (ok) {
		c->next = NULL;
		c->client = NULL;
		c->state = NULL;
		c->stage = STAGE_QUEUED;
		*l->queued_tail = c;
		l->queued_tail = &c->next;
	}
	pthread_mutex_unlock(&l->lock);
	if (ok) {
		lib.multi_wakeup(l->multi);
		return;
	}
	err_set(&c->err, ERR_EXHAUSTED, "http client: no thread to be had");
	c->done(c);
}

bool http_lane_cancel(struct http_lane *l, struct http_lane_call *c)
{
	struct http_lane_call **at;
	bool given_up;

	pthread_mutex_lock(&l->lock);
	given_up = c->stage != STAGE_NONE;
	if (c->stage == STAGE_QUEUED) {
		for (at = &l->queued; *at != c;)
			at = &(*at)->next;
		*at = c->next;
		if (*at == NULL)
			l->queued_tail = at;
		c->stage = STAGE_NONE;
	} else if (c->stage == STAGE_RUNNING) {
		c->stage = STAGE_CANCELLED;
		lib.multi_wakeup(l->multi);
	}
	while (given_up && c->stage == STAGE_CANCELLED)
		pthread_cond_wait(&l->given_up, &l->lock);
	pthread_mutex_unlock(&l->lock);
	return given_up;
}

void http_lane_free(struct http_lane *l)
{
	if (l == NULL)
		return;
	if (l->has_thread) {
		pthread_mutex_lock(&l->lock);
		l->stopping = true;
		pthread_mutex_unlock(&l->lock);
		lib.multi_wakeup(l->multi);
		pthread_join(l->thread, NULL);
	}
	assert(l->running == NULL && l->queued == NULL);
	while (l->n_spare > 0)
		http_client_free(l->spare[--l->n_spare]);
	free(l->spare);
	if (l->multi != NULL)
		lib.multi_cleanup(l->multi);
	http_client_free(l->pattern);
	pthread_cond_destroy(&l->given_up);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
