/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka.c - see kafka.h.
 */
#include "pipeline/option/kafka.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/tls.h"
#include "pipeline/conf/tree.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

/* ---- tables ---- */

static const struct option_choice mechanisms[] = {
	{ "PLAIN", KAFKA_PLAIN },
	{ "SCRAM-SHA-256", KAFKA_SCRAM_SHA_256 },
	{ "SCRAM-SHA-512", KAFKA_SCRAM_SHA_512 },
	{ "OAUTHBEARER", KAFKA_OAUTHBEARER },
	{ "AWS_MSK_IAM", KAFKA_AWS_MSK_IAM },
	{ "AWS_MSK_IAM_OAUTHBEARER", KAFKA_AWS_MSK_IAM_OAUTHBEARER },
	{ "", KAFKA_MECHANISM_UNSET },
	{ NULL, 0 },
};

#define C struct kafka_login_options
static const struct option login_table[] = {
	OPT_STR(C, "username", username, NULL, "User."),
	OPT_OPAQUE_STR(C, "password", password, NULL, "Password."), OPT_END
};
#undef C

#define C struct kafka_sasl_options
static const struct option sasl_table[] = {
	OPT_INCLUDE(C, login, struct kafka_login_options, login_table),
	OPT_ENUM(C, "mechanism", mechanism, mechanisms, NULL, "SASL mechanism."),
	OPT_IGNORED("version", "the SASL handshake's version is negotiated"),
	OPT_STR(C, "aws_msk.region", aws_region, NULL, "Region, for the AWS mechanisms."),
	OPT_STR(C, "oauthbearer_token_source", token_source, NULL,
		"Extension that gives OAUTHBEARER tokens."),
	OPT_STR(C, "oauthbearer_token_file", token_file, NULL,
		"File with the OAUTHBEARER token (a JWT), read again before it expires."),
	OPT_END
};
#undef C

#define C struct kafka_kerberos_options
static const struct option kerberos_table[] = {
	OPT_STR(C, "service_name", service_name, NULL, "Service the brokers run as."),
	OPT_STR(C, "realm", realm, NULL, "Realm of the user."),
	OPT_BOOL(C, "use_keytab", use_keytab, "false", "Take the key from keytab_file."),
	OPT_STR(C, "username", username, NULL, "User."),
	OPT_OPAQUE_STR(C, "password", password, NULL, "Password."),
	OPT_STR(C, "config_file", config_file, NULL, "krb5.conf; only the system's is read."),
	OPT_STR(C, "keytab_file", keytab_file, NULL, "Keytab."),
	OPT_IGNORED("disable_fast_negotiation", "the Kerberos library negotiates it"),
	OPT_END
};
#undef C

#define C struct kafka_client_options
const struct option kafka_client_option_table[] = {
	OPT_STRLIST(C, "brokers", brokers, "[localhost:9092]",
		    "Brokers to ask for all the others, host:port."),
	OPT_STR(C, "protocol_version", protocol_version, NULL,
		"Version of brokers that cannot say theirs; others negotiate."),
	OPT_STR(C, "client_id", client_id, "otel-collector",
		"Name that brokers see, in logs and quotas."),
	OPT_STR(C, "rack_id", rack_id, NULL, "Rack (availability zone) of this process."),
	OPT_DURATION(C, "conn_idle_timeout", conn_idle_timeout_ns, "9m",
		     "Close a connection that was idle for this long; 0: never."),
	OPT_IGNORED("resolve_canonical_bootstrap_servers_only",
		    "the Collector ignores it too since v0.153"),
	OPT_SECTION_NULL_OFF(C, "tls", tls_on, tls, struct tls_client_options,
			     tls_client_option_table,
			     "TLS to the brokers; plain text when absent."),
	OPT_SECTION_NULL_OFF(C, "auth.sasl", sasl_on, sasl, struct kafka_sasl_options, sasl_table,
			     "Log in by SASL."),
	OPT_SECTION_NULL_OFF(C, "auth.plain_text", plain_text_on, plain_text,
			     struct kafka_login_options, login_table,
			     "Older spelling of auth.sasl with mechanism PLAIN."),
	OPT_SECTION_NULL_OFF(C, "auth.kerberos", kerberos_on, kerberos,
			     struct kafka_kerberos_options, kerberos_table,
			     "Log in by Kerberos (SASL GSSAPI)."),
	OPT_SECTION_NULL_OFF(C, "auth.tls", auth_tls_on, auth_tls, struct tls_client_options,
			     tls_client_option_table, "Older place of tls."),
	OPT_BOOL(C, "metadata.full", metadata_full, "true",
		 "Refresh what is known of all topics, not only of those in use."),
	OPT_DURATION(C, "metadata.refresh_interval", metadata_refresh_ns, "10m",
		     "How often to look for new partitions and leaders."),
	OPT_IGNORED("metadata.retry.max", "metadata is asked for until it comes"),
	OPT_DURATION(C, "metadata.retry.backoff", metadata_backoff_ns, "250ms",
		     "Wait between two attempts to get metadata."),
	OPT_PROPERTIES(C, "librdkafka", raw,
		       "Properties of librdkafka by their own names; they override ours."),
	OPT_END
};
#undef C

