/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus_name.c - see prometheus_name.h.
 *
 * With suffixes a name is a list of tokens, the runs of letters, digits and colons: what stands
 * between them becomes one '_', and "contains the unit already" is a question about whole tokens
 * ("seconds_left" has it, "milliseconds" has no "seconds"). The unit comes behind the name, _total
 * or _ratio behind that, and a token of the name that says the same is taken out.
 * Where the Collector and the specification differ: a unit of several tokens (per_second) that the
 * name has already is not added again.
 */
#include "wire/prometheus_name.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What a byte is in a name; the rest is 0, not allowed. */
enum { IS_TOKEN = 1, IS_COLON = 2, IS_UNDERSCORE = 4, IS_DIGIT = 8 };

static uint8_t class_of(uint8_t c)
{
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
		return IS_TOKEN;
	if (c >= '0' && c <= '9')
		return IS_TOKEN | IS_DIGIT;
	return c == ':' ? IS_COLON : c == '_' ? IS_UNDERSCORE : 0;
}

static bool is_in(struct bytes s, size_t i, uint8_t classes)
{
	return i < s.n && (class_of(s.p[i]) & classes) != 0;
}

struct prometheus_naming prometheus_naming(const char *prefix, enum prometheus_strategy strategy)
{
	return (struct prometheus_naming){
		.prefix = bytes_str(prefix),
		.add_suffixes = strategy == PROMETHEUS_UNDERSCORE_SUFFIXES ||
				strategy == PROMETHEUS_UTF8_SUFFIXES,
		.is_utf8 =
			strategy == PROMETHEUS_UTF8_SUFFIXES || strategy == PROMETHEUS_UTF8_PLAIN,
	};
}

const char *prometheus_kind_name(enum prometheus_kind kind)
{
	static const char *const names[] = {
		[PROMETHEUS_UNKNOWN] = "unknown", [PROMETHEUS_GAUGE] = "gauge",
		[PROMETHEUS_COUNTER] = "counter", [PROMETHEUS_UP_DOWN] = "gauge",
		[PROMETHEUS_SUMMARY] = "summary", [PROMETHEUS_HISTOGRAM] = "histogram",
	};

	return names[kind];
}

enum prometheus_kind prometheus_kind_of(const struct metric *m)
{
	switch (m->kind) {
	case METRIC_GAUGE:
		return PROMETHEUS_GAUGE;
	case METRIC_SUM:
		return m->is_monotonic ? PROMETHEUS_COUNTER : PROMETHEUS_UP_DOWN;
	case METRIC_HISTOGRAM:
	case METRIC_EXPONENTIAL_HISTOGRAM:
		return PROMETHEUS_HISTOGRAM;
	case METRIC_SUMMARY:
		return PROMETHEUS_SUMMARY;
	default:
		return PROMETHEUS_UNKNOWN;
	}
}

/* ---- units ---- */

struct unit {
	const char *ucum, *words;
};

/* UCUM's case-sensitive codes, of what Prometheus has words for. */
static const struct unit units[] = {
	{ "d", "days" },         { "h", "hours" },         { "min", "minutes" },
	{ "s", "seconds" },      { "ms", "milliseconds" }, { "us", "microseconds" },
	{ "ns", "nanoseconds" }, { "By", "bytes" },        { "kBy", "kilobytes" },
	{ "KBy", "kilobytes" },  { "MBy", "megabytes" },   { "GBy", "gigabytes" },
	{ "TBy", "terabytes" },  { "KiBy", "kibibytes" },  { "MiBy", "mebibytes" },
	{ "GiBy", "gibibytes" }, { "TiBy", "tebibytes" },  { "m", "meters" },
	{ "V", "volts" },        { "A", "amperes" },       { "J", "joules" },
	{ "W", "watts" },        { "g", "grams" },         { "Cel", "celsius" },
	{ "Hz", "hertz" },       { "%", "percent" },       { "1", "" },
	{ NULL, NULL },
};

