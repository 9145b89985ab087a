/* SPDX-License-Identifier: Apache-2.0
 *
 * option.h - typed option tables: one table gives a component its parsing, defaults, messages, docs
 *and print-config.
 *
 *	#define C struct foo_config
 *	static const struct option foo_options[] = {
 *		OPT_STR(C, "endpoint", endpoint, "localhost:4317", "Where to send."),
 *		OPT_DURATION(C, "timeout", timeout_ns, "5s", "Of one attempt."),
 *		OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
 *"Retries."), OPT_SECTION(C, "protocols.grpc", grpc_on, grpc, struct grpc_server_options,
 *grpc_server_option_table, "off", "OTLP over gRPC."), OPT_DEFAULT("protocols.grpc.endpoint",
 *"localhost:4317"), OPT_REQUIRE("endpoint"), OPT_END
 *	};
 *
 * A dot in a key is a nested map. The macro checks the member's C type at compile time. `fallback`
 *is the default as typed in YAML; NULL means zero, empty or unset.
 *
 * OWNERSHIP, THREADS: strings and lists of a parsed config live in the arena given to option_parse
 *(that of the load) and are never freed one by one; the config is written once and then read by any
 *thread. LIMITS: those of conf/tree.h; a list has at most 10,000 items. SPEC:
 *docs/formats/config.md; STYLE.md section 4 "Options tables".
 */
#ifndef PIPELINE_OPTION_OPTION_H
#define PIPELINE_OPTION_OPTION_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "pipeline/conf/error.h"

struct conf_node;

enum option_kind {
	OPTION_END,
	OPTION_BOOL,        /* bool */
	OPTION_INT,         /* int64_t */
	OPTION_UINT,        /* uint64_t */
	OPTION_DOUBLE,      /* double */
	OPTION_STR,         /* const char *, never NULL after parsing ("" when unset) */
	OPTION_OPAQUE_STR,  /* the same, printed as [REDACTED] */
	OPTION_STRLIST,     /* struct strlist; a string is split at commas */
	OPTION_OPAQUE_LIST, /* the same, items printed as [REDACTED] */
	OPTION_DURATION,    /* int64_t nanoseconds */
	OPTION_BYTES,       /* uint64_t bytes; typed as a number or with KiB, MiB, GiB */
	OPTION_SIZE_MIB,    /* uint64_t BYTES; typed as a number of MiB (keys that end in _mib) */
	OPTION_ENUM,        /* int or an enum; typed as one of `choices` */
	OPTION_STRMAP,      /* struct strmap; a map or a list of {name, value} */
	OPTION_OPAQUE_MAP,  /* the same, values printed as [REDACTED] */
	OPTION_PROPERTIES,  /* the same; values of any type and content, as they are written */
	OPTION_NODE, /* const struct conf_node *, NULL when absent: the component reads it itself */
	OPTION_TABLE,      /* a struct with a table of its own, always there */
	OPTION_SECTION,    /* the same behind a bool: a section that can be off */
	OPTION_LIST,       /* struct option_list of structs with a table of their own */
	OPTION_INCLUDE,    /* a struct whose rows stand at the same level as this one */
	OPTION_PRESENT,    /* bool: was the key of another row written (and not null)? */
	OPTION_DEFAULT,    /* another default for a key of a nested table */
	OPTION_REQUIRE,    /* a key that must be written and not empty */
	OPTION_EXTENSION,  /* const char *: id of an extension that service.extensions lists */
	OPTION_CONNECTORS, /* struct strlist: ids of connectors in use that show exemplars */
	OPTION_IGNORED,    /* a Collector key without effect here: accepted with a warning */
	OPTION_MOVED, /* a key that is gone from the Collector: unknown, the help is the hint */
	OPTION_UNSUPPORTED, /* a Collector key we cannot honour yet: a named error */
};

struct option_choice {
	const char *name;
	int value;
};

struct option {
	const char *key;
	enum option_kind kind;
	bool is_null_off; /* SECTION: null leaves it off (the Collector's optional without a
			     default) */
	size_t offset;
	size_t offset_on; /* SECTION: of the bool */
	const char *fallback;
	const char *help;    /* one sentence for the docs */
	const char *example; /* NODE: what could stand after the colon */
	double min, max;     /* bounds of a number (DURATION: ns); none when both are 0 */
	const struct option_choice *choices; /* ENUM; ends with a NULL name */
	const struct option *table;          /* TABLE, SECTION, LIST */
	size_t size;                         /* LIST: of one item */
};

struct strlist {
	const char **items;
	size_t n;
};

struct strpair {
	const char *name;
	const char *value;
};

struct strmap {
	struct strpair *items;
	size_t n;
};

struct option_list {
	void *items; /* n structs of the row's item type, side by side */
	size_t n;
};

