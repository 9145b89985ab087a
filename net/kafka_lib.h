/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_lib.h - librdkafka's functions, loaded on first use; only net/kafka_*.c include this.
 *
 * DESIGN: librdkafka and what it brings (SASL, OpenSSL's second half) cost start-up time and memory
 * in processes that never speak Kafka, so it is loaded like libcurl in http_client.c. Types and
 * signatures come from its header: kafka_lib()->conf_new is rd_kafka_conf_new.
 *
 * THREADS: any. OWNERSHIP: librdkafka's own rules.
 * SPEC: librdkafka 2.0 (Debian 12) and newer.
 */
#ifndef NET_KAFKA_LIB_H
#define NET_KAFKA_LIB_H

#include "net/kafka_client.h"

#include <librdkafka/rdkafka.h>

#define KAFKA_SYMBOL(name) __typeof__(rd_kafka_##name) *name;
struct kafka_lib {
#include "net/kafka_lib.def"
};
#undef KAFKA_SYMBOL

/* The loaded library, or NULL with *err (ERR_UNIMPLEMENTED, says which package is missing). */
const struct kafka_lib *kafka_lib(struct err *err);

/* A configuration of these properties, with `opaque` as the handle's (rd_kafka_opaque) and its log
 * lines sent to ours under `s->id`. NULL with *err (ERR_CONFIG). Give it to rd_kafka_new or destroy
 * it. */
rd_kafka_conf_t *kafka_lib_conf(const struct kafka_settings *s, void *opaque, struct err *err);
/* The handle; takes conf (NULL is fine: *err is that of kafka_lib_conf). The first bytes of
 * `opaque` must be a struct kafka_settings *, which log lines and token refreshes ask. NULL with
 * *err. */
rd_kafka_t *kafka_lib_open(rd_kafka_type_t type, rd_kafka_conf_t *conf, struct err *err);
/* The brokers refused to let us in: read the token again, which may have been put right long before
 * it would be asked for. Any thread; does nothing without a token file. */
void kafka_lib_token_refused(rd_kafka_t *rk, const struct kafka_settings *s);

/* Fill *err with kind, retryable and "fmt: what librdkafka or the broker says". Returns -1. A topic
 * that is not there and what is not allowed are retryable: both are mended at the broker, and then
 * what waited goes through. */
int kafka_lib_err(struct err *err, rd_kafka_resp_err_t code, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* The same for an error object, which it destroys. 0 when e is NULL. */
int kafka_lib_error(struct err *err, rd_kafka_error_t *e, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