/* ---- checks ---- */

struct check {
	const struct conf_node *node;
	struct conf_errors *errs;
	const char *path;
};

static void say(const struct check *c, const char *key, const char *hint, const char *what)
{
	conf_error_at(c->errs, c->node, c->path, key, hint, "%s", what);
}

/* Write `<section>.<key>`. */
static const char *below(char out[100], const char *section, const char *key)
{
	snprintf(out, 100, "%s.%s", section, key);
	return out;
}

/* What librdkafka knows in front of a broker's ://; it takes no notice of a broker with another. */
static bool is_scheme(const char *s, size_t n)
{
	static const char *const names[] = { "plaintext", "ssl", "sasl_plaintext", "sasl_ssl" };

	for (size_t i = 0; i < COUNT_OF(names); i++)
		if (strlen(names[i]) == n && strncasecmp(s, names[i], n) == 0)
			return true;
	return false;
}

static void check_brokers(const struct check *c, const struct strlist *brokers)
{
	if (brokers->n == 0)
		say(c, "brokers", "add `brokers: [localhost:9092]`",
		    "requires at least one broker");
	for (size_t i = 0; i < brokers->n; i++) {
		const char *b = brokers->items[i];
		const char *colon = strstr(b, "://"), *host = colon ? colon + 3 : b;

		if ((colon != NULL && !is_scheme(b, (size_t)(colon - b))) || host[0] == '\0' ||
		    strpbrk(host, " /,@") != NULL)
			conf_error_at(c->errs, c->node, c->path, "brokers",
				      "write host:port, for example localhost:9092",
				      "invalid broker \"%.100s\"", b);
		else if (strchr(host, ':') != NULL)
			option_blocks_check_endpoint(host, false, c->node, "brokers", c->errs,
						     c->path);
	}
}

static void check_version(const struct check *c, const char *version)
{
	const char *p = version;
	unsigned dots = 0;

	if (str_has_prefix(p, "v"))
		p++;
	for (; isdigit((unsigned char)*p) || *p == '.'; p++)
		dots += *p == '.';
	if (*p != '\0' || (version[0] != '\0' && dots < 1))
		conf_error_at(c->errs, c->node, c->path, "protocol_version",
			      "leave it out: the version is negotiated; or write one like 2.1.0",
			      "invalid Kafka version \"%.40s\"", version);
}

/* What librdkafka cannot do of the TLS block. */
static void check_tls(const struct check *c, const struct tls_client_options *t,
		      const char *section)
{
	const struct tls_common_options *o = &t->common;
	char key[100];

	option_blocks_check_tls(o, c->node, section, c->errs, c->path);
	option_blocks_check_tls_names(o, c->node, section, c->errs, c->path);
	if (t->server_name_override[0] != '\0')
		say(c, below(key, section, "server_name_override"),
		    "use the name in the brokers' certificates as their address",
		    "librdkafka verifies the name it connects to and no other");
	if (o->include_system_ca_certs_pool && (o->ca_file[0] || o->ca_pem[0]))
		say(c, below(key, section, "include_system_ca_certs_pool"),
		    "put all authorities into one ca_file",
		    "librdkafka trusts ca_file or the system's authorities, not both");
	if (o->min_version == TLS_VERSION_1_3 || o->max_version != TLS_VERSION_DEFAULT)
		say(c, below(key, section, o->max_version ? "max_version" : "min_version"),
		    "set it for the machine, in openssl.cnf (MinProtocol, MaxProtocol)",
		    "librdkafka takes no TLS versions");
	if (o->reload_interval_ns > 0)
		say(c, below(key, section, "reload_interval"),
		    "restart after a change of the files", "librdkafka reads certificates once");
}

