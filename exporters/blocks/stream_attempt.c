/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_attempt.c - one window of a source becomes committed blocks, whoever else tries the same.
 *
 *   LOOK --covered by a known commit--> PUBLISH (finish what its owner may have left) --> LOOK ..
 *    |  '-- not: up to the next commit that is known to begin inside
 *   BUILD --> COMMIT --put--> PUBLISH --> LOOK at the rest, or DONE
 *     ^         | EXISTS: delete ours, PUBLISH theirs
 *     '---------' meanwhile somebody committed something inside: delete ours, LOOK
 *
 * Two owners of a source start where a section ended, so they put the same key and one of them
 * wins. Who starts elsewhere (an operator moved the offsets, the topic lost its beginning) has no
 * key in common with the others: therefore all commits that could lie inside are listed right
 * before the put, and what they cover, record by record, is left out.
 * An attempt keeps its step over failures: blocks whose commit may have succeeded stay, and the
 * same commit is put again.
 *
 * THREADS: the builder's, without the streams' lock, but for a look at the chunks.
 * SPEC: docs/formats/section-commit.md.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/stream_private.h"
#include "exporters/blocks/stream_record.h"
#include "pipeline/segment/slice.h"

#include <unistd.h>

enum {
	CHUNK_SHARE = 4, /* of what a build may take: the spans it has in memory at a time */
	/* Well below the age at which other processes sweep blocks that no commit names. */
	UNCOMMITTED_MAX_S = 1200,
	/* Commits that are read in any case: as many sections of other lives may lie between. */
	NEAR_NAMES = 16,
};

static struct backend *backend_of(const struct stream *st)
{
	return store_backend(st->m->o.store);
}

static void pause_for_test(const struct stream *st)
{
	if (st->m->step_delay_ms > 0)
		usleep(st->m->step_delay_ms * 1000);
}

static const struct source_record *record_at(const struct stream *st, size_t i)
{
	return &st->attempt.window->records[i];
}

/* ---- LOOK ---- */

/* Commits that begin before the last one do not matter any more. */
static void forget_names(struct stream *st)
{
	struct section_names *names = &st->names;
	size_t n = 0;

	while (n < names->n && names->v[n].first < st->before.first)
		n++;
	if (n > 0)
		memmove(names->v, names->v + n, (names->n - n) * sizeof(*names->v));
	names->n -= n;
}

static void forget_name(struct stream *st, size_t i)
{
	struct section_names *names = &st->names;

	memmove(names->v + i, names->v + i + 1, (names->n - i - 1) * sizeof(*names->v));
	names->n--;
}

/* Nobody can follow a damaged record, and none of its source's records could be stored as long as
 * it stands there: it gets another name. What it named stays, visible or not, and what was not
 * committed to Kafka is stored again. */
static int set_aside(struct stream *st, uint64_t first, uint64_t timestamp_ms, struct err *err)
{
	if (err->kind != ERR_CORRUPT && err->kind != ERR_TOO_LARGE)
		return -1;
	return section_commit_set_aside(backend_of(st), st->name, first, timestamp_ms, err);
}

/* Read commit i of the names: 1, 0 when it was swept meanwhile, or is set aside. */
static int read_name(struct stream *st, size_t i, struct section_commit *c, struct err *err)
{
	struct err local = ERR_INIT;

	if (section_commit_read(backend_of(st), st->name, st->names.v[i].first,
				st->names.v[i].timestamp_ms, c, &local) == 0)
		return 1;
	if (local.kind == ERR_NOT_FOUND ||
	    set_aside(st, st->names.v[i].first, st->names.v[i].timestamp_ms, &local) == 0) {
		forget_name(st, i);
		return 0;
	}
	if (err != NULL)
		*err = local;
	return -1;
}

/* Names at or before this record; those of `before` and what is in front of it cannot hold it. */
static size_t names_upto(const struct stream *st, const struct source_record *rec)
{
	size_t n = 0;

	while (n < st->names.n && st->names.v[n].first <= rec->offset)
		n++;
	return n;
}

static bool is_before(const struct stream *st, const struct section_name *name)
{
	return st->has_before && name->first == st->before.first &&
	       name->timestamp_ms == st->before.first_timestamp_ms;
}

