/* SPDX-License-Identifier: Apache-2.0
 *
 * all_components.h - fill the registry with every component compiled in. Call once, before threads
 * start.
 */
#ifndef CMD_ALL_COMPONENTS_H
#define CMD_ALL_COMPONENTS_H

void all_components_register(void);

#endif
