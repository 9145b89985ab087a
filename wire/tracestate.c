/* SPDX-License-Identifier: Apache-2.0
 *
 * tracestate.c - see tracestate.h.
 */
#include "wire/tracestate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { TH_DIGITS = 14, OT_MAX = 256, MEMBERS_MAX = 32 };

static struct bytes trim(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* Cut `*rest` at the first `sep`; false when nothing is left. */
static bool next_part(struct bytes *rest, char sep, struct bytes *part)
{
	const uint8_t *at;

	if (rest->p == NULL)
		return false;
	at = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
	part->p = rest->p;
	part->n = at ? (size_t)(at - rest->p) : rest->n;
	if (at == NULL) {
		*rest = BYTES_EMPTY;
	} else {
		rest->n -= part->n + 1;
		rest->p = at + 1;
	}
	return true;
}

static bool is_ot(struct bytes member, struct bytes *value)
{
	if (member.n < 3 || memcmp(member.p, "ot=", 3) != 0)
		return false;
	*value = (struct bytes){ member.p + 3, member.n - 3 };
	return true;
}

/* The ot member of a list; false when there is none. */
static bool find_ot(struct bytes tracestate, struct bytes *value)
{
	struct bytes member;

	while (next_part(&tracestate, ',', &member))
		if (is_ot(trim(member), value))
			return true;
	return false;
}

/* Lower-case hex, right-padded with zeros to 14 digits. */
static bool parse_hex56(struct bytes s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > TH_DIGITS)
		return false;
	for (size_t i = 0; i < TH_DIGITS; i++) {
		uint8_t c = i < s.n ? s.p[i] : '0';

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*out = v;
	return true;
}

static void read_subkey(struct bytes part, struct tracestate_ot *out)
{
	struct bytes v;

	if (part.n < 3 || part.p[2] != ':')
		return;
	v = (struct bytes){ part.p + 3, part.n - 3 };
	if (memcmp(part.p, "th", 2) == 0) {
		if (!parse_hex56(v, &out->th))
			out->malformed = true;
	} else if (memcmp(part.p, "rv", 2) == 0) {
		out->has_rv = v.n == TH_DIGITS && parse_hex56(v, &out->rv);
		out->malformed |= !out->has_rv;
	}
}

void tracestate_read(struct bytes tracestate, struct tracestate_ot *out)
{
	struct bytes value, part;

	*out = (struct tracestate_ot){ .th = TH_UNKNOWN };
	if (!find_ot(tracestate, &value))
		return;
	while (next_part(&value, ';', &part))
		read_subkey(trim(part), out);
	if (out->malformed) {
		out->th = TH_UNKNOWN;
		out->has_rv = false;
	}
}

/* What a rewritten `ot` should say; rv TH_UNKNOWN: as it was. */
struct ot_change {
	uint64_t th, rv;
};

/* Sub-keys that a rewritten `ot` leaves out: those that change, and a broken rv, which would make
 * all of it count as absent. */
static bool is_left_out(struct bytes part, const struct ot_change *to)
{
	struct tracestate_ot ot = { .malformed = false };

	if (part.n == 0 || (part.n >= 3 && memcmp(part.p, "th:", 3) == 0))
		return true;
	if (to->rv != TH_UNKNOWN && part.n >= 3 && memcmp(part.p, "rv:", 3) == 0)
		return true;
	read_subkey(part, &ot);
	return ot.malformed;
}

/* Append "ot=th:...;others" as its value should become, nothing when that is empty. Returns its
 * length without "ot=". */
static size_t add_ot(struct bytes old, const struct ot_change *to, struct buf *out)
{
	size_t start = out->n, value;
	struct bytes part;
	char text[15];

	buf_add_str(out, "ot=");
	value = out->n;
	if (to->th < TRACESTATE_W56) {
		tracestate_format_th(to->th, text);
		buf_add_str(out, "th:");
		buf_add_str(out, text);
	}
	if (to->rv != TH_UNKNOWN)
		buf_printf(out, "%srv:%014" PRIx64, out->n > value ? ";" : "", to->rv);
	while (next_part(&old, ';', &part)) {
		part = trim(part);
		if (is_left_out(part, to))
			continue;
		if (out->n > value)
			buf_add_char(out, ';');
		buf_add_bytes(out, part);
	}
	if (out->n == value)
		out->n = start;
	return out->n > start ? out->n - value : 0;
}

static int write_ot(struct bytes tracestate, const struct ot_change *to, struct buf *out)
{
	struct bytes member, value = BYTES_EMPTY;
	size_t start = out->n, n_ot;
	unsigned room = MEMBERS_MAX;
	bool had_ot = find_ot(tracestate, &value);

	n_ot = add_ot(value, to, out);
	if (!had_ot && n_ot > 0)
		room--;
	while (next_part(&tracestate, ',', &member)) {
		member = trim(member);
		if (member.n == 0 || is_ot(member, &value))
			continue;
		/* A list that was too long before is none of our business. */
		if (room-- == 0 && !had_ot && n_ot > 0)
			break;
		if (out->n > start)
			buf_add_char(out, ',');
		buf_add_bytes(out, member);
	}
	if (n_ot <= OT_MAX && !out->overflow)
		return 0;
	out->n = start;
	return -1;
}

int tracestate_write_th(struct bytes tracestate, uint64_t th, struct buf *out)
{
	return write_ot(tracestate, &(struct ot_change){ th, TH_UNKNOWN }, out);
}

int tracestate_write_th_rv(struct bytes tracestate, uint64_t th, uint64_t rv, struct buf *out)
{
	assert(rv < TRACESTATE_W56);
	return write_ot(tracestate, &(struct ot_change){ th, rv }, out);
}

uint64_t tracestate_randomness(const uint8_t trace_id[16])
{
	return load_be64(trace_id + 8) & (TRACESTATE_W56 - 1);
}

/* Extra digits for leading f's (small p) or zeros (p near 1), so that precision counts significant
 * ones. */
static int threshold_digits(double p, int precision)
{
	int small, large, digits;

	frexp(p, &small);
	frexp(1.0 - p, &large);
	digits = MAX(precision + -small / 4, precision + -large / 4);
	return MIN(digits, TH_DIGITS);
}

uint64_t tracestate_threshold(double p, int precision)
{
	uint64_t th;
	int cut;

	if (p >= 1.0)
		return 0;
	if (!(p >= 0x1p-56))
		return TRACESTATE_W56;
	th = TRACESTATE_W56 - (uint64_t)llround(p * 0x1p56);
	cut = 4 * (TH_DIGITS - threshold_digits(p, precision));
	if (cut > 0) {
		th += UINT64_C(1) << (cut - 1);
		th = th >> cut << cut;
		if (th >= TRACESTATE_W56)
			th = TRACESTATE_W56 - (UINT64_C(1) << cut);
	}
	return th;
}

double tracestate_probability(uint64_t th)
{
	return th >= TRACESTATE_W56 ? 0.0 : (double)(TRACESTATE_W56 - th) * 0x1p-56;
}

void tracestate_format_th(uint64_t th, char out[15])
{
	size_t n;

	assert(th < TRACESTATE_W56);
	snprintf(out, 15, "%014llx", (unsigned long long)th);
	for (n = TH_DIGITS; n > 1 && out[n - 1] == '0'; n--)
		out[n - 1] = '\0';
}