/* Whether commit i can reach to the record, which lies behind names [i, end): not when one of those
 * is of its own life of the topic, for sections of one life do not overlap. Lives mostly follow
 * each other in time, so one whose time lies between the two is of that life: enough of a reason
 * not to read what is far away.
 */
static bool may_reach(const struct stream *st, size_t i, size_t end,
		      const struct source_record *rec)
{
	const struct section_name *c = &st->names.v[i];

	if (c->first == rec->offset)
		return c->timestamp_ms == rec->timestamp_ms;
	if (end - i <= NEAR_NAMES)
		return true;
	for (size_t n = i + 1; n < end; n++) {
		const struct section_name *near = &st->names.v[n];

		if (near->first > c->first && near->first < rec->offset &&
		    near->timestamp_ms >= c->timestamp_ms &&
		    near->timestamp_ms <= rec->timestamp_ms)
			return false;
	}
	return true;
}

/* Whether the commit holds the window's records from `at` on, as far as it reaches. One that is
 * another than the commit's, or none that is certainly the same: then it is of another life of the
 * topic. Spans that are stored a second time are one in an answer; what is taken for stored and is
 * not is lost. */
static bool holds(const struct stream *st, const struct section_commit *c, size_t at)
{
	const struct stream_window *w = st->attempt.window;
	bool is_same = false;

	for (size_t k = at; k < w->n_records && (k == at || w->records[k].offset <= c->last); k++) {
		const struct source_record *rec = &w->records[k];
		enum section_match m = section_commit_match(c, rec->offset, rec->timestamp_ms);

		if (m == SECTION_OTHER)
			return false;
		is_same |= m == SECTION_SAME;
	}
	return is_same;
}

static void copy_commit(struct section_commit *to, const struct section_commit *from)
{
	*to = *from;
	to->metas = NULL;
	to->n_metas = 0;
	to->samples = xmalloc(MAX(from->n_samples, 1u) * sizeof(*to->samples));
	if (from->n_samples > 0)
		memcpy(to->samples, from->samples, from->n_samples * sizeof(*to->samples));
}

/* The commit that holds the window's records from `at` on, among those we know: 1 with it in *c, 0,
 * -1. */
static int find_cover(struct stream *st, size_t at, struct section_commit *c, struct err *err)
{
	const struct source_record *rec = record_at(st, at);
	size_t i = names_upto(st, rec);

	/* It may reach further than the window that it was met in; its blocks are published. */
	*c = (struct section_commit){ 0 };
	if (st->has_before && holds(st, &st->before, at)) {
		copy_commit(c, &st->before);
		return 1;
	}
	while (i > 0 && !is_before(st, &st->names.v[i - 1])) {
		int got;

		i--;
		if (!may_reach(st, i, names_upto(st, rec), rec))
			continue;
		got = read_name(st, i, c, err);
		if (got < 0)
			return -1;
		if (got > 0 && holds(st, c, at))
			return 1;
		section_commit_fini(c);
	}
	return 0;
}

/* First record behind `at` with which a known commit begins, or the end of the window. */
static size_t next_known(const struct stream *st, size_t at)
{
	const struct stream_window *w = st->attempt.window;
	size_t i = names_upto(st, &w->records[at]);

	for (size_t k = at + 1; k < w->n_records && i < st->names.n; k++) {
		while (i < st->names.n && st->names.v[i].first < w->records[k].offset)
			i++;
		for (size_t j = i; j < st->names.n && st->names.v[j].first == w->records[k].offset;
		     j++)
			if (st->names.v[j].timestamp_ms == w->records[k].timestamp_ms)
				return k;
	}
	return w->n_records;
}

static int look(struct stream *st, struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	int got;

	if (!st->has_names &&
	    section_names_add(backend_of(st), st->name, NULL, &st->names, err) < 0)
		return -1;
	st->has_names = true;
	got = find_cover(st, a->at, &a->commit, err);
	if (got < 0)
		return -1;
	a->is_ours = false;
	a->to = next_known(st, a->at);
	a->step = got > 0 ? STREAM_PUBLISH : STREAM_BUILD;
	return 0;
}

/* ---- BUILD ---- */

