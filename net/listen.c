/* SPDX-License-Identifier: Apache-2.0
 *
 * listen.c - see listen.h.
 *
 * DESIGN: SO_REUSEPORT lets every loop accept on its own socket, but it would also let a second
 * process of the same user share the port unseen. So the first socket is bound without it, which
 * fails when anybody listens there, and gets the option afterwards.
 * SPEC: the Collector's confignet endpoints (reference: otel-collector.md).
 */
#include "net/listen.h"

#include "base/str.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <fcntl.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

/* ---- endpoints ---- */

static int parse_unix(const char *endpoint, const char *path, struct listen_endpoint *e,
		      struct err *err)
{
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(err, ERR_CONFIG,
			       "endpoint \"%s\": a socket's path has 1 to %zu bytes", endpoint,
			       sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	e->is_unix = true;
	memcpy(e->host, path, n + 1);
	return 0;
}

static int parse_port(const char *endpoint, const char *port, struct listen_endpoint *e,
		      struct err *err)
{
	uint64_t v = 0;

	if (str_to_u64(bytes_str(port), &v) < 0 || v > 65535)
		return err_set(err, ERR_CONFIG,
			       "endpoint \"%s\": port \"%s\" is not a number from 0 to 65535",
			       endpoint, port);
	e->port = (uint16_t)v;
	return 0;
}

/* The host's bytes [host, end), brackets stripped. */
static int parse_host(const char *endpoint, const char *host, const char *end,
		      struct listen_endpoint *e, struct err *err)
{
	bool bracketed = end - host >= 2 && host[0] == '[' && end[-1] == ']';
	size_t n;

	if (bracketed) {
		host++;
		end--;
	}
	n = (size_t)(end - host);
	if (!bracketed && memchr(host, ':', n) != NULL)
		return err_set(
			err, ERR_CONFIG,
			"endpoint \"%s\": too many colons: write an IPv6 address as [::1]:4317",
			endpoint);
	if (n > LISTEN_HOST_MAX || memchr(host, '[', n) != NULL || memchr(host, ']', n) != NULL)
		return err_set(err, ERR_CONFIG, "endpoint \"%s\": bad host", endpoint);
	memcpy(e->host, host, n);
	e->host[n] = '\0';
	return 0;
}

int listen_parse(const char *endpoint, struct listen_endpoint *e, struct err *err)
{
	const char *colon;

	memset(e, 0, sizeof(*e));
	if (str_has_prefix(endpoint, "unix:"))
		return parse_unix(endpoint, endpoint + 5 + 2 * str_has_prefix(endpoint, "unix://"),
				  e, err);
	if (endpoint[0] == '/')
		return parse_unix(endpoint, endpoint, e, err);
	colon = strrchr(endpoint, ':');
	if (colon == NULL || strchr(colon, ']') != NULL)
		return err_set(err, ERR_CONFIG,
			       "endpoint \"%s\": missing port: write host:port, for example "
			       "localhost:4317",
			       endpoint);
	if (parse_host(endpoint, endpoint, colon, e, err) < 0)
		return -1;
	return parse_port(endpoint, colon + 1, e, err);
}

/* ---- sockets ---- */

/* One address to bind for a TCP endpoint. */
struct bind_addr {
	struct sockaddr_storage sa;
	socklen_t n;
};

static void any_address(uint16_t port, bool v6, struct bind_addr *a)
{
	struct sockaddr_in6 *s6 = (void *)&a->sa;
	struct sockaddr_in *s4 = (void *)&a->sa;

	memset(a, 0, sizeof(*a));
	if (v6) {
		s6->sin6_family = AF_INET6;
		s6->sin6_port = htons(port);
		a->n = sizeof(*s6);
	} else {
		s4->sin_family = AF_INET;
		s4->sin_port = htons(port);
		a->n = sizeof(*s4);
	}
}

/* The first address of the host, IPv4 before IPv6 as in Go ("localhost" must be 127.0.0.1). */
static int lookup(const char *endpoint, const struct listen_endpoint *e, struct bind_addr *a,
		  struct err *err)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *all, *p;
	char port[8];
	int rc;

