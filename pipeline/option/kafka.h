/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka.h - the keys that the kafka exporter and the kafka receiver share: brokers, TLS,
 * authentication, metadata; and how they become librdkafka's properties.
 *
 *   table -> struct kafka_client_options -> kafka_options_properties -> [the component's own]
 *         -> kafka_options_raw (`librdkafka:`, which may override) -> struct kafka_settings
 *
 * OWNERSHIP, THREADS: plain data; properties own their texts. One thread at a time.
 * SPEC: the Collector's kafka configuration (v0.153 and its older spellings); librdkafka's
 * CONFIGURATION.md.
 */
#ifndef PIPELINE_OPTION_KAFKA_H
#define PIPELINE_OPTION_KAFKA_H

#include "net/kafka_client.h"
#include "pipeline/option/blocks.h"

enum kafka_mechanism {
	KAFKA_MECHANISM_UNSET,
	KAFKA_PLAIN,
	KAFKA_SCRAM_SHA_256,
	KAFKA_SCRAM_SHA_512,
	KAFKA_OAUTHBEARER,
	KAFKA_AWS_MSK_IAM,
	KAFKA_AWS_MSK_IAM_OAUTHBEARER,
};

struct kafka_login_options {
	const char *username, *password;
};

struct kafka_sasl_options {
	struct kafka_login_options login;
	int mechanism; /* enum kafka_mechanism */
	const char *aws_region, *token_source, *token_file;
};

struct kafka_kerberos_options {
	const char *service_name, *realm, *username, *password, *config_file, *keytab_file;
	bool use_keytab;
};

/* OPT_INCLUDE(C, client, struct kafka_client_options, kafka_client_option_table) */
struct kafka_client_options {
	struct strlist brokers;
	const char *protocol_version, *client_id, *rack_id;
	int64_t conn_idle_timeout_ns;
	bool tls_on;
	struct tls_client_options tls;
	bool plain_text_on, sasl_on, kerberos_on, auth_tls_on;
	struct kafka_login_options plain_text;
	struct kafka_sasl_options sasl;
	struct kafka_kerberos_options kerberos;
	struct tls_client_options auth_tls;
	bool metadata_full;
	int64_t metadata_refresh_ns, metadata_backoff_ns;
	struct strmap raw; /* librdkafka: */
};

extern const struct option kafka_client_option_table[];

/* A property that `librdkafka:` may not set, because a key of ours (or a promise) stands on it. */
struct kafka_owned {
	const char *property;
	const char *hint; /* what to do instead */
};

/* What the table cannot say, for a component's validate. `owned` ends with a NULL property and
 * comes on top of what every client owns; may be NULL. */
void kafka_options_check(const struct kafka_client_options *o, const struct kafka_owned *owned,
			 const struct conf_node *node, struct conf_errors *errs, const char *path);

struct kafka_properties {
	struct kafka_property *v;
	size_t n, cap;
	struct arena arena;
};

#define KAFKA_PROPERTIES_INIT                                                                      \
	{                                                                                          \
		NULL, 0, 0, ARENA_INIT                                                             \
	}

/* Add one. Copies name and value. */
void kafka_properties_add(struct kafka_properties *p, const char *name, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* The value that counts, or NULL. */
const char *kafka_properties_find(const struct kafka_properties *p, const char *name);
/* Add what the options of the block say. */
void kafka_options_properties(const struct kafka_client_options *o, struct kafka_properties *out);
/* Add `librdkafka:`; last. */
void kafka_options_raw(const struct kafka_client_options *o, struct kafka_properties *out);
void kafka_properties_fini(struct kafka_properties *p);

#endif
