/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_lease.c - see compact_lease.h.
 */
#include "blocks/compact_lease.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdio.h>

#define LEASES "_spanmill/leases/compaction"

enum { RENEW_BEFORE_S = 20 };

static int key_of(const struct compact_lease *l, uint64_t slot, char key[BACKEND_KEY_MAX + 1],
		  struct err *err)
{
	return backend_key(key, err, LEASES "/%s/%s/%llu.json", l->tenant, l->group,
			   (unsigned long long)slot);
}

/* EXISTS may be our own put whose answer was lost. */
static int is_owner(const struct compact_lease *l, const char *key)
{
	struct buf text = BUF_INIT;
	int ret = 0;

	if (backend_read(l->be, key, KIB, &text, NULL) == 0)
		ret = strstr(buf_cstr(&text), l->owner) != NULL;
	buf_fini(&text);
	return ret;
}

static int put_slot(const struct compact_lease *l, uint64_t slot, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1], text[80];
	struct err local = ERR_INIT;

	if (key_of(l, slot, key, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "{\"owner\":\"%s\"}", l->owner);
	if (backend_put(l->be, key, bytes_str(text), BACKEND_IF_NONE_MATCH, &local) == 0)
		return 1;
	if (local.kind == ERR_EXISTS)
		return is_owner(l, key);
	if (err != NULL)
		*err = local;
	return -1;
}

static void delete_slot(const struct compact_lease *l, uint64_t slot)
{
	char key[BACKEND_KEY_MAX + 1];

	/* What stays is swept later. */
	if (slot != 0 && key_of(l, slot, key, NULL) == 0)
		(void)backend_delete(l->be, key, NULL);
}

int compact_lease_take(struct compact_lease *l, struct backend *be, const char *owner,
		       const char *tenant, const char *group, struct err *err)
{
	uint64_t slot = backend_now_ns(be) / NS_PER_S / COMPACT_LEASE_S;
	int got;

	*l = (struct compact_lease){ .be = be, .owner = owner };
	snprintf(l->tenant, sizeof(l->tenant), "%s", tenant);
	snprintf(l->group, sizeof(l->group), "%s", group);
	got = put_slot(l, slot, err);
	if (got == 1)
		l->slot = slot;
	return got;
}

void compact_lease_renew(struct compact_lease *l)
{
	uint64_t held = l->slot, now_s, next;

	if (held == 0)
		return;
	now_s = backend_now_ns(l->be) / NS_PER_S;
	if (now_s + RENEW_BEFORE_S < (held + 1) * COMPACT_LEASE_S)
		return;
	next = MAX(held + 1, now_s / COMPACT_LEASE_S);
	l->slot = put_slot(l, next, NULL) == 1 ? next : 0;
	delete_slot(l, held);
}

void compact_lease_release(struct compact_lease *l)
{
	delete_slot(l, l->slot);
	l->slot = 0;
}

struct sweep {
	struct backend *be;
	uint64_t before_slot;
};

static int sweep_one(void *arg, const struct backend_entry *e, struct err *err)
{
	struct sweep *s = arg;
	const char *name = strrchr(e->key, '/');
	uint64_t slot = 0;
	size_t n;

	if (e->is_prefix || name == NULL)
		return 0;
	n = strspn(++name, "0123456789");
	if (strcmp(name + n, ".json") != 0 ||
	    str_to_u64((struct bytes){ (const uint8_t *)name, n }, &slot) < 0 ||
	    slot >= s->before_slot)
		return 0;
	return backend_delete(s->be, e->key, err);
}

int compact_lease_sweep(struct backend *be, uint64_t age_ns, struct err *err)
{
	uint64_t now = backend_now_ns(be);
	struct sweep s = { be, (now - MIN(now, age_ns)) / NS_PER_S / COMPACT_LEASE_S };

	return backend_list(be, LEASES, BACKEND_RECURSIVE, sweep_one, &s, err);
}