static const struct unit per_units[] = {
	{ "s", "second" }, { "m", "minute" }, { "h", "hour" }, { "d", "day" },
	{ "w", "week" },   { "mo", "month" }, { "y", "year" }, { NULL, NULL },
};

static struct bytes trim(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = (struct bytes){ s.p + 1, s.n - 1 };
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* One side of the '/', in words: "" when it is an annotation. An unknown unit stands for itself. */
static struct bytes unit_words(const struct unit *table, struct bytes unit)
{
	unit = trim(unit);
	if (unit.n == 0 || memchr(unit.p, '{', unit.n) != NULL ||
	    memchr(unit.p, '}', unit.n) != NULL)
		return BYTES_EMPTY;
	for (const struct unit *u = table; u->ucum != NULL; u++)
		if (bytes_eq_str(unit, u->ucum))
			return bytes_str(u->words);
	return unit;
}

/* "By/s" -> "bytes", "second". */
static void unit_sides(struct bytes unit, struct bytes *of, struct bytes *per)
{
	const uint8_t *slash = unit.n > 0 ? memchr(unit.p, '/', unit.n) : NULL;
	size_t n = slash != NULL ? (size_t)(slash - unit.p) : unit.n;

	*of = unit_words(units, (struct bytes){ unit.p, n });
	*per = slash != NULL ? unit_words(per_units, (struct bytes){ slash + 1, unit.n - n - 1 })
			     : BYTES_EMPTY;
}

/* ---- tokens ---- */

/* What stands in `out` from `start` on. */
static struct bytes since(const struct buf *out, size_t start)
{
	return out->n > start ? (struct bytes){ out->p + start, out->n - start } : BYTES_EMPTY;
}

static bool next_token(struct bytes *in, struct bytes *token)
{
	size_t i = 0, end;

	*token = BYTES_EMPTY;
	if (in->n == 0)
		return false;
	while (i < in->n && !is_in(*in, i, IS_TOKEN | IS_COLON))
		i++;
	for (end = i; is_in(*in, end, IS_TOKEN | IS_COLON);)
		end++;
	*token = (struct bytes){ in->p + i, end - i };
	*in = (struct bytes){ in->p + end, in->n - end };
	return token->n > 0;
}

/* Append the tokens of `text` but those equal to `skip`, with '_' between them and before the first
 * when something was written since `start`. */
static void put_tokens(struct buf *out, size_t start, struct bytes text, const char *skip)
{
	struct bytes token;

	while (next_token(&text, &token)) {
		if (skip != NULL && bytes_eq_str(token, skip))
			continue;
		if (out->n > start)
			buf_add_char(out, '_');
		buf_add_bytes(out, token);
	}
}

/* Are the tokens of `words` a run of those of `name`? Both are written with '_' between tokens. */
static bool has_tokens(struct bytes name, struct bytes words)
{
	for (size_t i = 0; i + words.n <= name.n; i++) {
		bool starts = i == 0 || name.p[i - 1] == '_';
		bool ends = i + words.n == name.n || name.p[i + words.n] == '_';

		if (starts && ends && memcmp(name.p + i, words.p, words.n) == 0)
			return true;
	}
	return false;
}

/* What was written since `start` are words behind a name: take them back when it has them. */
static void keep_if_new(struct buf *out, size_t name, size_t start)
{
	struct bytes words = since(out, start), before = since(out, name);

	if (words.n == 0)
		return;
	before.n -= words.n;
	if (words.p[0] == '_')
		words = (struct bytes){ words.p + 1, words.n - 1 };
	if (has_tokens(before, words))
		out->n = start;
}

static void put_unit(struct buf *out, size_t name, struct bytes unit)
{
	struct bytes of, per;
	size_t start = out->n;

	unit_sides(unit, &of, &per);
	put_tokens(out, name, of, NULL);
	keep_if_new(out, name, start);
	start = out->n;
	if (per.n == 0)
		return;
	put_tokens(out, name, BYTES_LIT("per"), NULL);
	put_tokens(out, name, per, NULL);
	keep_if_new(out, name, start);
}

void prometheus_unit_name(struct bytes unit, enum prometheus_kind kind, struct buf *out)
{
	if (kind == PROMETHEUS_GAUGE && bytes_eq_str(trim(unit), "1"))
		buf_add_str(out, "ratio");
	else
		put_unit(out, out->n, unit);
}

/* ---- metrics ---- */

static const char *type_suffix(struct bytes unit, enum prometheus_kind kind)
{
	if (kind == PROMETHEUS_COUNTER)
		return "total";
	return kind == PROMETHEUS_GAUGE && bytes_eq_str(trim(unit), "1") ? "ratio" : NULL;
}

static void put_with_suffixes(struct bytes name, struct bytes unit, const char *suffix,
			      struct buf *out)
{
	size_t start = out->n;

	put_tokens(out, start, name, suffix);
	put_unit(out, start, unit);
	if (suffix != NULL)
		put_tokens(out, start, bytes_str(suffix), NULL);
}

/* Runs of what is not allowed become one '_', none at the ends; underscores stay as they are. */
static void put_escaped(struct bytes name, struct buf *out)
{
	const uint8_t allowed = IS_TOKEN | IS_COLON | IS_UNDERSCORE;
	size_t start = out->n;
	bool gap = false;

	for (size_t i = 0; i < name.n; i++) {
		if (!is_in(name, i, allowed)) {
			gap = true;
			continue;
		}
		if (gap && out->n > start)
			buf_add_char(out, '_');
		gap = false;
		buf_add_char(out, (char)name.p[i]);
	}
}

/* Take "_words" off the end. */
static void cut_suffix(struct buf *out, size_t start, const char *words)
{
	size_t n = strlen(words);

	if (out->n - start > n + 1 && memcmp(out->p + out->n - n, words, n) == 0)
		out->n -= n + 1;
}

/* A name that stays as it is: a suffix is added unless it is there, in the order unit, type. */
static void put_utf8(struct bytes name, struct bytes unit, const char *suffix, struct buf *out)
{
	size_t start = out->n, end;
	struct buf words = BUF_INIT;

	prometheus_put_text(name, out);
	if (suffix != NULL)
		cut_suffix(out, start, suffix);
	put_unit(&words, 0, unit);
	end = out->n;
	if (words.n > 0 &&
	    !(end - start >= words.n && memcmp(out->p + end - words.n, words.p, words.n) == 0)) {
		buf_add_char(out, '_');
		buf_add_bytes(out, buf_bytes(&words));
	}
	if (suffix != NULL) {
		buf_add_char(out, '_');
		buf_add_str(out, suffix);
	}
	buf_fini(&words);
}

static void put_prefix(const struct prometheus_naming *n, struct buf *out)
{
	size_t start = out->n;

	if (n->prefix.n == 0)
		return;
	if (n->is_utf8)
		prometheus_put_text(n->prefix, out);
	else
		put_escaped(n->prefix, out);
	if (out->n > start)
		buf_add_char(out, '_');
}

/* Legal names do not start with a digit. */
static void guard_digit(struct buf *out, size_t start)
{
	if (!is_in(since(out, start), 0, IS_DIGIT))
		return;
	buf_add_char(out, '_');
	memmove(out->p + start + 1, out->p + start, out->n - start - 1);
	out->p[start] = '_';
}

int prometheus_metric_name(const struct prometheus_naming *n, struct bytes name, struct bytes unit,
			   enum prometheus_kind kind, struct buf *out)
{
	const char *suffix = n->add_suffixes ? type_suffix(unit, kind) : NULL;
	struct bytes words = n->add_suffixes ? unit : BYTES_EMPTY;
	size_t before = out->n;
	struct bytes rest = name, token;

	if (name.n == 0 || (!n->is_utf8 && !next_token(&rest, &token)))
		return -1;
	put_prefix(n, out);
	if (n->is_utf8)
		put_utf8(name, words, suffix, out);
	else if (n->add_suffixes)
		put_with_suffixes(name, words, suffix, out);
	else
		put_escaped(name, out);
	if (!n->is_utf8)
		guard_digit(out, before);
	return 0;
}

/* ---- labels ---- */

static bool is_underscores(struct bytes s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '_')
			return false;
	return true;
}

