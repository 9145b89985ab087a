/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_lib.c - see kafka_lib.h: loading librdkafka, properties, its logs, its errors.
 */
#include "net/kafka_lib.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/kafka_token.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the library ---- */

static struct kafka_lib lib;
static char lib_why[200]; /* it could not be loaded; "" when it was */
static pthread_once_t lib_once = PTHREAD_ONCE_INIT;

static void load_library(void)
{
#define KAFKA_SYMBOL(name) { "rd_kafka_" #name, &lib.name },
	static const struct {
		const char *name;
		void *slot;
	} symbols[] = {
#include "net/kafka_lib.def"
	};
#undef KAFKA_SYMBOL
	void *so = dlopen("librdkafka.so.1", RTLD_NOW | RTLD_LOCAL);
	bool ok = so != NULL;

	for (size_t i = 0; ok && i < COUNT_OF(symbols); i++) {
		void *p = dlsym(so, symbols[i].name);

		/* ISO C has no conversion from an object's to a function's address. */
		memcpy(symbols[i].slot, &p, sizeof(p));
		ok = p != NULL;
	}
	if (!ok)
		snprintf(lib_why, sizeof(lib_why), "%s", dlerror());
}

const struct kafka_lib *kafka_lib(struct err *err)
{
	pthread_once(&lib_once, load_library);
	if (lib_why[0] == '\0')
		return &lib;
	err_set(err, ERR_UNIMPLEMENTED, "librdkafka cannot be loaded, install librdkafka1: %s",
		lib_why);
	return NULL;
}

/* ---- logs ---- */

/* librdkafka's levels are syslog's. What is no more than a broken connection is not our error: it
 * goes on trying, and what waits for it says so itself. */
static void log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	const struct kafka_settings *const *s = rk ? lib.opaque(rk) : NULL;
	const char *id = s && *s ? (*s)->id : "kafka";

	if (level <= 2)
		log_error("kafka client", "component", id, "facility", facility, "text", text);
	else if (level <= 4)
		log_warn("kafka client", "component", id, "facility", facility, "text", text);
	else if (level <= 6)
		log_info("kafka client", "component", id, "facility", facility, "text", text);
	else
		log_debug("kafka client", "component", id, "facility", facility, "text", text);
}

/* ---- properties ---- */

