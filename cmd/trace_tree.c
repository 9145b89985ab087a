/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_tree.c - see trace_tree.h.
 *
 * DESIGN: nodes are numbered: spans 0..n-1, then the missing parents. parent[] is filled from a
 * table of the spans sorted by id, circles are cut, then one sort by (parent, start) puts siblings
 * side by side and a stack of ranges walks them.
 */
#include "cmd/trace_tree.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

enum { LOOK_AT = 16 }; /* of the spans that share an id: more are copies of one another */

#define NONE UINT32_MAX
#define DAY_NS (UINT64_C(86400) * NS_PER_S)

struct order {
	uint8_t id[8];
	uint32_t node;
	uint8_t side; /* 0 calls, 1 is called or neither */
	uint64_t start_ns;
};

struct sibling {
	uint32_t parent, node;
	uint64_t start_ns;
};

struct build {
	struct trace_tree *t;
	uint32_t n, n_nodes;   /* spans; with missing parents */
	struct order *by_id;   /* n */
	uint32_t *parent;      /* n_nodes */
	bool *is_cut;          /* n */
	uint8_t (*missing)[8]; /* n_nodes - n */
	uint64_t *missing_start;
	struct sibling *siblings; /* n_nodes */
};

/* ---- spans ---- */

static int read_spans(struct bytes data, struct trace_tree *t, struct err *err)
{
	struct otlp_counts n = { 0 };
	struct otlp_result result = { .is_whole = false };
	struct span_tables *s = &t->tables;

	if (otlp_count(data, &n, err) < 0)
		return -1;
	s->spans = xcalloc((size_t)n.n_spans + 1, sizeof(*s->spans));
	s->scopes = xcalloc((size_t)n.n_scopes + 1, sizeof(*s->scopes));
	s->resources = xcalloc((size_t)n.n_resources + 1, sizeof(*s->resources));
	s->heads = xcalloc((size_t)n.n_heads + 1, sizeof(*s->heads));
	if (otlp_index(data, s, &t->arena, &result, err) < 0)
		return -1;
	t->n_spans = s->n_spans;
	t->n_rejected = result.rejects.n;
	return 0;
}

/* The text of a string_value; empty for any other kind. */
static struct bytes text_of(struct bytes any)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&any, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			return f.data;
	return BYTES_EMPTY;
}

static struct bytes service_of(const struct trace_tree *t, const struct resource_ref *r)
{
	struct pb_field f = { .number = 0 };
	struct bytes value = BYTES_EMPTY;

	for (uint32_t i = 0; i < r->n_head; i++) {
		struct bytes head = t->tables.heads[r->head + i];

		while (pb_next(&head, &f) > 0)
			if (f.number == 1 && f.wire == PB_LEN &&
			    otlp_attribute(f.data, 1, BYTES_LIT("service.name"), &value))
				return text_of(value);
	}
	return BYTES_EMPTY;
}

static void read_services(struct trace_tree *t)
{
	uint32_t n = t->tables.n_resources;

	t->services = xcalloc((size_t)n + 1, sizeof(*t->services));
	for (uint32_t i = 0; i < n; i++)
		t->services[i] = service_of(t, &t->tables.resources[i]);
}

static bool calls(const struct span_ref *sp)
{
	return sp->kind == SPAN_CLIENT || sp->kind == SPAN_PRODUCER;
}

static bool is_called(const struct span_ref *sp)
{
	return sp->kind == SPAN_SERVER || sp->kind == SPAN_CONSUMER;
}

/* ---- parents ---- */

static int order_cmp(const void *a, const void *b)
{
	const struct order *x = a, *y = b;
	int c = memcmp(x->id, y->id, 8);

	if (c == 0)
		c = x->side - y->side;
	if (c == 0)
		c = x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
	return c != 0 ? c : x->node < y->node ? -1 : x->node > y->node;
}

static void sort_by_id(struct build *b)
{
	for (uint32_t i = 0; i < b->n; i++) {
		const struct span_ref *sp = &b->t->tables.spans[i];

		memcpy(b->by_id[i].id, sp->span_id, 8);
		b->by_id[i].node = i;
		b->by_id[i].side = !calls(sp);
		b->by_id[i].start_ns = sp->start_ns;
	}
	if (b->n > 0)
		qsort(b->by_id, b->n, sizeof(*b->by_id), order_cmp);
}