static bool has_raw(const struct kafka_client_options *o, const char *name)
{
	for (size_t i = 0; i < o->raw.n; i++)
		if (strcmp(o->raw.items[i].name, name) == 0)
			return true;
	return false;
}

static void check_oauth(const struct check *c, const struct kafka_client_options *o)
{
	if (o->sasl.token_source[0] != '\0')
		say(c, "auth.sasl.oauthbearer_token_source",
		    "let something write the token to a file and name it in "
		    "oauthbearer_token_file",
		    "extensions that give tokens are not in Spanmill yet");
	else if (o->sasl.token_file[0] == '\0' && !has_raw(o, "sasl.oauthbearer.method") &&
		 !has_raw(o, "enable.sasl.oauthbearer.unsecure.jwt"))
		say(c, "auth.sasl.mechanism",
		    "add `oauthbearer_token_file: /path/token`, or, where librdkafka is built "
		    "for it, librdkafka: {sasl.oauthbearer.method: oidc, ...}",
		    "OAUTHBEARER needs a source of tokens");
}

static void check_login(const struct check *c, const struct kafka_login_options *l,
			const char *section)
{
	char key[100];

	if (l->username[0] == '\0')
		say(c, below(key, section, "username"), "add `username: name`",
		    "username is required");
	if (l->password[0] == '\0')
		say(c, below(key, section, "password"), "add `password: ${env:KAFKA_PASSWORD}`",
		    "password is required");
}

static void check_sasl(const struct check *c, const struct kafka_client_options *o)
{
	switch (o->sasl.mechanism) {
	case KAFKA_MECHANISM_UNSET:
		say(c, "auth.sasl.mechanism",
		    "write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
		    "mechanism is required");
		break;
	case KAFKA_AWS_MSK_IAM:
	case KAFKA_AWS_MSK_IAM_OAUTHBEARER:
		say(c, "auth.sasl.mechanism",
		    "create a SCRAM user for the cluster and use SCRAM-SHA-512",
		    "AWS IAM authentication is not in Spanmill yet");
		break;
	case KAFKA_OAUTHBEARER:
		check_oauth(c, o);
		break;
	default:
		check_login(c, &o->sasl.login, "auth.sasl");
	}
}

static void check_kerberos(const struct check *c, const struct kafka_kerberos_options *k)
{
	if (k->username[0] == '\0')
		say(c, "auth.kerberos.username", "add `username: name`", "username is required");
	if (!k->use_keytab || k->keytab_file[0] == '\0')
		say(c, k->password[0] ? "auth.kerberos.password" : "auth.kerberos.keytab_file",
		    "write use_keytab: true and keytab_file: /path/name.keytab",
		    "librdkafka logs in to Kerberos by a keytab only");
	if (k->config_file[0] != '\0' && strcmp(k->config_file, "/etc/krb5.conf") != 0)
		say(c, "auth.kerberos.config_file",
		    "set the environment variable KRB5_CONFIG of the process instead",
		    "another krb5.conf cannot be set for one client");
}

static void check_auth(const struct check *c, const struct kafka_client_options *o)
{
	if (o->sasl_on + o->plain_text_on + o->kerberos_on > 1)
		say(c, "auth", "keep one of sasl, plain_text, kerberos",
		    "more than one way to log in");
	if (o->sasl_on)
		check_sasl(c, o);
	if (o->plain_text_on)
		check_login(c, &o->plain_text, "auth.plain_text");
	if (o->kerberos_on)
		check_kerberos(c, &o->kerberos);
	if (o->tls_on && o->auth_tls_on)
		say(c, "auth.tls", "remove auth.tls",
		    "tls and auth.tls, its older place, are both set");
	if (o->tls_on)
		check_tls(c, &o->tls, "tls");
	if (o->auth_tls_on)
		check_tls(c, &o->auth_tls, "auth.tls");
}

