/* SPDX-License-Identifier: Apache-2.0
 *
 * xml_reader.c - see xml_reader.h.
 */
#include "wire/xml_reader.h"

void xml_reader_init(struct xml_reader *r, struct bytes text)
{
	*r = (struct xml_reader){ .start = text.p, .p = text.p, .end = text.p + text.n };
}

void xml_reader_fini(struct xml_reader *r)
{
	buf_fini(&r->text);
}

static int damaged(const struct xml_reader *r, struct err *err, const char *what)
{
	return err_set(err, ERR_INVALID, "xml: byte %zu: %s", (size_t)(r->p - r->start), what);
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool looks_at(const struct xml_reader *r, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(r->end - r->p) >= n && memcmp(r->p, s, n) == 0;
}

/* Behind the next `s`; -1 when there is none. */
static int skip_past(struct xml_reader *r, const char *s)
{
	size_t n = strlen(s);
	const uint8_t *at = memmem(r->p, (size_t)(r->end - r->p), s, n);

	if (at == NULL)
		return -1;
	r->p = at + n;
	return 0;
}

static void skip_blanks(struct xml_reader *r)
{
	while (r->p < r->end && is_blank(*r->p))
		r->p++;
}

/* ---- text ---- */

static void add_utf8(struct buf *out, uint32_t c)
{
	if (c < 0x80) {
		buf_add_char(out, (char)c);
	} else if (c < 0x800) {
		buf_add_char(out, (char)(0xc0 | c >> 6));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		buf_add_char(out, (char)(0xe0 | c >> 12));
		buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_add_char(out, (char)(0xf0 | c >> 18));
		buf_add_char(out, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	}
}

static int digit_of(uint8_t c, unsigned base)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return base == 16 && c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "#65" or "#x41" as a character; 0 when it is none. */
static uint32_t char_of(struct bytes name)
{
	unsigned base = name.n > 1 && name.p[1] == 'x' ? 16 : 10;
	size_t i = base == 16 ? 2 : 1;
	uint32_t c = 0;

	if (i >= name.n)
		return 0;
	for (; i < name.n; i++) {
		int d = digit_of(name.p[i], base);

		c = c * base + (uint32_t)d;
		if (d < 0 || c > 0x10ffff)
			return 0;
	}
	return c >= 0xd800 && c < 0xe000 ? 0 : c;
}

/* At '&'. */
static int read_entity(struct xml_reader *r, struct err *err)
{
	static const struct {
		const char *name;
		uint32_t c;
	} known[] = {
		{ "amp", '&' }, { "lt", '<' }, { "gt", '>' }, { "quot", '"' }, { "apos", '\'' }
	};
	size_t room = MIN((size_t)(r->end - r->p), (size_t)12);
	const uint8_t *semicolon = memchr(r->p, ';', room);
	struct bytes name = { r->p + 1, 0 };
	uint32_t c = 0;

	if (semicolon == NULL)
		return damaged(r, err, "& without an entity");
	name.n = (size_t)(semicolon - name.p);
	if (name.n > 0 && name.p[0] == '#')
		c = char_of(name);
	for (size_t i = 0; c == 0 && i < COUNT_OF(known); i++)
		if (bytes_eq_str(name, known[i].name))
			c = known[i].c;
	if (c == 0)
		return damaged(r, err, "unknown entity");
	add_utf8(&r->text, c);
	r->p = semicolon + 1;
	return 0;
}

/* Text up to the next '<' (or the end), into r->text. */
static int read_text(struct xml_reader *r, struct err *err)
{
	while (r->p < r->end && *r->p != '<') {
		const uint8_t *from = r->p;

		while (r->p < r->end && *r->p != '<' && *r->p != '&') {
			if (r->depth == 0 && !is_blank(*r->p))
				return damaged(r, err, "text outside of the root");
			r->p++;
		}
		buf_add(&r->text, from, (size_t)(r->p - from));
		if (r->p < r->end && *r->p == '&' && (r->depth == 0 || read_entity(r, err) < 0))
			return r->depth == 0 ? damaged(r, err, "text outside of the root") : -1;
	}
	return 0;
}

static int read_cdata(struct xml_reader *r, struct err *err)
{
	const uint8_t *from = r->p + strlen("<![CDATA[");

	if (r->depth == 0)
		return damaged(r, err, "text outside of the root");
	r->p = from;
	if (skip_past(r, "]]>") < 0)
		return damaged(r, err, "CDATA without an end");
	buf_add(&r->text, from, (size_t)(r->p - from) - 3);
	return 0;
}

/* ---- tags ---- */

static bool is_name_byte(uint8_t c)
{
	return c >= 0x80 || c == ':' || c == '_' || c == '-' || c == '.' ||
	       (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static int read_name(struct xml_reader *r, struct bytes *name, struct err *err)
{
	name->p = r->p;
	while (r->p < r->end && is_name_byte(*r->p))
		r->p++;
	name->n = (size_t)(r->p - name->p);
	return name->n > 0 ? 0 : damaged(r, err, "a name is missing");
}

static struct bytes local_name(struct bytes name)
{
	const uint8_t *colon = memrchr(name.p, ':', name.n);

	if (colon == NULL)
		return name;
	return (struct bytes){ colon + 1, (size_t)(name.p + name.n - colon - 1) };
}

/* name = "value", skipped. */
static int skip_attribute(struct xml_reader *r, struct err *err)
{
	struct bytes name;
	const uint8_t *close;

	if (read_name(r, &name, err) < 0)
		return -1;
	skip_blanks(r);
	if (r->p == r->end || *r->p != '=')
		return damaged(r, err, "attribute without a value");
	r->p++;
	skip_blanks(r);
	if (r->p == r->end || (*r->p != '"' && *r->p != '\''))
		return damaged(r, err, "attribute value without quotes");
	close = memchr(r->p + 1, *r->p, (size_t)(r->end - r->p - 1));
	if (close == NULL)
		return damaged(r, err, "attribute value without an end");
	r->p = close + 1;
	return 0;
}

/* At '<' of an opening tag. */
static int read_open(struct xml_reader *r, struct xml_item *item, struct err *err)
{
	struct bytes name;

	if (r->depth == 0 && r->has_root)
		return damaged(r, err, "a second root");
	if (r->depth == XML_DEPTH_MAX)
		return damaged(r, err, "nested too deep");
	r->p++;
	if (read_name(r, &name, err) < 0)
		return -1;
	for (;;) {
		skip_blanks(r);
		if (r->p == r->end)
			return damaged(r, err, "tag without an end");
		if (*r->p == '>' || *r->p == '/')
			break;
		if (skip_attribute(r, err) < 0)
			return -1;
	}
	r->is_empty = *r->p == '/';
	if (r->is_empty && !looks_at(r, "/>"))
		return damaged(r, err, "/ inside a tag");
	r->p += r->is_empty ? 2 : 1;
	r->has_root = true;
	r->open[r->depth++] = name;
	*item = (struct xml_item){ XML_OPEN, local_name(name), r->depth, BYTES_EMPTY };
	return 1;
}

/* The innermost element ends. */
static int close_element(struct xml_reader *r, struct xml_item *item)
{
	struct bytes name = r->open[r->depth - 1];

	*item = (struct xml_item){ XML_CLOSE, local_name(name), r->depth, buf_bytes(&r->text) };
	r->depth--;
	r->is_empty = false;
	return 1;
}

/* At "</". */
static int read_close(struct xml_reader *r, struct xml_item *item, struct err *err)
{
	struct bytes name;

	r->p += 2;
	if (read_name(r, &name, err) < 0)
		return -1;
	if (r->depth == 0 || !bytes_eq(name, r->open[r->depth - 1]))
		return damaged(r, err, "closes what is not open");
	skip_blanks(r);
	if (r->p == r->end || *r->p != '>')
		return damaged(r, err, "tag without an end");
	r->p++;
	return close_element(r, item);
}

/* At '<' of what is no element. 1 when there was such a thing, 0 when not. */
static int skip_other(struct xml_reader *r, struct err *err)
{
	if (looks_at(r, "<![CDATA["))
		return read_cdata(r, err) < 0 ? -1 : 1;
	if (looks_at(r, "<!--")) {
		r->p += 4;
		return skip_past(r, "-->") < 0 ? damaged(r, err, "comment without an end") : 1;
	}
	if (looks_at(r, "<?"))
		return skip_past(r, "?>") < 0 ? damaged(r, err, "<? without an end") : 1;
	if (looks_at(r, "<!"))
		return damaged(r, err, "a document type is not taken");
	return 0;
}

int xml_reader_next(struct xml_reader *r, struct xml_item *item, struct err *err)
{
	int other;

	buf_reset(&r->text);
	if (r->is_empty)
		return close_element(r, item);
	do {
		if (read_text(r, err) < 0)
			return -1;
		if (r->p == r->end) {
			if (r->depth > 0 || !r->has_root)
				return damaged(r, err, "ends too early");
			return 0;
		}
		other = skip_other(r, err);
	} while (other > 0);
	if (other < 0)
		return -1;
	return looks_at(r, "</") ? read_close(r, item, err) : read_open(r, item, err);
}
