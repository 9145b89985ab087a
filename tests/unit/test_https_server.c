/* SPDX-License-Identifier: Apache-2.0
 *
 * test_https_server.c - what test_http_server.c asks of the HTTP server, asked through TLS: limits,
 * deadlines, half-closed and vanished clients, held answers, drain and stop are the same there.
 */
#define HTTP_OVER_TLS
#include "tests/unit/test_http_server.c"