	snprintf(port, sizeof(port), "%u", e->port);
	rc = getaddrinfo(e->host, port, &hints, &all);
	if (rc != 0)
		return err_set(err, ERR_UNAVAILABLE, "endpoint \"%s\": host \"%s\": %s", endpoint,
			       e->host, gai_strerror(rc));
	for (p = all; p != NULL && p->ai_family != AF_INET; p = p->ai_next)
		;
	if (p == NULL)
		p = all;
	memset(a, 0, sizeof(*a));
	memcpy(&a->sa, p->ai_addr, p->ai_addrlen);
	a->n = p->ai_addrlen;
	freeaddrinfo(all);
	return 0;
}

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/* A bound, listening TCP socket, or -1 with errno. */
static int open_tcp(const struct bind_addr *a, bool first)
{
	int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int saved;

	if (fd < 0)
		return -1;
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (a->sa.ss_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (!first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0)
		goto fail;
	if (bind(fd, (const struct sockaddr *)&a->sa, a->n) < 0)
		goto fail;
	if (first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0)
		goto fail;
	if (listen(fd, BACKLOG) == 0)
		return fd;
fail:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int open_tcp_group(const char *endpoint, const struct listen_endpoint *e, int *fds, size_t n,
			  struct err *err)
{
	bool any = e->host[0] == '\0';
	struct bind_addr a;

	if (any)
		any_address(e->port, true, &a);
	else if (lookup(endpoint, e, &a, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		fds[i] = open_tcp(&a, i == 0);
		if (fds[i] < 0 && i == 0 && any &&
		    (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
			/* A host without IPv6. */
			any_address(e->port, false, &a);
			fds[i] = open_tcp(&a, true);
		}
		if (fds[i] < 0) {
			err_errno(err, "listen on \"%s\"", endpoint);
			listen_close(NULL, fds, i);
			return -1;
		}
		if (i == 0) {
			a.n = sizeof(a.sa);
			getsockname(fds[0], (struct sockaddr *)&a.sa, &a.n);
		}
	}
	return 0;
}

static int bind_udp(const struct bind_addr *a)
{
	int fd = socket(a->sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), saved;

	if (fd < 0)
		return -1;
	if (a->sa.ss_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(fd, (const struct sockaddr *)&a->sa, a->n) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int listen_open_udp(const char *endpoint, struct err *err)
{
	struct listen_endpoint e;
	struct bind_addr a;
	int fd;

	if (listen_parse(endpoint, &e, err) < 0)
		return -1;
	if (e.is_unix)
		return err_set(err, ERR_CONFIG,
			       "endpoint \"%s\": datagrams come over UDP: write host:port",
			       endpoint);
	if (e.host[0] == '\0')
		any_address(e.port, true, &a);
	else if (lookup(endpoint, &e, &a, err) < 0)
		return -1;
	fd = bind_udp(&a);
	if (fd < 0 && e.host[0] == '\0' && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
		any_address(e.port, false, &a); /* a host without IPv6 */
		fd = bind_udp(&a);
	}
	return fd >= 0 ? fd : err_errno(err, "listen on \"%s\" (UDP)", endpoint);
}

static void unix_address(const struct listen_endpoint *e, struct sockaddr_un *un)
{
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, e->host, strlen(e->host) + 1);
}

/* A socket file nobody listens on is a dead process's: remove it, and only it. */
static void remove_stale(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	if (fd < 0)
		return;
	if (stat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 && errno == ECONNREFUSED)
		unlink(un->sun_path);
	close(fd);
}

static int open_unix_group(const char *endpoint, const struct listen_endpoint *e, int *fds,
			   size_t n, struct err *err)
{
	struct sockaddr_un un;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	unix_address(e, &un);
	remove_stale(&un);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&un, sizeof(un)) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		err_errno(err, "listen on \"%s\"", endpoint);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	fds[0] = fd;
	for (size_t i = 1; i < n; i++) {
		fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0) {
			err_errno(err, "listen on \"%s\"", endpoint);
			listen_close(endpoint, fds, i);
			return -1;
		}
	}
	return 0;
}

int listen_open(const char *endpoint, int *fds, size_t n, struct err *err)
{
	struct listen_endpoint e;

	if (listen_parse(endpoint, &e, err) < 0)
		return -1;
	if (n == 0)
		return 0;
	return e.is_unix ? open_unix_group(endpoint, &e, fds, n, err)
			 : open_tcp_group(endpoint, &e, fds, n, err);
}

void listen_close(const char *endpoint, int *fds, size_t n)
{
	struct listen_endpoint e;

	for (size_t i = 0; i < n; i++) {
		close(fds[i]);
		fds[i] = -1;
	}
	if (endpoint != NULL && listen_parse(endpoint, &e, NULL) == 0 && e.is_unix)
		unlink(e.host);
}

uint16_t listen_port(int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
		return 0;
	if (sa.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port);
	if (sa.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)(void *)&sa)->sin6_port);
	return 0;
}

void listen_format(const struct sockaddr *a, char out[LISTEN_ADDR_SIZE])
{
	const struct sockaddr_in6 *s6 = (const void *)a;
	const struct sockaddr_in *s4 = (const void *)a;
	const struct sockaddr_un *un = (const void *)a;
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->sa_family == AF_INET) {
		inet_ntop(AF_INET, &s4->sin_addr, host, sizeof(host));
		snprintf(out, LISTEN_ADDR_SIZE, "%s:%u", host, ntohs(s4->sin_port));
	} else if (a->sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &s6->sin6_addr, host, sizeof(host));
		snprintf(out, LISTEN_ADDR_SIZE, "[%s]:%u", host, ntohs(s6->sin6_port));
	} else if (a->sa_family == AF_UNIX) {
		snprintf(out, LISTEN_ADDR_SIZE, "unix:%s", un->sun_path);
	} else {
		snprintf(out, LISTEN_ADDR_SIZE, "unknown");
	}
}
