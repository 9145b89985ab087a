/* SPDX-License-Identifier: Apache-2.0
 *
 * listen_registry.h - listening sockets that outlive who serves them, for a reload.
 *
 *   open ---> in use ---close---> gone                       at any other time
 *                \------close---> idle ---open---> in use    between _keep and _settle
 *                                   \---_settle---> gone
 *
 * The registry has a descriptor of its own for every socket, so that the sockets of a component
 * that ends stay open, their backlogs in the kernel, until its successor takes them: no client is
 * refused in between. Nothing is lent to two at a time: an endpoint in use is bound again, which
 * fails as it does for two processes.
 * An endpoint is known by its text: the same address written otherwise, or with another number of
 * sockets, is closed and opened anew.
 * One registry per process. THREADS: any; opening may block on a look-up of a name.
 */
#ifndef NET_LISTEN_REGISTRY_H
#define NET_LISTEN_REGISTRY_H

#include "base/err.h"

struct listen_lease;

/* As listen_open, from an idle entry when there is one. The n descriptors in fds are the caller's
 * to close. NULL on error: nothing stays open. */
struct listen_lease *listen_registry_open(const char *endpoint, int *fds, size_t n,
					  struct err *err);
/* The same for one socket that takes datagrams, as listen_open_udp. */
struct listen_lease *listen_registry_open_udp(const char *endpoint, int *fd, struct err *err);
/* The caller closed its descriptors, or is about to. NULL is fine. */
void listen_registry_close(struct listen_lease *lease);

/* From here on what is closed stays idle. */
void listen_registry_keep(void);
/* What nobody took is closed; the file of a unix socket goes. */
void listen_registry_settle(void);

#endif