/* One record of the scratch with spans of the section, as it was when the build began. */
struct part {
	struct segment_position at;
	uint64_t first, last; /* offsets of it that count */
	uint64_t wall_min_ns, wall_max_ns;
	uint32_t n_spans;
	char *tenant;
	struct section_notes *keeper;   /* of the notes */
	const struct early_note *notes; /* NULL: none, or not all spans are wanted */
	uint32_t n_notes;
	uint32_t head; /* bytes before its OTLP */
	bool is_whole; /* all its spans are in the section */
	bool is_done;  /* of a tenant that was built */
};

struct parts {
	struct part *v;
	size_t n, cap;
};

static void parts_fini(struct parts *p)
{
	for (size_t i = 0; i < p->n; i++) {
		section_notes_unref(p->v[i].keeper);
		free(p->v[i].tenant);
	}
	free(p->v);
}

static void add_parts(struct parts *p, const struct live_section *s, uint64_t first, uint64_t last)
{
	uint64_t end = MIN(last, s->end_offset - 1);

	for (size_t i = 0; i < s->n_records && first < s->end_offset; i++) {
		const struct live_record *rec = &s->records[i];
		bool is_whole = rec->first >= first && rec->last <= end;
		bool is_noted = is_whole && rec->notes != NULL;

		if (rec->last < first || rec->first > end)
			continue;
		p->v = xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
		p->v[p->n++] = (struct part){
			.at = rec->at,
			.first = first,
			.last = end,
			.wall_min_ns = s->min_wall_ns,
			.wall_max_ns = s->max_wall_ns,
			.n_spans = rec->n_spans,
			.tenant = xstrdup(s->tenants[rec->tenant]),
			.keeper = is_noted ? section_notes_ref(s->notes) : NULL,
			.notes = is_noted ? rec->notes : NULL,
			.n_notes = rec->n_notes,
			.head = rec->head,
			.is_whole = is_whole,
		};
	}
}

static void collect_parts(struct stream *st, struct parts *p)
{
	const struct stream_attempt *a = &st->attempt;

	pthread_mutex_lock(&st->m->lock);
	for (const struct live_section *s = st->chunks.first; s != NULL; s = s->next)
		add_parts(p, s, record_at(st, a->at)->offset, record_at(st, a->to - 1)->offset);
	pthread_mutex_unlock(&st->m->lock);
}

/* Where a request lies. Looked at for every read, in the order of trace ids: so they are small, and
 * side by side. */
struct request_at {
	struct segment_position at;
	uint32_t head; /* bytes before its OTLP */
};

/* The parts of one tenant, in the order they came; the builder reads them twice. */
struct requests {
	struct stream *st;
	struct parts *parts;
	const char *tenant;
	size_t at;
	struct request_at *given; /* so far */
	size_t n, cap;
	uint64_t n_spans; /* given so far */
	struct buf payload, mask;
	struct segment_slices slices;
	bool *is_broken;
	bool used_notes;
};

static int broken(struct requests *in, struct err *err)
{
	if (err != NULL && (err->kind == ERR_CORRUPT || err->kind == ERR_NOT_FOUND))
		*in->is_broken = true;
	return -1;
}

static int read_part(struct requests *in, const struct part *p, struct stream_record *r,
		     struct err *err)
{
	buf_reset(&in->payload);
	if (segment_log_read(in->st->m->scratch, &p->at, &in->payload, err) < 0 ||
	    stream_record_parse(buf_bytes(&in->payload), r, err) < 0)
		return broken(in, err);
	return 0;
}

/* The mask must have a byte for every span that the builder will meet. */
static int mask_part(struct requests *in, const struct part *p, const struct stream_record *r,
		     struct block_request *out, struct err *err)
{
	struct otlp_counts c;

	if (p->is_whole) {
		in->n_spans += p->n_spans;
		return 0;
	}
	in->n_spans += stream_record_mask(r, p->first, p->last, &in->mask);
	if (otlp_count(r->batch.otlp, &c, err) < 0 || c.n_spans != in->mask.n) {
		err_set(err, ERR_CORRUPT, "scratch record: its runs have %zu spans, it has others",
			in->mask.n);
		return broken(in, err);
	}
	out->keep = in->mask.p;
	return 0;
}

