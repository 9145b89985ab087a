/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_profile.h - keys from the text of a shared credentials file.
 *
 *	[default]
 *	aws_access_key_id = ...
 *	aws_secret_access_key = ...
 *	aws_session_token = ...
 *
 * Pure function, any thread. SPEC: "Shared config and credentials files" of the AWS SDKs:
 * '#' and ';' begin a comment line, "[profile x]" is understood as "[x]", later settings win.
 */
#ifndef BLOCKS_S3_PROFILE_H
#define BLOCKS_S3_PROFILE_H

#include "blocks/s3_credentials.h"

/* 1 when the profile is there with both keys; 0 when there is no such profile, or it has neither
 * keys nor another way to get them; -1 when it is there and unusable: the message says why without
 * quoting a value. */
int s3_profile_read(struct bytes text, const char *profile, struct s3_keys *keys, struct err *err);

#endif
