/* SPDX-License-Identifier: Apache-2.0
 *
 * listen_registry.c - see listen_registry.h.
 */
#include "net/listen_registry.h"

#include "base/mem.h"
#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

/* An endpoint with the registry's own descriptors. */
struct listen_lease {
	struct listen_lease *next;
	char *endpoint;
	int *fds;
	size_t n;
	bool is_udp, in_use;
};

static struct {
	pthread_mutex_t lock;
	struct listen_lease *first;
	bool keeping;
} registry = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* n copies of the descriptors in `from`; -1 with errno and none. */
static int duplicate(const int *from, int *to, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		to[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3);
		if (to[i] < 0) {
			int saved = errno;

			listen_close(NULL, to, i);
			errno = saved;
			return -1;
		}
	}
	return 0;
}

/* Lock held. */
static void forget(struct listen_lease *lease)
{
	struct listen_lease **at = &registry.first;

	while (*at != lease)
		at = &(*at)->next;
	*at = lease->next;
	listen_close(lease->is_udp ? NULL : lease->endpoint, lease->fds, lease->n);
	free(lease->endpoint);
	free(lease->fds);
	free(lease);
}

/* Could both be the same address, written otherwise? */
static bool may_be_same(const char *a, const char *b)
{
	struct listen_endpoint x, y;

	if (listen_parse(a, &x, NULL) < 0 || listen_parse(b, &y, NULL) < 0 ||
	    x.is_unix != y.is_unix)
		return false;
	return x.is_unix ? strcmp(x.host, y.host) == 0 : x.port == y.port && x.port != 0;
}

/* Close what nobody uses; with an endpoint only what may be the same. Lock held; true when
 * something was. */
static bool forget_idle(const char *endpoint, bool is_udp)
{
	bool any = false;

	for (struct listen_lease *l = registry.first, *next; l != NULL; l = next) {
		next = l->next;
		if (l->in_use || (endpoint != NULL &&
				  (l->is_udp != is_udp || !may_be_same(l->endpoint, endpoint))))
			continue;
		forget(l);
		any = true;
	}
	return any;
}

/* The idle sockets of this endpoint, when they are as many as wanted. Lock held. */
static struct listen_lease *find_idle(const char *endpoint, size_t n, bool is_udp)
{
	for (struct listen_lease *l = registry.first; l != NULL; l = l->next)
		if (!l->in_use && l->n == n && l->is_udp == is_udp &&
		    strcmp(l->endpoint, endpoint) == 0)
			return l;
	return NULL;
}

static int bind_all(const char *endpoint, int *fds, size_t n, bool is_udp, struct err *err)
{
	if (!is_udp)
		return listen_open(endpoint, fds, n, err);
	fds[0] = listen_open_udp(endpoint, err);
	return fds[0] < 0 ? -1 : 0;
}

/* Sockets that are new to the registry. Lock held. */
static struct listen_lease *open_new(const char *endpoint, int *fds, size_t n, bool is_udp,
				     struct err *err)
{
	struct listen_lease *lease;
	struct err first = ERR_INIT;
	int ret = bind_all(endpoint, fds, n, is_udp, &first);

	/* The address may be an idle entry's that is written otherwise. */
	if (ret < 0 && forget_idle(endpoint, is_udp)) {
		err_clear(&first);
		ret = bind_all(endpoint, fds, n, is_udp, &first);
	}
	if (ret < 0) {
		if (err != NULL)
			*err = first;
		return NULL;
	}
	lease = xcalloc(1, sizeof(*lease));
	lease->endpoint = xstrdup(endpoint);
	lease->fds = xcalloc(MAX(n, (size_t)1), sizeof(*lease->fds));
	lease->n = n;
	lease->is_udp = is_udp;
	if (duplicate(fds, lease->fds, n) < 0) {
		err_errno(err, "listen on \"%s\"", endpoint);
		listen_close(is_udp ? NULL : endpoint, fds, n);
		free(lease->endpoint);
		free(lease->fds);
		free(lease);
		return NULL;
	}
	lease->next = registry.first;
	registry.first = lease;
	return lease;
}

static struct listen_lease *open_any(const char *endpoint, int *fds, size_t n, bool is_udp,
				     struct err *err)
{
	struct listen_lease *lease;

	pthread_mutex_lock(&registry.lock);
	lease = find_idle(endpoint, n, is_udp);
	if (lease == NULL) {
		lease = open_new(endpoint, fds, n, is_udp, err);
	} else if (duplicate(lease->fds, fds, n) < 0) {
		err_errno(err, "listen on \"%s\"", endpoint);
		lease = NULL;
	}
	if (lease != NULL)
		lease->in_use = true;
	pthread_mutex_unlock(&registry.lock);
	return lease;
}

struct listen_lease *listen_registry_open(const char *endpoint, int *fds, size_t n, struct err *err)
{
	return open_any(endpoint, fds, n, false, err);
}

struct listen_lease *listen_registry_open_udp(const char *endpoint, int *fd, struct err *err)
{
	return open_any(endpoint, fd, 1, true, err);
}

void listen_registry_close(struct listen_lease *lease)
{
	if (lease == NULL)
		return;
	pthread_mutex_lock(&registry.lock);
	lease->in_use = false;
	if (!registry.keeping)
		forget(lease);
	pthread_mutex_unlock(&registry.lock);
}

void listen_registry_keep(void)
{
	pthread_mutex_lock(&registry.lock);
	registry.keeping = true;
	pthread_mutex_unlock(&registry.lock);
}

void listen_registry_settle(void)
{
	pthread_mutex_lock(&registry.lock);
	registry.keeping = false;
	forget_idle(NULL, false);
	pthread_mutex_unlock(&registry.lock);
}
