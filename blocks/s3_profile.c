/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_profile.c - see s3_profile.h.
 */
#include "blocks/s3_profile.h"

static struct bytes trim(struct bytes s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && strchr(" \t\r", s.p[s.n - 1]) != NULL)
		s.n--;
	return s;
}

static struct bytes take_line(struct bytes *text)
{
	const uint8_t *end = memchr(text->p, '\n', text->n);
	struct bytes line = { text->p, end ? (size_t)(end - text->p) : text->n };
	size_t step = line.n + (end != NULL);

	text->p += step;
	text->n -= step;
	return trim(line);
}

/* The name in "[name]" or "[profile name]"; empty when the line is no such head. */
static struct bytes section_name(struct bytes line)
{
	struct bytes name = { line.p + 1, line.n - 1 };
	const uint8_t *close = memchr(name.p, ']', name.n);

	if (close == NULL)
		return BYTES_EMPTY;
	name.n = (size_t)(close - name.p);
	name = trim(name);
	if (name.n > 8 && memcmp(name.p, "profile ", 8) == 0)
		name = trim((struct bytes){ name.p + 8, name.n - 8 });
	return name;
}

static int set(char *to, size_t size, struct bytes value, const char *what, struct err *err)
{
	if (value.n >= size || memchr(value.p, '\0', value.n) != NULL)
		return err_set(err, ERR_INVALID, "%s: %zu bytes are no key", what, value.n);
	memcpy(to, value.p, value.n);
	to[value.n] = '\0';
	return 0;
}

static int read_setting(struct bytes line, struct s3_keys *k, struct err *err)
{
	const uint8_t *equals = memchr(line.p, '=', line.n);
	struct bytes name, value;

	if (equals == NULL)
		return 0;
	name = trim((struct bytes){ line.p, (size_t)(equals - line.p) });
	value = trim((struct bytes){ equals + 1, (size_t)(line.p + line.n - equals - 1) });
	if (bytes_eq_str(name, "aws_access_key_id"))
		return set(k->access_key, sizeof(k->access_key), value, "aws_access_key_id", err);
	if (bytes_eq_str(name, "aws_secret_access_key"))
		return set(k->secret_key, sizeof(k->secret_key), value, "aws_secret_access_key",
			   err);
	if (bytes_eq_str(name, "aws_session_token"))
		return set(k->session_token, sizeof(k->session_token), value, "aws_session_token",
			   err);
	return 0;
}

/* Ways to get keys that others have. To go on with the next place would sign as somebody else. */
static const char *foreign_way(struct bytes line)
{
	static const char *const names[] = { "credential_process", "role_arn",
					     "sso_session",        "sso_start_url",
					     "source_profile",     "credential_source" };
	const uint8_t *equals = memchr(line.p, '=', line.n);

	for (size_t i = 0; equals != NULL && i < COUNT_OF(names); i++)
		if (bytes_eq_str(trim((struct bytes){ line.p, (size_t)(equals - line.p) }),
				 names[i]))
			return names[i];
	return NULL;
}

int s3_profile_read(struct bytes text, const char *profile, struct s3_keys *keys, struct err *err)
{
	const char *foreign = NULL;
	bool inside = false;

	memset(keys, 0, sizeof(*keys));
	while (text.n > 0) {
		struct bytes line = take_line(&text);

		if (line.n == 0 || line.p[0] == '#' || line.p[0] == ';')
			continue;
		if (line.p[0] == '[')
			inside = bytes_eq_str(section_name(line), profile);
		else if (inside && read_setting(line, keys, err) < 0)
			return -1;
		else if (inside && foreign == NULL)
			foreign = foreign_way(line);
	}
	if (keys->access_key[0] == '\0' && keys->secret_key[0] == '\0' && foreign != NULL)
		return err_set(err, ERR_UNIMPLEMENTED,
			       "%s is not supported: write keys, or give them by the AWS_* "
			       "environment",
			       foreign);
	if (keys->access_key[0] == '\0' && keys->secret_key[0] == '\0')
		return 0;
	if (keys->access_key[0] == '\0' || keys->secret_key[0] == '\0')
		return err_set(err, ERR_INVALID, "%s is missing",
			       keys->access_key[0] ? "aws_secret_access_key" : "aws_access_key_id");
	return 1;
}
