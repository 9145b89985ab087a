/* SPDX-License-Identifier: Apache-2.0
 *
 * sealed_json.h - an object whose last member is the CRC-32C of all that stands before it: a
 * flipped digit would be legal JSON.
 *
 *   {"a":1}  ->  {"a":1,"crc":"xxxxxxxx"}
 *
 * Pure functions, any thread. SPEC: docs/formats/section-commit.md.
 */
#ifndef BLOCKS_SEALED_JSON_H
#define BLOCKS_SEALED_JSON_H

#include "base/base.h"
#include "base/buf.h"

/* Put the CRC before the closing brace of the object that ends *json. */
void sealed_json_close(struct buf *json);
/* False: there is a CRC and it is wrong. A text without one is as it is. */
bool sealed_json_is_right(struct bytes json);
/* Does it end with a CRC at all? */
bool sealed_json_has_crc(struct bytes json);

#endif