/* Index in by_id of the first span with this id; NONE. */
static uint32_t find_id(const struct build *b, const uint8_t id[8])
{
	uint32_t lo = 0, hi = b->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (memcmp(b->by_id[mid].id, id, 8) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < b->n && memcmp(b->by_id[lo].id, id, 8) == 0 ? lo : NONE;
}

/* The caller that shares span i's id, when i is the called half of a Zipkin span. */
static uint32_t shared_caller(const struct build *b, uint32_t i)
{
	const struct span_ref *sp = &b->t->tables.spans[i];
	uint32_t at = is_called(sp) ? find_id(b, sp->span_id) : NONE;

	return at != NONE && b->by_id[at].side == 0 ? b->by_id[at].node : NONE;
}

static struct bytes service_name(const struct build *b, uint32_t i)
{
	return b->t->services[trace_tree_resource(b->t, &b->t->tables.spans[i])];
}

/* Of the spans with the parent's id: the half in the child's own service, else the called one. */
static uint32_t find_parent(const struct build *b, uint32_t i)
{
	const struct span_ref *spans = b->t->tables.spans;
	uint32_t at = find_id(b, spans[i].parent_id), best = NONE;
	int best_score = -1;

	for (uint32_t k = at; k < b->n && k - at < LOOK_AT; k++) {
		uint32_t node = b->by_id[k].node;
		int score;

		if (memcmp(b->by_id[k].id, spans[i].parent_id, 8) != 0)
			break;
		score = 2 * bytes_eq(service_name(b, node), service_name(b, i)) +
			is_called(&spans[node]) - 4 * (node == i);
		if (best == NONE || score > best_score) {
			best = node;
			best_score = score;
		}
	}
	return best;
}

static void find_parents(struct build *b)
{
	static const uint8_t none[8];

	for (uint32_t i = 0; i < b->n; i++) {
		const struct span_ref *sp = &b->t->tables.spans[i];

		b->parent[i] = shared_caller(b, i);
		if (b->parent[i] == NONE && memcmp(sp->parent_id, none, 8) != 0)
			b->parent[i] = find_parent(b, i);
	}
}

/* ---- circles ---- */

static void cut_circle(struct build *b, uint32_t on_it)
{
	const struct span_ref *spans = b->t->tables.spans;
	uint32_t first = on_it;

	for (uint32_t v = b->parent[on_it]; v != on_it; v = b->parent[v])
		if (spans[v].start_ns < spans[first].start_ns)
			first = v;
	b->parent[first] = NONE;
	b->is_cut[first] = true;
}

/* Walk up from every span; a walk that meets itself has found a circle. */
static void cut_circles(struct build *b)
{
	enum { UNSEEN, ON_WALK, DONE };
	uint8_t *seen = xcalloc((size_t)b->n + 1, 1);

	for (uint32_t i = 0; i < b->n; i++) {
		uint32_t v = i, met = NONE;

		for (; v != NONE && seen[v] == UNSEEN; v = b->parent[v])
			seen[v] = ON_WALK;
		if (v != NONE && seen[v] == ON_WALK)
			met = v;
		for (v = i; v != NONE && seen[v] == ON_WALK; v = b->parent[v])
			seen[v] = DONE;
		if (met != NONE)
			cut_circle(b, met);
	}
	free(seen);
}

/* ---- parents that are not there ---- */

static bool is_orphan(const struct build *b, uint32_t i)
{
	static const uint8_t none[8];

	return b->parent[i] == NONE && !b->is_cut[i] &&
	       memcmp(b->t->tables.spans[i].parent_id, none, 8) != 0;
}

/* A node for each missing id, in the order of the ids. */
static void add_missing(struct build *b)
{
	const struct span_ref *spans = b->t->tables.spans;
	struct order *v = xcalloc((size_t)b->n + 1, sizeof(*v));
	uint32_t n = 0, m = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (!is_orphan(b, i))
			continue;
		memcpy(v[n].id, spans[i].parent_id, 8);
		v[n].start_ns = spans[i].start_ns;
		v[n++].node = i;
	}
	if (n > 0)
		qsort(v, n, sizeof(*v), order_cmp);
	b->missing = xcalloc((size_t)n + 1, sizeof(*b->missing));
	b->missing_start = xcalloc((size_t)n + 1, sizeof(*b->missing_start));
	for (uint32_t k = 0; k < n; k++) {
		if (k == 0 || memcmp(v[k].id, v[k - 1].id, 8) != 0) {
			memcpy(b->missing[m], v[k].id, 8);
			b->missing_start[m++] = v[k].start_ns;
		}
		b->parent[v[k].node] = b->n + m - 1;
	}
	b->n_nodes = b->n + m;
	b->t->n_missing = m;
	free(v);
}

/* ---- rows ---- */

static int sibling_cmp(const void *a, const void *b)
{
	const struct sibling *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (x->start_ns != y->start_ns)
		return x->start_ns < y->start_ns ? -1 : 1;
	return x->node < y->node ? -1 : x->node > y->node;
}

static void add_row(struct build *b, uint32_t node, uint32_t depth, bool is_last, bool has_children)
{
	struct tree_row *row = &b->t->rows[b->t->n_rows++];

	row->depth = depth;
	row->is_last = is_last;
	row->has_children = has_children;
	if (node >= b->n) {
		memcpy(row->missing_id, b->missing[node - b->n], 8);
		return;
	}
	row->span = &b->t->tables.spans[node];
	row->is_cut = b->is_cut[node];
}

/* Where the children of a node lie among the siblings: first[node]..first[node + 1]. The tops have
 * the number n_nodes here. */
