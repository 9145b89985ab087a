/* SPDX-License-Identifier: Apache-2.0
 *
 * detectors.h - what a process can tell of where it runs, as resource attributes.
 *
 *   env        OTEL_RESOURCE_ATTRIBUTES=service.name=shop,team=a%20b
 *   system     host.name, os.type; asked for: host.id, host.arch, host.ip, host.mac, os.description
 *   container  container.id, from the cgroup or the mounts of this process
 *
 * Reads files and asks the resolver: for start, not for the data path. SPEC: OpenTelemetry resource
 * semantic conventions; the Collector's resource_detection.
 */
#ifndef PROCESSORS_RESOURCE_DETECTION_DETECTORS_H
#define PROCESSORS_RESOURCE_DETECTION_DETECTORS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum detector_attribute {
	DETECT_HOST_NAME,
	DETECT_OS_TYPE,
	DETECT_HOST_ID,
	DETECT_HOST_ARCH,
	DETECT_HOST_IP,
	DETECT_HOST_MAC,
	DETECT_OS_DESCRIPTION,
	DETECT_CONTAINER_ID,
	DETECT_MAX,
};

/* Its name in the semantic conventions; whether it is on unless said otherwise. */
extern const struct detector_attribute_info {
	const char *name;
	bool is_system; /* else of the container detector */
	bool is_default;
} detector_attributes[DETECT_MAX];

enum { DETECTED_MAX = 256 };

/* Attributes found so far, in order; the first of a name counts. Texts are in `arena`. */
struct detected {
	struct arena arena;
	struct {
		struct bytes key;
		struct bytes any; /* content of an AnyValue */
	} v[DETECTED_MAX];
	size_t n;
};

/* -1 with a reason when the variable is malformed or a value is not UTF-8. */
int detect_env(const char *variable, struct detected *out, struct err *err);
/* The attributes that `on` has; name_by_dns: ask the resolver for the full host name first. -1: one
 * of them cannot be told. */
int detect_system(const bool on[DETECT_MAX], bool name_by_dns, struct detected *out,
		  struct err *err);
/* Nothing is found (and that is no error) outside a container. */
void detect_container(struct detected *out);
/* The container id in the text of /proc/self/cgroup or mountinfo: 64 hex digits; false: none. */
bool detect_container_id(struct bytes text, struct bytes *id);
void detected_fini(struct detected *d);

#endif