bool prometheus_label_is_name(const struct prometheus_naming *n, struct bytes key)
{
	if (key.n == 0)
		return false;
	if (n->is_utf8)
		return str_is_utf8(key);
	if (!is_in(key, 0, IS_TOKEN) || is_in(key, 0, IS_DIGIT))
		return false;
	for (size_t i = 1; i < key.n; i++)
		if (!is_in(key, i, IS_TOKEN | IS_UNDERSCORE) ||
		    (key.p[i] == '_' && key.p[i - 1] == '_'))
			return false;
	return true;
}

/* __name__ and the like, which mean something to Prometheus: they stay. */
static bool is_reserved(struct bytes key)
{
	if (key.n < 5 || memcmp(key.p, "__", 2) != 0 || memcmp(key.p + key.n - 2, "__", 2) != 0)
		return false;
	for (size_t i = 2; i < key.n - 2; i++)
		if (!is_in(key, i, IS_TOKEN | IS_UNDERSCORE))
			return false;
	return true;
}

int prometheus_label_name(const struct prometheus_naming *n, struct bytes key, struct buf *out)
{
	size_t start = out->n, name;

	if (n->is_utf8 || is_reserved(key)) {
		prometheus_put_text(key, out);
		return key.n > 0 ? 0 : -1;
	}
	if (is_in(key, 0, IS_DIGIT))
		buf_add_str(out, "key_");
	else if (!is_in(key, 0, IS_TOKEN))
		buf_add_str(out, "key");
	name = out->n;
	for (size_t i = 0; i < key.n; i++) {
		bool is_good = is_in(key, i, IS_TOKEN);

		if (is_good)
			buf_add_char(out, (char)key.p[i]);
		else if (out->n == name || out->p[out->n - 1] != '_')
			buf_add_char(out, '_');
	}
	if (!out->overflow && !is_underscores(since(out, name)))
		return 0;
	out->n = start;
	return -1;
}