/* offsetof that refuses, at compile time, a member of another type. */
#define OPT_AT(T, m, ctype)                                                                        \
	(offsetof(T, m) + 0 * sizeof(struct {                                                      \
				  _Static_assert(_Generic(((T *)0)->m, ctype : 1, default : 0),    \
						 #m " must be a " #ctype);                         \
				  char c;                                                          \
			  }))
#define OPT_AT_STR(T, m)                                                                           \
	(offsetof(T, m) +                                                                          \
	 0 * sizeof(struct {                                                                       \
		 _Static_assert(_Generic(((T *)0)->m, char * : 1, const char * : 1, default : 0),  \
				#m " must be a const char *");                                     \
		 char c;                                                                           \
	 }))
#define OPT_AT_ENUM(T, m)                                                                          \
	(offsetof(T, m) +                                                                          \
	 0 * sizeof(struct {                                                                       \
		 _Static_assert(_Generic(((T *)0)->m, int : 1, unsigned : 1, default : 0),         \
				#m " must be an int or an enum");                                  \
		 char c;                                                                           \
	 }))

#define OPT_BOOL(T, k, m, def, text)                                                               \
	{                                                                                          \
		.key = k, .kind = OPTION_BOOL, .offset = OPT_AT(T, m, bool), .fallback = def,      \
		.help = text                                                                       \
	}
#define OPT_INT(T, k, m, def, lo, hi, text)                                                        \
	{                                                                                          \
		.key = k, .kind = OPTION_INT, .offset = OPT_AT(T, m, int64_t), .fallback = def,    \
		.min = (double)(lo), .max = (double)(hi), .help = text                             \
	}
#define OPT_UINT(T, k, m, def, lo, hi, text)                                                       \
	{                                                                                          \
		.key = k, .kind = OPTION_UINT, .offset = OPT_AT(T, m, uint64_t), .fallback = def,  \
		.min = (double)(lo), .max = (double)(hi), .help = text                             \
	}
#define OPT_DOUBLE(T, k, m, def, lo, hi, text)                                                     \
	{                                                                                          \
		.key = k, .kind = OPTION_DOUBLE, .offset = OPT_AT(T, m, double), .fallback = def,  \
		.min = (lo), .max = (hi), .help = text                                             \
	}
#define OPT_STR(T, k, m, def, text)                                                                \
	{                                                                                          \
		.key = k, .kind = OPTION_STR, .offset = OPT_AT_STR(T, m), .fallback = def,         \
		.help = text                                                                       \
	}
#define OPT_OPAQUE_STR(T, k, m, def, text)                                                         \
	{                                                                                          \
		.key = k, .kind = OPTION_OPAQUE_STR, .offset = OPT_AT_STR(T, m), .fallback = def,  \
		.help = text                                                                       \
	}
#define OPT_STRLIST(T, k, m, def, text)                                                            \
	{                                                                                          \
		.key = k, .kind = OPTION_STRLIST, .offset = OPT_AT(T, m, struct strlist),          \
		.fallback = def, .help = text                                                      \
	}
#define OPT_OPAQUE_LIST(T, k, m, text)                                                             \
	{                                                                                          \
		.key = k, .kind = OPTION_OPAQUE_LIST, .offset = OPT_AT(T, m, struct strlist),      \
		.help = text                                                                       \
	}
/* Not negative. */
#define OPT_DURATION(T, k, m, def, text)                                                           \
	{                                                                                          \
		.key = k, .kind = OPTION_DURATION, .offset = OPT_AT(T, m, int64_t),                \
		.fallback = def, .max = 9.3e18, .help = text                                       \
	}
#define OPT_BYTES(T, k, m, def, lo, hi, text)                                                      \
	{                                                                                          \
		.key = k, .kind = OPTION_BYTES, .offset = OPT_AT(T, m, uint64_t), .fallback = def, \
		.min = (double)(lo), .max = (double)(hi), .help = text                             \
	}
#define OPT_SIZE_MIB(T, k, m, def, lo, hi, text)                                                   \
	{                                                                                          \
		.key = k, .kind = OPTION_SIZE_MIB, .offset = OPT_AT(T, m, uint64_t),               \
		.fallback = def, .min = (double)(lo), .max = (double)(hi), .help = text            \
	}
#define OPT_ENUM(T, k, m, words, def, text)                                                        \
	{                                                                                          \
		.key = k, .kind = OPTION_ENUM, .offset = OPT_AT_ENUM(T, m), .choices = words,      \
		.fallback = def, .help = text                                                      \
	}
#define OPT_STRMAP(T, k, m, text)                                                                  \
	{                                                                                          \
		.key = k, .kind = OPTION_STRMAP, .offset = OPT_AT(T, m, struct strmap),            \
		.help = text                                                                       \
	}
#define OPT_OPAQUE_MAP(T, k, m, text)                                                              \
	{                                                                                          \
		.key = k, .kind = OPTION_OPAQUE_MAP, .offset = OPT_AT(T, m, struct strmap),        \
		.help = text                                                                       \
	}
#define OPT_PROPERTIES(T, k, m, text)                                                              \
	{                                                                                          \
		.key = k, .kind = OPTION_PROPERTIES, .offset = OPT_AT(T, m, struct strmap),        \
		.help = text                                                                       \
	}
#define OPT_NODE(T, k, m, like, text)                                                              \
	{                                                                                          \
		.key = k, .kind = OPTION_NODE, .offset = OPT_AT(T, m, const struct conf_node *),   \
		.example = like, .help = text                                                      \
	}
#define OPT_EXTENSION(T, k, m, text)                                                               \
	{                                                                                          \
		.key = k, .kind = OPTION_EXTENSION, .offset = OPT_AT_STR(T, m), .help = text       \
	}
#define OPT_CONNECTORS(T, k, m, text)                                                              \
	{                                                                                          \
		.key = k, .kind = OPTION_CONNECTORS, .offset = OPT_AT(T, m, struct strlist),       \
		.help = text                                                                       \
	}
#define OPT_MOVED(k, text)                                                                         \
	{                                                                                          \
		.key = k, .kind = OPTION_MOVED, .help = text                                       \
	}
#define OPT_TABLE(T, k, m, type, rows, text)                                                       \
	{                                                                                          \
		.key = k, .kind = OPTION_TABLE, .offset = OPT_AT(T, m, type), .table = rows,       \
		.help = text                                                                       \
	}
/* def: "on" or "off" when the key is absent. Present with null, {} or a map it is on, unless
 * `enabled: false`. */
#define OPT_SECTION(T, k, on, m, type, rows, def, text)                                            \
	{                                                                                          \
		.key = k, .kind = OPTION_SECTION, .offset = OPT_AT(T, m, type),                    \
		.offset_on = OPT_AT(T, on, bool), .table = rows, .fallback = def, .help = text     \
	}
/* The same, but null leaves it off. */
#define OPT_SECTION_NULL_OFF(T, k, on, m, type, rows, text)                                        \
	{                                                                                          \
		.key = k, .kind = OPTION_SECTION, .is_null_off = true,                             \
		.offset = OPT_AT(T, m, type), .offset_on = OPT_AT(T, on, bool), .table = rows,     \
		.fallback = "off", .help = text                                                    \
	}
#define OPT_LIST(T, k, m, type, rows, text)                                                        \
	{                                                                                          \
		.key = k, .kind = OPTION_LIST, .offset = OPT_AT(T, m, struct option_list),         \
		.table = rows, .size = sizeof(type), .help = text                                  \
	}
/* The rows of another table as if they were written here. */
#define OPT_INCLUDE(T, m, type, rows)                                                              \
	{                                                                                          \
		.key = "", .kind = OPTION_INCLUDE, .offset = OPT_AT(T, m, type), .table = rows     \
	}
#define OPT_PRESENT(T, k, m)                                                                       \
	{                                                                                          \
		.key = k, .kind = OPTION_PRESENT, .offset = OPT_AT(T, m, bool)                     \
	}
#define OPT_DEFAULT(k, def)                                                                        \
	{                                                                                          \
		.key = k, .kind = OPTION_DEFAULT, .fallback = def                                  \
	}
#define OPT_REQUIRE(k)                                                                             \
	{                                                                                          \
		.key = k, .kind = OPTION_REQUIRE                                                   \
	}
#define OPT_IGNORED(k, text)                                                                       \
	{                                                                                          \
		.key = k, .kind = OPTION_IGNORED, .help = text                                     \
	}
#define OPT_UNSUPPORTED(k, text)                                                                   \
	{                                                                                          \
		.key = k, .kind = OPTION_UNSUPPORTED, .help = text                                 \
	}
#define OPT_END                                                                                    \
	{                                                                                          \
		.key = NULL, .kind = OPTION_END                                                    \
	}

/* Fill `config` (zeroed by the caller, of the size the table speaks of) with the defaults. */
void option_defaults(const struct option *table, void *config, struct arena *arena);
/* Defaults, then what `node` (MAP, NULL or a NULL pointer) says. Every problem goes to `errors`
 * with its position and a path that starts with yaml_path. Returns 0, or -1 when it added an error;
 * config is whole either way. */
int option_parse(const struct option *table, const struct conf_node *node, void *config,
		 struct arena *arena, struct conf_errors *errors, const char *yaml_path);
/* The effective values as a tree in `arena`, which parses to the same config; opaque values are
 * [REDACTED] when redact. Empty strings and lists without a default are left out. */
struct conf_node *option_print(const struct option *table, const void *config, struct arena *arena,
			       bool redact);
/* Call fn for each id that an OPT_EXTENSION or OPT_CONNECTORS names, in sections that are on; kind
 * is the row's, key is dotted. */
typedef void option_reference_fn(void *arg, enum option_kind kind, const char *key, const char *id);
void option_each_reference(const struct option *table, const void *config, option_reference_fn *fn,
			   void *arg);
/* Does the table (or one it includes) have a row with this dotted key? */
bool option_has_key(const struct option *table, const char *key);
/* A Markdown table: key, type, default, meaning; nested tables are rows with dotted keys.
 * Deterministic. */
void option_document(const struct option *table, struct buf *out);

#endif