static int take_part(struct requests *in, const struct part *p, struct block_request *out,
		     struct err *err)
{
	struct stream_record r;
	uint32_t head = p->head;

	if (p->notes != NULL) {
		out->notes = p->notes;
		out->n_notes = p->n_notes;
		out->heads = &p->keeper->heads;
		in->n_spans += p->n_spans;
		in->used_notes = true;
	} else {
		if (read_part(in, p, &r, err) < 0 || mask_part(in, p, &r, out, err) < 0)
			return -1;
		out->otlp = r.batch.otlp;
		head = (uint32_t)(r.batch.otlp.p - in->payload.p);
	}
	in->given = xgrow(in->given, &in->cap, in->n + 1, sizeof(*in->given));
	in->given[in->n++] = (struct request_at){ p->at, head };
	return 1;
}

static int next_request(void *arg, struct block_request *out, struct err *err)
{
	struct requests *in = arg;
	struct part *p;

	while (in->at < in->parts->n && strcmp(in->parts->v[in->at].tenant, in->tenant) != 0)
		in->at++;
	if (in->at == in->parts->n)
		return 0;
	p = &in->parts->v[in->at++];
	p->is_done = true;
	*out = (struct block_request){ .otlp = BYTES_EMPTY };
	return take_part(in, p, out, err);
}

static int read_request(void *arg, uint32_t request, uint32_t off, uint32_t n, void *to,
			struct err *err)
{
	struct requests *in = arg;
	const struct request_at *r = &in->given[request];

	if (segment_slices_read(&in->slices, &r->at, r->head + off, n, to, err) < 0)
		return broken(in, err);
	return 0;
}

static void wall_times(const struct parts *p, uint64_t *first_ns, uint64_t *last_ns, size_t *n_runs)
{
	*first_ns = UINT64_MAX;
	*last_ns = *n_runs = 0;
	for (size_t i = 0; i < p->n; i++) {
		*first_ns = MIN(*first_ns, p->v[i].wall_min_ns);
		*last_ns = MAX(*last_ns, p->v[i].wall_max_ns);
		*n_runs += p->v[i].n_notes > 0 ? p->v[i].n_notes : p->v[i].n_spans;
	}
}

static int build_tenant(struct stream *st, struct parts *parts, const char *tenant, bool *is_broken,
			struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	struct requests in = { .st = st, .parts = parts, .tenant = tenant, .is_broken = is_broken };
	struct block_input input = { next_request, read_request, &in, 0 };
	struct block_build b = {
		.backend = backend_of(st),
		.tenant = tenant,
		.writer = &st->m->o.writer,
		.budget = st->m->o.budget,
		.input = &input,
		.shard_count = st->n_partitions,
		.shard_index = st->partition,
		.chunk_bytes = section_streams_share(st->m) / CHUNK_SHARE,
	};
	int ret;

	wall_times(parts, &b.first_wall_ns, &b.last_wall_ns, &input.n_runs);
	segment_slices_init(&in.slices, st->m->scratch);
	a->commit.metas =
		xrealloc(a->commit.metas, (a->commit.n_metas + 1) * sizeof(*a->commit.metas));
	ret = block_build(&b, &a->commit.metas[a->commit.n_metas], err);
	/* Spans that were checked in memory are others now: the records are no use any more. */
	if (b.is_changed && in.used_notes)
		*is_broken = true;
	/* A request that was indexed when it came cannot fail now, unless it is another one. */
	if (ret == 0 && b.n_spans != in.n_spans) {
		*is_broken = true;
		a->commit.n_metas += b.n_traces > 0;
		ret = err_set(err, ERR_CORRUPT, "scratch: %llu spans of %llu are left",
			      (unsigned long long)b.n_spans, (unsigned long long)in.n_spans);
	} else if (ret == 0) {
		a->commit.n_metas += b.n_traces > 0;
		a->n_built += b.n_spans;
		a->n_duplicates += b.n_duplicates;
		a->n_conflicting += b.n_conflicting;
	}
	segment_slices_fini(&in.slices);
	buf_fini(&in.payload);
	buf_fini(&in.mask);
	free(in.given);
	return ret;
}

