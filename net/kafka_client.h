/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_client.h - what a Kafka producer and a consumer have in common, without librdkafka's types:
 * its properties as names and values, and who asks.
 *
 * librdkafka is loaded when the first client is made (or a property is checked), so a process
 * without Kafka pays nothing for it.
 *
 * THREADS: any.
 */
#ifndef NET_KAFKA_CLIENT_H
#define NET_KAFKA_CLIENT_H

#include "base/base.h"
#include "base/err.h"

/* One property as librdkafka's CONFIGURATION.md spells it. */
struct kafka_property {
	const char *name;
	const char *value;
};

struct kafka_settings {
	const char *id; /* of the component: what log lines say; outlives the client */
	const struct kafka_property
		*properties; /* in order: of two with one name the last counts */
	size_t n_properties;
	const char *token_file; /* OAUTHBEARER: the token, read again before it expires; or NULL */
};

/* May this property have this value? *err says why not, in librdkafka's words. ERR_UNIMPLEMENTED
 * when the library is not there. */
int kafka_client_check_property(const char *name, const char *value, struct err *err);

#endif
