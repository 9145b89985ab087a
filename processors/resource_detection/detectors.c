/* SPDX-License-Identifier: Apache-2.0
 *
 * detectors.c - see detectors.h.
 */
#include "processors/resource_detection/detectors.h"

#include "base/str.h"
#include "wire/any_value.h"
#include "wire/pb.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { FILE_MAX = 64 << 10, CONTAINER_ID = 64 };

const struct detector_attribute_info detector_attributes[DETECT_MAX] = {
	[DETECT_HOST_NAME] = { "host.name", true, true },
	[DETECT_OS_TYPE] = { "os.type", true, true },
	[DETECT_HOST_ID] = { "host.id", true, false },
	[DETECT_HOST_ARCH] = { "host.arch", true, false },
	[DETECT_HOST_IP] = { "host.ip", true, false },
	[DETECT_HOST_MAC] = { "host.mac", true, false },
	[DETECT_OS_DESCRIPTION] = { "os.description", true, false },
	[DETECT_CONTAINER_ID] = { "container.id", false, true },
};

/* ---- the list ---- */

static void add(struct detected *d, struct bytes key, struct bytes any)
{
	for (size_t i = 0; i < d->n; i++)
		if (bytes_eq(d->v[i].key, key))
			return;
	if (d->n == DETECTED_MAX)
		return;
	d->v[d->n].key = (struct bytes){ arena_dup(&d->arena, key.p, key.n), key.n };
	d->v[d->n++].any = (struct bytes){ arena_dup(&d->arena, any.p, any.n), any.n };
}

static void add_text(struct detected *d, struct bytes key, struct bytes text)
{
	struct buf any = BUF_INIT;

	pb_put_bytes(&any, ANY_STRING, text);
	add(d, key, buf_bytes(&any));
	buf_fini(&any);
}

static void add_attribute(struct detected *d, enum detector_attribute a, const char *text)
{
	add_text(d, bytes_str(detector_attributes[a].name), bytes_str(text));
}

void detected_fini(struct detected *d)
{
	arena_fini(&d->arena);
}

/* ---- env ---- */

/* Cut at `sep`: the part before it, without blanks around. */
static struct bytes cut(struct bytes *rest, char sep)
{
	const uint8_t *at = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
	struct bytes part = { rest->p, at ? (size_t)(at - rest->p) : rest->n };

	rest->p += part.n + (at != NULL);
	rest->n -= part.n + (at != NULL);
	while (part.n > 0 && part.p[0] == ' ') {
		part.p++;
		part.n--;
	}
	while (part.n > 0 && part.p[part.n - 1] == ' ')
		part.n--;
	return part;
}

/* %20 and so on; a stray % stays. */
static void percent_decode(struct bytes s, struct buf *out)
{
	uint8_t byte;

	buf_reset(out);
	for (size_t i = 0; i < s.n; i++) {
		struct bytes hex = { s.p + i + 1, 2 };

		if (s.p[i] == '%' && s.n - i > 2 && str_unhex(hex, &byte, 1) == 0) {
			buf_add_char(out, (char)byte);
			i += 2;
		} else {
			buf_add_char(out, (char)s.p[i]);
		}
	}
}

int detect_env(const char *variable, struct detected *out, struct err *err)
{
	struct bytes rest = bytes_str(variable), pair;
	struct buf value = BUF_INIT;
	int rc = 0;

	while (rest.n > 0 && rc == 0) {
		struct bytes all = pair = cut(&rest, ','), key;

		if (pair.n == 0)
			continue;
		key = cut(&pair, '=');
		percent_decode(cut(&pair, '\0'), &value);
		if (key.n == 0 || key.n == all.n || !str_is_utf8(key) ||
		    !str_is_utf8(buf_bytes(&value)))
			rc = err_set(err, ERR_CONFIG,
				     "OTEL_RESOURCE_ATTRIBUTES: not key=value in UTF-8: \"%.*s\"",
				     (int)MIN(all.n, 60), (const char *)all.p);
		else
			add_text(out, key, buf_bytes(&value));
	}
	buf_fini(&value);
	return rc;
}

/* ---- system ---- */

/* The start of a small file as text; its length, 0 when it cannot be read. */
static size_t read_file(const char *path, char *to, size_t size)
{
	FILE *f = fopen(path, "re");
	size_t n = f != NULL ? fread(to, 1, size - 1, f) : 0;

	if (f != NULL)
		fclose(f);
	to[n] = '\0';
	return n;
}

/* The full name by the resolver, when it is more than the bare name. */
static bool name_of_dns(const char *bare, char *to, size_t size)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_flags = AI_CANONNAME }, *list;
	bool ok = getaddrinfo(bare, NULL, &hints, &list) == 0;

	if (!ok)
		return false;
	ok = list->ai_canonname != NULL && strcmp(list->ai_canonname, "localhost") != 0;
	if (ok)
		snprintf(to, size, "%s", list->ai_canonname);
	freeaddrinfo(list);
	return ok;
}

static int detect_name(bool by_dns, struct detected *out, struct err *err)
{
	char bare[256] = "", full[256];

	if (gethostname(bare, sizeof(bare) - 1) < 0)
		return err_set(err, ERR_IO, "host.name: gethostname: %s", strerror(errno));
	add_attribute(out, DETECT_HOST_NAME,
		      by_dns && name_of_dns(bare, full, sizeof(full)) ? full : bare);
	return 0;
}

static int detect_id(struct detected *out, struct err *err)
{
	char id[256];

	if (read_file("/etc/machine-id", id, sizeof(id)) == 0 &&
	    read_file("/var/lib/dbus/machine-id", id, sizeof(id)) == 0)
		return err_set(err, ERR_IO, "host.id: no /etc/machine-id");
	id[strcspn(id, "\r\n")] = '\0';
	add_attribute(out, DETECT_HOST_ID, id);
	return 0;
}

