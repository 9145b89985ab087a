/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_credentials.h - the keys that sign requests, from where AWS's tools look for them, renewed
 * before they expire.
 *
 * In this order, the first place that has something is it:
 *   1. access_key and secret_key of the configuration
 *   2. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *   3. AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN: STS AssumeRoleWithWebIdentity (EKS)
 *   4. AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, profile AWS_PROFILE or "default"
 *   5. AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI (ECS, EKS Pod Identity)
 *   6. the instance metadata service, version 2 (EC2)
 *
 * DESIGN: keys that expire are fetched again 5 minutes before by the one caller that notices, while
 * others go on with the old ones; keys that a store calls expired are fetched again at once.
 * Secrets are in no message and are wiped before their memory is freed.
 * THREADS: any. LIMITS: answers and files of 64 KiB.
 * SPEC: the AWS SDKs' "Standardized credential providers", same environment variables.
 */
#ifndef BLOCKS_S3_CREDENTIALS_H
#define BLOCKS_S3_CREDENTIALS_H

#include "base/base.h"
#include "base/err.h"

struct s3_keys {
	char access_key[256], secret_key[256];
	char session_token[4096]; /* "": none */
	uint64_t expires_wall_ns; /* 0: never */
};

struct s3_credentials_options {
	const char *access_key, *secret_key, *session_token; /* "" or NULL: look elsewhere */
	const char *region;                                  /* whose STS is asked */
	const char *ca_file; /* of STS and https container endpoints; NULL: the system's */
	/* As in struct http_client_settings. */
	bool (*is_interrupted)(void *arg);
	void *interrupt_arg;
};

struct s3_credentials;

/* Options are copied; nothing is looked up yet. */
struct s3_credentials *s3_credentials_new(const struct s3_credentials_options *o);
void s3_credentials_free(struct s3_credentials *c); /* NULL is fine */
/* The keys to sign with now; may block on STS or a metadata service. PERMISSION when no place has
 * any, and names the places; UNAVAILABLE and TIMEOUT when one could not be asked. The caller wipes
 * *keys with s3_keys_wipe. */
int s3_credentials_keys(struct s3_credentials *c, struct s3_keys *keys, struct err *err);
/* A store called the keys with this access key expired or unknown: the next s3_credentials_keys
 * fetches again, unless that was said less than 30 s ago. */
void s3_credentials_distrust(struct s3_credentials *c, const char *access_key);
/* "static", "environment", "web identity", ...: where the keys came from; "none" before. */
const char *s3_credentials_source(struct s3_credentials *c);
void s3_keys_wipe(struct s3_keys *keys);

#endif