/* All records of the section, or evenly some of them, and the last one. */
static void name_samples(struct stream_attempt *a)
{
	const struct source_record *rec = a->window->records;
	struct section_commit *c = &a->commit;
	size_t n = a->to - a->at, step = (n + SECTION_SAMPLES_MAX - 1) / SECTION_SAMPLES_MAX;

	c->samples = xcalloc(n / step + 2, sizeof(*c->samples));
	for (size_t i = a->at; i < a->to; i += step)
		c->samples[c->n_samples++] =
			(struct section_sample){ rec[i].offset, rec[i].timestamp_ms };
	if (c->samples[c->n_samples - 1].position != c->last)
		c->samples[c->n_samples++] =
			(struct section_sample){ c->last, rec[a->to - 1].timestamp_ms };
}

/* The commit's own figures. */
static void name_commit(struct stream_attempt *a)
{
	const struct source_record *rec = a->window->records;
	struct section_commit *c = &a->commit;

	c->first = rec[a->at].offset;
	c->last = rec[a->to - 1].offset;
	c->first_timestamp_ms = rec[a->at].timestamp_ms;
	c->has_timestamps = true;
	c->min_timestamp_ms = UINT64_MAX;
	c->max_timestamp_ms = 0;
	for (size_t i = a->at; i < a->to; i++) {
		c->min_timestamp_ms = MIN(c->min_timestamp_ms, rec[i].timestamp_ms);
		c->max_timestamp_ms = MAX(c->max_timestamp_ms, rec[i].timestamp_ms);
	}
	name_samples(a);
}

static int build(struct stream *st, bool *is_broken, struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	struct parts parts = { NULL, 0, 0 };
	int ret = 0;

	a->commit = (struct section_commit){ 0 };
	name_commit(a);
	collect_parts(st, &parts);
	for (size_t i = 0; ret == 0 && i < parts.n; i++)
		if (!parts.v[i].is_done) {
			ret = build_tenant(st, &parts, parts.v[i].tenant, is_broken, err);
			pause_for_test(st);
		}
	parts_fini(&parts);
	if (ret < 0) {
		section_commit_discard(backend_of(st), &a->commit);
		return -1;
	}
	a->is_ours = true;
	a->may_be_committed = false;
	a->built_mono_ns = clock_mono_ns();
	a->step = STREAM_COMMIT;
	return 0;
}

/* ---- COMMIT ---- */

/* Not what a put that timed out may still commit: what no commit names is swept some time. */
static void discard(struct stream *st, enum stream_step then)
{
	if (st->attempt.may_be_committed)
		section_commit_fini(&st->attempt.commit);
	else
		section_commit_discard(backend_of(st), &st->attempt.commit);
	st->attempt.step = then;
}

/* Somebody's record stands under our key: it is the section now. */
static int follow_winner(struct stream *st, struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	struct section_commit winner;
	struct err local = ERR_INIT;

	if (section_commit_read(backend_of(st), st->name, a->commit.first,
				a->commit.first_timestamp_ms, &winner, &local) < 0) {
		if (err != NULL)
			*err = local;
		/* The next try commits in its place. */
		set_aside(st, a->commit.first, a->commit.first_timestamp_ms, &local);
		return -1;
	}
	/* Our own put may have succeeded although it said no. */
	a->is_ours = winner.n_metas > 0 && a->commit.n_metas > 0 &&
		     strcmp(winner.metas[0].id, a->commit.metas[0].id) == 0;
	if (a->is_ours)
		section_commit_fini(&a->commit);
	else
		section_commit_discard(backend_of(st), &a->commit);
	a->commit = winner;
	a->step = STREAM_PUBLISH;
	return 0;
}

/* The commit failed for long. Before the blocks are given up: was it written after all? */
static int give_up_blocks(struct stream *st, struct err *err)
{
	struct err local = ERR_INIT;

	if (follow_winner(st, &local) == 0)
		return 0;
	if (local.kind != ERR_NOT_FOUND) {
		if (err != NULL)
			*err = local;
		return -1;
	}
	discard(st, STREAM_LOOK);
	return 0;
}