/* ---- text ---- */

void prometheus_put_text(struct bytes text, struct buf *out)
{
	if (str_is_utf8(text)) {
		buf_add_bytes(out, text);
		return;
	}
	for (size_t i = 0; i < text.n;) {
		size_t n = str_utf8_sequence(text.p + i, text.n - i);

		if (n > 0)
			buf_add(out, text.p + i, n);
		else
			buf_add_str(out, "\xef\xbf\xbd");
		i += MAX(n, (size_t)1);
	}
}

/* "1.5e+06", which reads back as v, as a plain decimal; -1: that would be long. */
static int plain_decimal(double v, int digits, const char *text, char out[PROMETHEUS_BOUND_MAX])
{
	long exponent = strtol(strchr(text, 'e') + 1, NULL, 10);
	long behind = digits - 1 - exponent;

	if (exponent > 20 || behind > 24)
		return -1;
	snprintf(out, PROMETHEUS_BOUND_MAX, "%.*f", (int)MAX(behind, 0L), v);
	return 0;
}

static size_t without_zeros(char *text)
{
	size_t n = strlen(text);

	if (strchr(text, '.') == NULL)
		return n;
	while (text[n - 1] == '0')
		n--;
	n -= text[n - 1] == '.';
	text[n] = '\0';
	return n;
}

size_t prometheus_bound_text(double v, char out[PROMETHEUS_BOUND_MAX])
{
	char text[PROMETHEUS_BOUND_MAX];
	int digits;

	if (isnan(v) || isinf(v)) {
		snprintf(out, PROMETHEUS_BOUND_MAX, "%s",
			 isnan(v) ? "NaN"
			 : v > 0  ? "+Inf"
				  : "-Inf");
		return strlen(out);
	}
	for (digits = 1; digits < 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	snprintf(text, sizeof(text), "%.*g", digits, v);
	if (strchr(text, 'e') != NULL && plain_decimal(v, digits, text, out) == 0)
		return without_zeros(out);
	memcpy(out, text, sizeof(text));
	return strlen(out);
}
