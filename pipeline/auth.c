/* SPDX-License-Identifier: Apache-2.0
 *
 * auth.c - see auth.h.
 *
 * DESIGN: a slow check (bcrypt) would stop a loop for tens of milliseconds, so it is one worker
 * thread's, whatever the number of requests: who guesses passwords gets one core at the most, and
 * what waits is bounded. What was right once is known at once the next time, so clients that are
 * let in do not queue behind those that are not.
 * OWNERSHIP: a job holds a reference of its request, and nothing of the server.
 */
#include "pipeline/auth.h"

#include "base/mem.h"

#include <pthread.h>

enum { MAX_WAITING = 64 };

static const char denied[] = "missing or wrong credentials";
static const char too_many[] = "too many credentials to check, try again";

struct job {
	struct job *next;
	const struct authenticator *a;
	struct buf value;
	enum auth_verdict verdict;
	struct loop *loop;
	struct loop_task task;
	struct http_request *req; /* one of the two */
	struct grpc_call *call;
};

struct auth_worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct job *first, **last; /* lock */
	unsigned n;                /* lock */
	bool stopping;             /* lock */
};

/* ---- which ---- */

static int find(struct component *c, const char *id, const struct authenticator **a,
		struct err *err)
{
	struct component *ext = id[0] != '\0' ? component_extension(c, id) : NULL;

	*a = NULL;
	if (id[0] == '\0')
		return 0;
	if (ext == NULL || ext->type->authenticator == NULL)
		return err_set(err, ERR_CONFIG, "auth: \"%s\" is not an authenticator", id);
	*a = ext->type->authenticator(ext);
	return 0;
}

int auth_of_server(struct component *c, const char *id, const struct authenticator **a,
		   struct err *err)
{
	if (find(c, id, a, err) < 0)
		return -1;
	if (*a != NULL && (*a)->check == NULL)
		return err_set(err, ERR_CONFIG,
			       "auth: extension \"%s\" has nothing to check "
			       "clients by: give it htpasswd, token, tokens or filename",
			       id);
	return 0;
}

int auth_of_client(struct component *c, const char *id, const struct authenticator **a,
		   struct err *err)
{
	if (find(c, id, a, err) < 0)
		return -1;
	if (*a != NULL && (*a)->credentials == NULL)
		return err_set(err, ERR_CONFIG,
			       "auth: extension \"%s\" has no credentials to "
			       "send: give it client_auth, token or filename",
			       id);
	return 0;
}

/* ---- the worker ---- */

static void *work(void *arg)
{
	struct auth_worker *w = arg;
	struct job *j;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->first == NULL && !w->stopping)
			pthread_cond_wait(&w->cond, &w->lock);
		if ((j = w->first) == NULL)
			break;
		w->first = j->next;
		if (w->first == NULL)
			w->last = &w->first;
		pthread_mutex_unlock(&w->lock);
		j->verdict = j->a->check_slowly(j->a->arg, buf_bytes(&j->value));
		loop_post(j->loop, &j->task);
		pthread_mutex_lock(&w->lock);
		w->n--;
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct auth_worker *auth_worker_new(void)
{
	struct auth_worker *w = xcalloc(1, sizeof(*w));

	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	w->last = &w->first;
	if (pthread_create(&w->thread, NULL, work, w) != 0) {
		free(w);
		return NULL;
	}
	return w;
}

void auth_worker_free(struct auth_worker *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->cond);
	free(w);
}

/* Takes j unless false: too many wait. */
static bool post(struct auth_worker *w, struct job *j)
{
	bool room;

	if (w == NULL)
		return false;
	pthread_mutex_lock(&w->lock);
	room = w->n < MAX_WAITING && !w->stopping;
	if (room) {
		w->n++;
		*w->last = j;
		w->last = &j->next;
		pthread_cond_signal(&w->cond);
	}
	pthread_mutex_unlock(&w->lock);
	return room;
}

static struct job *job_new(const struct authenticator *a, struct bytes value, struct loop *loop,
			   void (*done)(void *arg))
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->a = a;
	j->loop = loop;
	buf_add_bytes(&j->value, value);
	j->task = (struct loop_task){ .fn = done, .arg = j };
	return j;
}

static void job_free(struct job *j)
{
	if (j->value.p != NULL)
		explicit_bzero(j->value.p, j->value.n);
	buf_fini(&j->value);
	free(j);
}

/* ---- HTTP ---- */

static struct bytes http_value(const struct http_request *req, const struct authenticator *a)
{
	const char *value = http_request_header(req, a->header);

	return value != NULL ? bytes_str(value) : BYTES_EMPTY;
}

static void deny_http(struct http_request *req, const struct authenticator *a)
{
	http_request_challenge(req, a->challenge);
	http_respond_error(req, 401, 0, "%s", denied);
}

static void http_checked(void *arg)
{
	struct job *j = arg;

	if (j->verdict == AUTH_YES)
		http_request_proceed(j->req);
	else
		deny_http(j->req, j->a);
	http_request_unref(j->req);
	job_free(j);
}

static void http_gate(struct http_request *req, void *arg)
{
	const struct authenticator *a = arg;
	struct job *j = job_new(a, http_value(req, a), http_request_loop(req), http_checked);

	j->req = http_request_ref(req);
	if (post(a->worker, j))
		return;
	http_respond_error(req, 503, 1, "%s", too_many);
	http_request_unref(j->req);
	job_free(j);
}

void auth_http(struct http_request *req, const struct authenticator *a)
{
	switch (a->check(a->arg, http_value(req, a))) {
	case AUTH_YES:
		break;
	case AUTH_NO:
		deny_http(req, a);
		break;
	case AUTH_LATER:
		http_request_gate(req, http_gate, (void *)(uintptr_t)a);
		break;
	}
}

/* ---- gRPC ---- */

static void grpc_checked(void *arg)
{
	struct job *j = arg;

	if (j->verdict == AUTH_YES)
		grpc_call_proceed(j->call);
	else
		grpc_call_fail(j->call, GRPC_UNAUTHENTICATED, denied, 0);
	grpc_call_unref(j->call);
	job_free(j);
}

static void grpc_gate(struct grpc_call *call, void *arg)
{
	const struct authenticator *a = arg;
	struct job *j =
		job_new(a, grpc_call_header(call, a->header), grpc_call_loop(call), grpc_checked);

	j->call = grpc_call_ref(call);
	if (post(a->worker, j))
		return;
	grpc_call_fail(call, GRPC_UNAVAILABLE, too_many, 1000);
	grpc_call_unref(j->call);
	job_free(j);
}

enum grpc_status auth_grpc(struct grpc_call *call, const char **message, void *authenticator)
{
	const struct authenticator *a = authenticator;

	*message = denied;
	switch (a->check(a->arg, grpc_call_header(call, a->header))) {
	case AUTH_YES:
		return GRPC_OK;
	case AUTH_LATER:
		grpc_call_gate(call, grpc_gate, authenticator);
		return GRPC_OK;
	default:
		return GRPC_UNAUTHENTICATED;
	}
}
