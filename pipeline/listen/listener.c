/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.c - see listener.h.
 */
#include "pipeline/listen/listener.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/listen.h"
#include "net/listen_registry.h"
#include "net/udp_server.h"
#include "pipeline/conf/error.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* The endpoint in net/listen.h's words. */
static char *address(const char *endpoint, int transport)
{
	bool any_host = endpoint[0] == ':';

	if (transport == NET_TRANSPORT_UNIX && !str_has_prefix(endpoint, "unix:"))
		return xasprintf("unix:%s", endpoint);
	if (transport == NET_TRANSPORT_TCP4 && any_host)
		return xasprintf("0.0.0.0%s", endpoint);
	if (transport == NET_TRANSPORT_TCP6 && any_host)
		return xasprintf("[::]%s", endpoint);
	return xstrdup(endpoint);
}

static bool is_local(const struct sockaddr_storage *sa)
{
	if (sa->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	if (sa->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(
			&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
	return true;
}

static void announce(const struct listener *l, const struct component *c, bool has_tls,
		     const char *sentence)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof(sa);
	char text[LISTEN_ADDR_SIZE] = "";

	if (getsockname(l->fds[0], (struct sockaddr *)&sa, &n) < 0)
		return;
	listen_format((struct sockaddr *)&sa, text);
	log_info(sentence, "component", c->id, "endpoint", text);
	if (is_local(&sa))
		return;
	if (has_tls)
		log_info("this endpoint is open to other machines", "component", c->id, "endpoint",
			 text);
	else
		log_warn("this endpoint is open to other machines, without TLS", "component", c->id,
			 "endpoint", text);
}

int listener_open(struct listener *l, struct component *c, const char *endpoint, int transport,
		  bool has_tls, unsigned n, const char *sentence, struct err *err)
{
	l->endpoint = address(endpoint, transport);
	l->fds = xcalloc(n, sizeof(*l->fds));
	l->lease = listen_registry_open(l->endpoint, l->fds, n, err);
	if (l->lease == NULL) {
		free(l->endpoint);
		free(l->fds);
		*l = (struct listener){ .n = 0 };
		return -1;
	}
	l->n = n;
	announce(l, c, has_tls, sentence);
	return 0;
}

int listener_open_udp(struct listener *l, struct component *c, const char *endpoint,
		      uint64_t buffer_bytes, const char *sentence, struct err *err)
{
	l->endpoint = xstrdup(endpoint);
	l->fds = xcalloc(1, sizeof(*l->fds));
	l->lease = listen_registry_open_udp(endpoint, l->fds, err);
	if (l->lease == NULL) {
		free(l->endpoint);
		free(l->fds);
		*l = (struct listener){ .n = 0 };
		return -1;
	}
	l->n = 1;
	udp_size_buffer(l->fds[0], buffer_bytes);
	announce(l, c, false, sentence);
	/* The kernel counts its own overhead: it doubles what was asked for. */
	if (udp_buffer_bytes(l->fds[0]) / 2 < buffer_bytes)
		log_warn("the system grants less socket buffer than socket_buffer_size: raise "
			 "net.core.rmem_max",
			 "component", c->id, "wanted", LOG_NUM(buffer_bytes), "granted",
			 LOG_NUM(udp_buffer_bytes(l->fds[0]) / 2));
	return 0;
}

int listener_take(struct listener *l, unsigned i)
{
	int fd = l->fds[i];

	l->fds[i] = -1;
	return fd;
}

void listener_close(struct listener *l)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->fds[i] >= 0)
			close(l->fds[i]);
	listen_registry_close(l->lease);
	free(l->endpoint);
	free(l->fds);
	*l = (struct listener){ .n = 0 };
}

int listener_tls(struct component *c, bool tls_on, const struct tls_server_options *o,
		 const char *section, const char *alpn, struct tls **tls, struct err *err)
{
	const struct tls_common_options *t = &o->common;
	char *what = NULL;

	if (!tls_on)
		return 0;
	what = xasprintf("%s %s", c->id, section);
	*tls = tls_new_server(
		&(struct tls_settings){ .what = what,
					.cert_file = t->cert_file,
					.key_file = t->key_file,
					.cert_pem = t->cert_pem,
					.key_pem = t->key_pem,
					.client_ca_file = o->client_ca_file,
					.min_version = tls_version_name(t->min_version),
					.max_version = tls_version_name(t->max_version),
					.reload_ns = (uint64_t)t->reload_interval_ns,
					.client_ca_reload = o->client_ca_file_reload,
					.ciphers = t->cipher_suites.items,
					.n_ciphers = t->cipher_suites.n,
					.groups = t->curve_preferences.items,
					.n_groups = t->curve_preferences.n,
					.alpn = alpn },
		err);
	free(what);
	return *tls != NULL ? 0 : -1;
}

void listener_check_tls(const struct tls_server_options *o, const struct conf_node *node,
			const char *key, struct conf_errors *errs, const char *yaml_path)
{
	const struct tls_common_options *t = &o->common;

	option_blocks_check_tls(t, node, key, errs, yaml_path);
	option_blocks_check_tls_names(t, node, key, errs, yaml_path);
	if (t->cert_file[0] == '\0' && t->cert_pem[0] == '\0' && t->key_file[0] == '\0' &&
	    t->key_pem[0] == '\0')
		conf_error_at(errs, node, yaml_path, key, "set cert_file and key_file",
			      "a server needs a certificate");
}

void listener_check(const char *endpoint, int transport, const struct conf_node *node,
		    const char *key, struct conf_errors *errs, const char *yaml_path)
{
	if (transport != NET_TRANSPORT_UNIX)
		option_blocks_check_endpoint(endpoint, true, node, key, errs, yaml_path);
	else if (endpoint[0] == '\0')
		conf_error_at(errs, node, yaml_path, key, "write the path of the socket",
			      "an endpoint is needed with transport unix");
}
