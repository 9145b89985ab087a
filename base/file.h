/* SPDX-License-Identifier: Apache-2.0
 *
 * file.h - what every writer of files needs and the C library does not have. Any thread; blocks on
 * the disk. Errors are in errno.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/base.h"

/* All of it, over interruptions and short writes. 0 or -1: some of it may be written. */
int file_write_all(int fd, struct bytes b);
/* Make the name of `path` as durable as its bytes: sync the folder it is in. 0 or -1. */
int file_sync_folder(const char *path);

#endif
