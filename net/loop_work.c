/* SPDX-License-Identifier: Apache-2.0
 *
 * loop_work.c - see loop_work.h.
 */
#include "net/loop_work.h"

static void run(uv_work_t *uv)
{
	struct loop_job *job = uv->data;

	job->work(job->arg);
}

static void ran(uv_work_t *uv, int status)
{
	struct loop_job *job = uv->data;

	(void)status;
	job->done(job->arg);
}

void loop_work(struct loop *l, struct loop_job *job)
{
	int ret;

	job->uv.data = job;
	ret = uv_queue_work(loop_uv(l), &job->uv, run, ran);
	assert(ret == 0);
	(void)ret;
}