static uint32_t *find_children(struct build *b)
{
	uint32_t *first = xcalloc((size_t)b->n_nodes + 3, sizeof(*first));

	for (uint32_t i = 0; i < b->n_nodes; i++) {
		uint32_t p = i < b->n ? b->parent[i] : NONE;

		b->siblings[i] = (struct sibling){ p == NONE ? b->n_nodes : p, i,
						   i < b->n ? b->t->tables.spans[i].start_ns
							    : b->missing_start[i - b->n] };
		first[b->siblings[i].parent + 1]++;
	}
	if (b->n_nodes > 0)
		qsort(b->siblings, b->n_nodes, sizeof(*b->siblings), sibling_cmp);
	for (uint32_t i = 0; i <= b->n_nodes; i++)
		first[i + 1] += first[i];
	return first;
}

static void make_rows(struct build *b)
{
	struct range {
		uint32_t at, end;
	} *stack = xcalloc((size_t)b->n_nodes + 2, sizeof(*stack));
	uint32_t *first = find_children(b), depth = 0;

	b->t->rows = xcalloc((size_t)b->n_nodes + 1, sizeof(*b->t->rows));
	stack[0] = (struct range){ first[b->n_nodes], first[b->n_nodes + 1] };
	while (depth > 0 || stack[0].at < stack[0].end) {
		struct range *r = &stack[depth];
		uint32_t node;

		if (r->at == r->end) {
			depth--;
			continue;
		}
		node = b->siblings[r->at++].node;
		add_row(b, node, depth, r->at == r->end, first[node] < first[node + 1]);
		if (first[node] < first[node + 1])
			stack[++depth] = (struct range){ first[node], first[node + 1] };
	}
	free(stack);
	free(first);
}

/* ---- what the header says ---- */

static int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The start in the middle of all; 0 when no span has one. */
static uint64_t median_start(const struct span_tables *s)
{
	uint64_t *v = xcalloc((size_t)s->n_spans + 1, sizeof(*v)), median = 0;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n_spans; i++)
		if (s->spans[i].start_ns > 0)
			v[n++] = s->spans[i].start_ns;
	if (n > 0) {
		qsort(v, n, sizeof(*v), u64_cmp);
		median = v[n / 2];
	}
	free(v);
	return median;
}

static bool is_near(uint64_t t, uint64_t median)
{
	return t > 0 && (t > median ? t - median : median - t) <= DAY_NS;
}

static void measure(struct trace_tree *t)
{
	uint64_t median = median_start(&t->tables);

	t->start_ns = t->end_ns = median;
	for (uint32_t i = 0; i < t->n_spans; i++) {
		const struct span_ref *sp = &t->tables.spans[i];

		t->n_errors += sp->status == STATUS_ERROR;
		if (!is_near(sp->start_ns, median))
			continue;
		t->start_ns = MIN(t->start_ns, sp->start_ns);
		t->end_ns = MAX(t->end_ns, sp->start_ns);
		if (is_near(sp->end_ns, median))
			t->end_ns = MAX(t->end_ns, sp->end_ns);
	}
}

static void number_services(struct trace_tree *t)
{
	struct map numbers = MAP_INIT;

	t->service_number = xcalloc((size_t)t->tables.n_resources + 1, sizeof(uint32_t));
	t->names = xcalloc((size_t)t->tables.n_resources + 1, sizeof(*t->names));
	for (size_t i = 0; i < t->n_rows; i++) {
		uint32_t r, *known;

		if (t->rows[i].span == NULL)
			continue;
		r = trace_tree_resource(t, t->rows[i].span);
		known = map_find(&numbers, t->services[r]);
		if (known == NULL) {
			t->names[t->n_services] = t->services[r];
			t->service_number[r] = t->n_services++;
			map_set(&numbers, t->services[r], &t->service_number[r]);
		} else {
			t->service_number[r] = *known;
		}
	}
	map_fini(&numbers);
}

int trace_tree_build(struct bytes traces_data, struct trace_tree *t, struct err *err)
{
	struct build b = { .t = t };

	memset(t, 0, sizeof(*t));
	if (read_spans(traces_data, t, err) < 0)
		return -1;
	read_services(t);
	b.n = t->n_spans;
	b.by_id = xcalloc((size_t)b.n + 1, sizeof(*b.by_id));
	b.parent = xcalloc((size_t)b.n + 1, sizeof(*b.parent));
	b.is_cut = xcalloc((size_t)b.n + 1, sizeof(*b.is_cut));
	sort_by_id(&b);
	find_parents(&b);
	cut_circles(&b);
	add_missing(&b);
	b.siblings = xcalloc((size_t)b.n_nodes + 1, sizeof(*b.siblings));
	make_rows(&b);
	measure(t);
	number_services(t);
	free(b.by_id);
	free(b.parent);
	free(b.is_cut);
	free(b.missing);
	free(b.missing_start);
	free(b.siblings);
	return 0;
}

void trace_tree_fini(struct trace_tree *t)
{
	free(t->rows);
	free(t->services);
	free(t->service_number);
	free(t->names);
	free(t->tables.spans);
	free(t->tables.scopes);
	free(t->tables.resources);
	free(t->tables.heads);
	arena_fini(&t->arena);
	memset(t, 0, sizeof(*t));
}