/* As the conventions call what uname calls otherwise. */
static const char *arch_name(const char *machine)
{
	static const char *const names[][2] = { { "x86_64", "amd64" }, { "aarch64", "arm64" },
						{ "armv7l", "arm32" }, { "i686", "x86" },
						{ "i386", "x86" },     { "ppc64le", "ppc64" } };

	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (strcmp(machine, names[i][0]) == 0)
			return names[i][1];
	return machine;
}

/* Append the address of one interface to a list of texts; false: none of this kind. */
static bool add_address(const struct ifaddrs *a, enum detector_attribute what, struct buf *list)
{
	char text[64] = "";
	struct buf any = BUF_INIT;

	if (a->ifa_addr == NULL || (a->ifa_flags & IFF_LOOPBACK) != 0)
		return false;
	if (what == DETECT_HOST_MAC && a->ifa_addr->sa_family == AF_PACKET) {
		const struct sockaddr_ll *l = (const void *)a->ifa_addr;
		const uint8_t *m = l->sll_addr;

		if (l->sll_halen == 6)
			snprintf(text, sizeof(text), "%02X-%02X-%02X-%02X-%02X-%02X", m[0], m[1],
				 m[2], m[3], m[4], m[5]);
	} else if (what == DETECT_HOST_IP && a->ifa_addr->sa_family == AF_INET) {
		inet_ntop(AF_INET,
			  &((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr, text,
			  sizeof(text));
	} else if (what == DETECT_HOST_IP && a->ifa_addr->sa_family == AF_INET6) {
		inet_ntop(AF_INET6,
			  &((const struct sockaddr_in6 *)(const void *)a->ifa_addr)->sin6_addr,
			  text, sizeof(text));
	}
	if (text[0] == '\0')
		return false;
	pb_put_str(&any, ANY_STRING, text);
	pb_put_bytes(list, 1, buf_bytes(&any));
	buf_fini(&any);
	return true;
}

static int detect_addresses(enum detector_attribute what, struct detected *out, struct err *err)
{
	struct buf list = BUF_INIT, any = BUF_INIT;
	struct ifaddrs *all = NULL;

	if (getifaddrs(&all) < 0)
		return err_set(err, ERR_IO, "%s: getifaddrs: %s", detector_attributes[what].name,
			       strerror(errno));
	for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next)
		add_address(a, what, &list);
	freeifaddrs(all);
	pb_put_bytes(&any, ANY_ARRAY, buf_bytes(&list));
	add(out, bytes_str(detector_attributes[what].name), buf_bytes(&any));
	buf_fini(&list);
	buf_fini(&any);
	return 0;
}

static int detect_one(enum detector_attribute a, bool name_by_dns, struct detected *out,
		      struct err *err)
{
	struct utsname u;
	char text[sizeof(u.sysname) + sizeof(u.release) + sizeof(u.version) + sizeof(u.machine) +
		  8];

	uname(&u);
	switch (a) {
	case DETECT_HOST_NAME:
		return detect_name(name_by_dns, out, err);
	case DETECT_HOST_ID:
		return detect_id(out, err);
	case DETECT_HOST_IP:
	case DETECT_HOST_MAC:
		return detect_addresses(a, out, err);
	case DETECT_OS_TYPE:
		add_attribute(out, a, "linux");
		return 0;
	case DETECT_HOST_ARCH:
		add_attribute(out, a, arch_name(u.machine));
		return 0;
	default:
		snprintf(text, sizeof(text), "%s %s %s %s", u.sysname, u.release, u.version,
			 u.machine);
		add_attribute(out, a, text);
		return 0;
	}
}

int detect_system(const bool on[DETECT_MAX], bool name_by_dns, struct detected *out,
		  struct err *err)
{
	for (int a = 0; a < DETECT_MAX; a++)
		if (on[a] && detector_attributes[a].is_system &&
		    detect_one((enum detector_attribute)a, name_by_dns, out, err) < 0)
			return -1;
	return 0;
}

/* ---- container ---- */

static bool is_hex(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool detect_container_id(struct bytes text, struct bytes *id)
{
	size_t run = 0;

	for (size_t i = 0; i <= text.n; i++) {
		if (i < text.n && is_hex(text.p[i])) {
			run++;
			continue;
		}
		if (run == CONTAINER_ID) {
			*id = (struct bytes){ text.p + i - run, run };
			return true;
		}
		run = 0;
	}
	return false;
}

/* The line of mountinfo that tells: Docker and Podman mount /etc/hostname from a folder named after
 * the container, containerd's sandbox likewise. Layers' digests stand on other lines. */
static bool id_of_mounts(const char *text, struct bytes *id)
{
	const char *at = strstr(text, "/containers/");

	for (; at != NULL; at = strstr(at + 1, "/containers/")) {
		struct bytes rest = { (const uint8_t *)at + 12, strcspn(at + 12, "/ \n") };

		if (detect_container_id(rest, id))
			return true;
	}
	return false;
}

void detect_container(struct detected *out)
{
	static char text[FILE_MAX]; /* start is on one thread */
	struct bytes id;
	size_t n = read_file("/proc/self/cgroup", text, sizeof(text));
	bool found = detect_container_id((struct bytes){ (const uint8_t *)text, n }, &id);

	if (!found) {
		read_file("/proc/self/mountinfo", text, sizeof(text));
		found = id_of_mounts(text, &id);
	}
	if (found)
		add_text(out, bytes_str(detector_attributes[DETECT_CONTAINER_ID].name), id);
}