static const struct kafka_owned owned_by_all[] = {
	{ "bootstrap.servers", "write them to `brokers`" },
	{ "metadata.broker.list", "write them to `brokers`" },
	{ "client.id", "write it to `client_id`" },
	{ "client.rack", "write it to `rack_id`" },
	{ NULL, NULL },
};

static const char *owner_of(const struct kafka_owned *list, const char *name)
{
	for (; list != NULL && list->property != NULL; list++)
		if (strcmp(list->property, name) == 0)
			return list->hint;
	return NULL;
}

static void check_raw(const struct check *c, const struct kafka_client_options *o,
		      const struct kafka_owned *owned)
{
	const struct conf_node *map = conf_tree_find(c->node, "librdkafka");

	for (size_t i = 0; i < o->raw.n; i++) {
		const struct strpair *p = &o->raw.items[i];
		const struct conf_node *at = conf_tree_find(map, p->name);
		const char *hint = owner_of(owned, p->name);
		struct conf_pos pos = at ? at->pos : conf_tree_pos(c->node, "librdkafka");
		struct err err = ERR_INIT;
		char path[300];

		snprintf(path, sizeof(path), "%s.librdkafka.%s", c->path, p->name);
		if (hint == NULL)
			hint = owner_of(owned_by_all, p->name);
		if (hint != NULL)
			conf_error_add(c->errs, pos, path, hint, "%.64s cannot be set here",
				       p->name);
		else if (kafka_client_check_property(p->name, p->value, &err) < 0 &&
			 err.kind == ERR_CONFIG)
			conf_error_add(c->errs, pos, path,
				       "see CONFIGURATION.md of librdkafka for its properties",
				       "%s", err.msg);
	}
}

void kafka_options_check(const struct kafka_client_options *o, const struct kafka_owned *owned,
			 const struct conf_node *node, struct conf_errors *errs, const char *path)
{
	struct check c = { node, errs, path };

	check_brokers(&c, &o->brokers);
	check_version(&c, o->protocol_version);
	check_auth(&c, o);
	check_raw(&c, o, owned);
}

/* ---- properties ---- */