static int set_property(rd_kafka_conf_t *conf, const char *name, const char *value, struct err *err)
{
	char why[200] = "";

	if (lib.conf_set(conf, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
		return 0;
	return err_set(err, ERR_CONFIG, "%.64s: %s", name, why);
}

int kafka_client_check_property(const char *name, const char *value, struct err *err)
{
	rd_kafka_conf_t *conf;
	int ret;

	if (kafka_lib(err) == NULL)
		return -1;
	conf = lib.conf_new();
	ret = set_property(conf, name, value, err);
	lib.conf_destroy(conf);
	return ret;
}

/* librdkafka does not say which file it could not read. */
static int check_file(const struct kafka_property *p, struct err *err)
{
	static const char *const names[] = { "ssl.ca.location", "ssl.certificate.location",
					     "ssl.key.location" };

	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (strcmp(p->name, names[i]) == 0 && strcmp(p->value, "probe") != 0 &&
		    access(p->value, R_OK) < 0)
			return err_set(err, ERR_CONFIG, "%s: open %s: %s", p->name, p->value,
				       strerror(errno));
	return 0;
}

/* On a thread of librdkafka's, at start and again at 80 % of the token's life. */
static void refresh_token(rd_kafka_t *rk, const char *config, void *opaque)
{
	const struct kafka_settings *s = *(const struct kafka_settings *const *)opaque;
	struct kafka_token *t = xmalloc(sizeof(*t));
	struct err err = ERR_INIT;
	char why[200] = "";

	(void)config;
	if (kafka_token_read(s->token_file, t, &err) == 0 &&
	    lib.oauthbearer_set_token(rk, t->text, t->expires_ms, t->principal, NULL, 0, why,
				      sizeof(why)) != RD_KAFKA_RESP_ERR_NO_ERROR)
		err_set(&err, ERR_INVALID, "token file %s: %s", s->token_file, why);
	if (err.kind != ERR_NONE) {
		log_error("no token for the brokers", "component", s->id, "error", err.msg);
		lib.oauthbearer_set_token_failure(rk, err.msg);
	}
	free(t);
}

void kafka_lib_token_refused(rd_kafka_t *rk, const struct kafka_settings *s)
{
	struct kafka_token *t;
	char why[200] = "";

	if (s->token_file == NULL)
		return;
	t = xmalloc(sizeof(*t));
	/* What is wrong with it is said when its turn comes. */
	if (kafka_token_read(s->token_file, t, NULL) == 0)
		lib.oauthbearer_set_token(rk, t->text, t->expires_ms, t->principal, NULL, 0, why,
					  sizeof(why));
	free(t);
}

/* Before 2.6.1 its SCRAM sent a nonce that Kafka 4 refuses as invalid credentials. */
static void check_scram(const struct kafka_settings *s)
{
	const char *mechanism = "";

	for (size_t i = 0; i < s->n_properties; i++)
		if (strcmp(s->properties[i].name, "sasl.mechanisms") == 0)
			mechanism = s->properties[i].value;
	if (strncmp(mechanism, "SCRAM", 5) == 0 && lib.version() < 0x020601ff)
		log_warn("SCRAM of this librdkafka does not work with Kafka 4: install 2.6.1 or "
			 "newer",
			 "component", s->id, "librdkafka", lib.version_str());
}

rd_kafka_conf_t *kafka_lib_conf(const struct kafka_settings *s, void *opaque, struct err *err)
{
	rd_kafka_conf_t *conf;

	if (kafka_lib(err) == NULL)
		return NULL;
	check_scram(s);
	conf = lib.conf_new();
	for (size_t i = 0; i < s->n_properties; i++)
		if (set_property(conf, s->properties[i].name, s->properties[i].value, err) < 0 ||
		    check_file(&s->properties[i], err) < 0) {
			lib.conf_destroy(conf);
			return NULL;
		}
	lib.conf_set_opaque(conf, opaque);
	lib.conf_set_log_cb(conf, log_line);
	if (s->token_file != NULL) {
		lib.conf_set_oauthbearer_token_refresh_cb(conf, refresh_token);
		lib.conf_enable_sasl_queue(conf, 1);
	}
	return conf;
}

rd_kafka_t *kafka_lib_open(rd_kafka_type_t type, rd_kafka_conf_t *conf, struct err *err)
{
	char why[200] = "";
	rd_kafka_t *rk = NULL;

	if (conf == NULL)
		return NULL;
	rk = lib.new(type, conf, why, sizeof(why));
	if (rk == NULL) {
		lib.conf_destroy(conf); /* it is only taken on success */
		err_set(err, ERR_CONFIG, "kafka client: %s", why);
		return NULL;
	}
	if ((*(const struct kafka_settings *const *)lib.opaque(rk))->token_file != NULL)
		kafka_lib_error(NULL, lib.sasl_background_callbacks_enable(rk), "sasl");
	return rk;
}

/* ---- errors ---- */

static const struct {
	rd_kafka_resp_err_t code;
	enum err_kind kind;
	bool retryable;
} kinds[] = {
	{ RD_KAFKA_RESP_ERR__TIMED_OUT, ERR_TIMEOUT, true },
	{ RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, ERR_TIMEOUT, true },
	{ RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, ERR_TIMEOUT, true },
	{ RD_KAFKA_RESP_ERR__QUEUE_FULL, ERR_EXHAUSTED, true },
	{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ERR_TOO_LARGE, false },
	{ RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, ERR_TOO_LARGE, false },
	{ RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, ERR_TOO_LARGE, false },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, ERR_NOT_FOUND, true },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, ERR_NOT_FOUND, true },
	{ RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ERR_NOT_FOUND, true },
	{ RD_KAFKA_RESP_ERR__AUTHENTICATION, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR__SSL, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR__FATAL, ERR_INTERNAL, true }, /* a new handle can do it */
	{ RD_KAFKA_RESP_ERR__INVALID_ARG, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, ERR_UNIMPLEMENTED, false },
	{ RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR_INVALID_RECORD, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR_INVALID_MSG, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, ERR_INVALID, false }, /* the name is not legal */
	{ RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, ERR_INVALID, false },
};

static int set_err(struct err *err, rd_kafka_resp_err_t code, const char *what, const char *says)
{
	enum err_kind kind = ERR_UNAVAILABLE;
	bool retryable = true;

	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		if (kinds[i].code == code) {
			kind = kinds[i].kind;
			retryable = kinds[i].retryable;
		}
	err_set(err, kind, "%s: %s (%s)", what, says, lib.err2name(code));
	if (err != NULL)
		err->retryable = retryable;
	return -1;
}

int kafka_lib_err(struct err *err, rd_kafka_resp_err_t code, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return set_err(err, code, what, lib.err2str(code));
}

int kafka_lib_error(struct err *err, rd_kafka_error_t *e, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	if (e == NULL)
		return 0;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	set_err(err, lib.error_code(e), what, lib.error_string(e));
	lib.error_destroy(e);
	return -1;
}
