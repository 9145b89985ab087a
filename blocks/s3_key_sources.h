/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_key_sources.h - the places that keys come from (s3_credentials.h lists them), one function
 * each; used by s3_credentials.c, which decides when to ask.
 *
 * THREADS: any; each call has its own connection. Environment variables are read at each call.
 */
#ifndef BLOCKS_S3_KEY_SOURCES_H
#define BLOCKS_S3_KEY_SOURCES_H

#include "blocks/s3_credentials.h"

struct s3_key_source {
	const char *name;
	/* 1 with keys, 0 this place is not set up, -1 it is and failed. The message names the place
	 * and no secret. */
	int (*fetch)(const struct s3_credentials_options *o, struct s3_keys *keys, struct err *err);
};

enum { S3_N_KEY_SOURCES = 6 };
/* In the order in which they are asked. */
extern const struct s3_key_source s3_key_sources[S3_N_KEY_SOURCES];

/* The JSON that container and instance metadata endpoints answer with. */
int s3_keys_from_json(struct bytes json, struct s3_keys *keys, struct err *err);

#endif