void kafka_properties_add(struct kafka_properties *p, const char *name, const char *fmt, ...)
{
	va_list ap, again;
	char *value;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	value = arena_alloc(&p->arena, (size_t)n + 1);
	vsnprintf(value, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	p->v = xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
	p->v[p->n++] = (struct kafka_property){ arena_strdup(&p->arena, name), value };
}

const char *kafka_properties_find(const struct kafka_properties *p, const char *name)
{
	for (size_t i = p->n; i-- > 0;)
		if (strcmp(p->v[i].name, name) == 0)
			return p->v[i].value;
	return NULL;
}

void kafka_properties_fini(struct kafka_properties *p)
{
	free(p->v);
	arena_fini(&p->arena);
	*p = (struct kafka_properties)KAFKA_PROPERTIES_INIT;
}

static void add_text(struct kafka_properties *p, const char *name, const char *value)
{
	if (value[0] != '\0')
		kafka_properties_add(p, name, "%s", value);
}

static void add_list(struct kafka_properties *p, const char *name, const struct strlist *list,
		     const char *between)
{
	struct buf text = BUF_INIT;

	for (size_t i = 0; i < list->n; i++)
		buf_printf(&text, "%s%s", i ? between : "", list->items[i]);
	add_text(p, name, buf_cstr(&text));
	buf_fini(&text);
}

static void add_ms(struct kafka_properties *p, const char *name, int64_t ns, int64_t max_ms)
{
	kafka_properties_add(
		p, name, "%lld",
		(long long)MIN((ns + (int64_t)NS_PER_MS - 1) / (int64_t)NS_PER_MS, max_ms));
}

/* Names of IANA's as librdkafka's OpenSSL knows them; those of TLS 1.3 stay on as they are. */
static void add_openssl_names(struct kafka_properties *p, const char *property,
			      const struct strlist *list, const char *(*openssl)(const char *))
{
	struct buf text = BUF_INIT;

	for (size_t i = 0; i < list->n; i++) {
		const char *name = openssl(list->items[i]);

		if (name != NULL)
			buf_printf(&text, "%s%s", text.n > 0 ? ":" : "", name);
	}
	add_text(p, property, buf_cstr(&text));
	buf_fini(&text);
}

static void add_tls(struct kafka_properties *p, const struct tls_client_options *t)
{
	const struct tls_common_options *o = &t->common;

	add_text(p, "ssl.ca.location", o->ca_file);
	add_text(p, "ssl.ca.pem", o->ca_pem);
	add_text(p, "ssl.certificate.location", o->cert_file);
	add_text(p, "ssl.certificate.pem", o->cert_pem);
	add_text(p, "ssl.key.location", o->key_file);
	add_text(p, "ssl.key.pem", o->key_pem);
	add_openssl_names(p, "ssl.cipher.suites", &o->cipher_suites, tls_cipher_openssl);
	add_openssl_names(p, "ssl.curves.list", &o->curve_preferences, tls_group_openssl);
	if (t->insecure_skip_verify)
		kafka_properties_add(p, "enable.ssl.certificate.verification", "false");
}

static const char *mechanism_name(int mechanism)
{
	for (const struct option_choice *m = mechanisms; m->name != NULL; m++)
		if (m->value == mechanism)
			return m->name;
	return "";
}

static void add_kerberos(struct kafka_properties *p, const struct kafka_kerberos_options *k)
{
	kafka_properties_add(p, "sasl.mechanisms", "GSSAPI");
	add_text(p, "sasl.kerberos.service.name", k->service_name);
	kafka_properties_add(p, "sasl.kerberos.principal", "%s%s%s", k->username,
			     k->realm[0] ? "@" : "", k->realm);
	add_text(p, "sasl.kerberos.keytab", k->keytab_file);
}

static void add_security(const struct kafka_client_options *o, struct kafka_properties *p)
{
	const struct tls_client_options *tls = o->tls_on ? &o->tls : &o->auth_tls;
	bool is_tls = (o->tls_on || o->auth_tls_on) && !tls->insecure;
	bool is_sasl = o->sasl_on || o->plain_text_on || o->kerberos_on;
	const struct kafka_login_options *login = o->sasl_on ? &o->sasl.login : &o->plain_text;

	kafka_properties_add(p, "security.protocol", "%s%s", is_sasl ? "sasl_" : "",
			     is_tls ? "ssl" : "plaintext");
	if (is_tls)
		add_tls(p, tls);
	if (o->kerberos_on)
		add_kerberos(p, &o->kerberos);
	else if (is_sasl) {
		kafka_properties_add(p, "sasl.mechanisms", "%s",
				     o->sasl_on ? mechanism_name(o->sasl.mechanism) : "PLAIN");
		add_text(p, "sasl.username", login->username);
		add_text(p, "sasl.password", login->password);
	}
}

void kafka_options_properties(const struct kafka_client_options *o, struct kafka_properties *out)
{
	const char *version = o->protocol_version;

	add_list(out, "bootstrap.servers", &o->brokers, ",");
	add_text(out, "client.id", o->client_id);
	add_text(out, "client.rack", o->rack_id);
	add_text(out, "broker.version.fallback", version[0] == 'v' ? version + 1 : version);
	add_ms(out, "connections.max.idle.ms", o->conn_idle_timeout_ns, INT32_MAX);
	kafka_properties_add(out, "topic.metadata.refresh.sparse", "%s",
			     o->metadata_full ? "false" : "true");
	add_ms(out, "topic.metadata.refresh.interval.ms",
	       MAX(o->metadata_refresh_ns, (int64_t)NS_PER_S), 3600000);
	add_ms(out, "metadata.max.age.ms", 3 * MAX(o->metadata_refresh_ns, (int64_t)NS_PER_S),
	       86400000);
	add_ms(out, "topic.metadata.refresh.fast.interval.ms",
	       MAX(o->metadata_backoff_ns, (int64_t)NS_PER_MS), 60000);
	/* A broker that was away for long is found again soon; the wait has jitter. */
	kafka_properties_add(out, "reconnect.backoff.max.ms", "2000");
	/* Idle connections are closed on purpose. */
	kafka_properties_add(out, "log.connection.close", "false");
	add_security(o, out);
}

void kafka_options_raw(const struct kafka_client_options *o, struct kafka_properties *out)
{
	for (size_t i = 0; i < o->raw.n; i++)
		kafka_properties_add(out, o->raw.items[i].name, "%s", o->raw.items[i].value);
}