/* True when a commit that we did not know when we began lies in what we are about to commit. */
static int is_overtaken(struct stream *st, struct err *err)
{
	const struct section_name before = { st->before.first, st->before.first_timestamp_ms };
	struct stream_attempt *a = &st->attempt;
	struct section_commit c;
	int got;

	if (section_names_add(backend_of(st), st->name, st->has_before ? &before : NULL, &st->names,
			      err) < 0)
		return -1;
	if (next_known(st, a->at) < a->to)
		return 1;
	got = find_cover(st, a->at, &c, err);
	if (got <= 0)
		return got;
	/* It may be our own, when a put failed after the fact. */
	got = a->commit.n_metas == 0 || c.n_metas == 0 ||
	      strcmp(c.metas[0].id, a->commit.metas[0].id) != 0;
	section_commit_fini(&c);
	return got;
}

static int commit(struct stream *st, struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	struct err local = ERR_INIT;
	int overtaken;

	pause_for_test(st);
	if (clock_mono_ns() - a->built_mono_ns > UNCOMMITTED_MAX_S * NS_PER_S)
		return give_up_blocks(st, err);
	overtaken = is_overtaken(st, err);
	if (overtaken < 0)
		return -1;
	if (overtaken) {
		discard(st, STREAM_LOOK);
		return 0;
	}
	if (section_commit_put(backend_of(st), st->name, &a->commit, &local) == 0) {
		a->step = STREAM_PUBLISH;
		return 0;
	}
	if (local.kind == ERR_EXISTS)
		return follow_winner(st, err);
	a->may_be_committed = true;
	if (err != NULL)
		*err = local;
	return -1;
}

/* ---- PUBLISH ---- */

/* Behind what the commit holds. When it has the key of a section of ours and is of another life all
 * the same (the first records of both came in the same millisecond) only that record can have no
 * commit of its own. */
static void pass_committed(struct stream_attempt *a, bool is_held)
{
	do
		a->at++;
	while (is_held && a->at < a->window->n_records &&
	       a->window->records[a->at].offset <= a->commit.last);
}

/* What comes is looked up in it when it reaches further than the window. */
static void keep_before(struct stream *st, bool is_held)
{
	const struct stream_window *w = st->attempt.window;

	section_commit_fini(&st->before);
	copy_commit(&st->before, &st->attempt.commit);
	st->has_before = true;
	if (is_held && st->before.last <= w->records[w->n_records - 1].offset) {
		free(st->before.samples);
		st->before.samples = NULL;
		st->before.n_samples = 0;
	}
}

static int list_block(void *arg, const struct block_meta *m, struct err *err)
{
	struct stream *st = arg;

	(void)err;
	store_add_committed(st->m->o.store, m);
	pause_for_test(st);
	return 0;
}

static int publish(struct stream *st, struct err *err)
{
	struct stream_attempt *a = &st->attempt;
	bool is_held;

	pause_for_test(st);
	if (section_commit_publish(backend_of(st), &a->commit, list_block, st, err) < 0)
		return -1;
	is_held = holds(st, &a->commit, a->at);
	keep_before(st, is_held);
	forget_names(st);
	pass_committed(a, is_held);
	a->n_blocks += a->is_ours ? a->commit.n_metas : 0;
	if (!a->is_ours) {
		pthread_mutex_lock(&st->m->lock);
		st->m->stats.followed++;
		pthread_mutex_unlock(&st->m->lock);
	}
	section_commit_fini(&a->commit);
	a->step = a->at < a->window->n_records ? STREAM_LOOK : STREAM_DONE;
	return 0;
}

void stream_attempt_abandon(struct stream *st)
{
	if (st->attempt.step == STREAM_COMMIT)
		discard(st, STREAM_DONE);
	section_commit_fini(&st->attempt.commit);
}

int stream_attempt_step(struct stream *st, bool *is_broken, struct err *err)
{
	*is_broken = false;
	switch (st->attempt.step) {
	case STREAM_LOOK:
		return look(st, err);
	case STREAM_BUILD:
		return build(st, is_broken, err);
	case STREAM_COMMIT:
		return commit(st, err);
	case STREAM_PUBLISH:
		return publish(st, err);
	default:
		return 0;
	}
}
