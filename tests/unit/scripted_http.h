/* SPDX-License-Identifier: Apache-2.0
 *
 * scripted_http.h - an HTTP server that answers from a list, for faults that a real one will not
 * produce on demand: errors by name, answers cut short, silence. Header only, because every test
 * program is one file.
 *
 * One connection at a time, one request after another; each takes the next step of the script. What
 * was asked is kept for the test to look at.
 */
#ifndef TESTS_SCRIPTED_HTTP_H
#define TESTS_SCRIPTED_HTTP_H

#include "base/base.h"
#include "base/buf.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct http_step {
	int status;          /* 0: close without an answer */
	const char *headers; /* "Name: value\r\n", may be NULL */
	const char *body;    /* may be NULL */
	unsigned silent_ms;  /* before the answer */
	int announce;        /* more bytes than the body has: a cut answer */
};

struct scripted_http {
	pthread_t thread;
	int listener, wake[2];
	char endpoint[64]; /* "http://127.0.0.1:port" */
	const struct http_step *steps;
	size_t n_steps;
	pthread_mutex_t lock;
	size_t n_asked;
	char *asked[64]; /* request heads, as they came */
	struct buf body; /* of the last request */
};

/* Bytes that wait on fd, or none when the server shall end. */
static inline ssize_t scripted_read(struct scripted_http *s, int fd, void *p, size_t n)
{
	struct pollfd fds[] = { { fd, POLLIN, 0 }, { s->wake[0], POLLIN, 0 } };

	poll(fds, 2, -1);
	return fds[1].revents != 0 ? 0 : read(fd, p, n);
}

/* One request into s->asked and s->body. False at the end of the connection. */
static inline bool scripted_request(struct scripted_http *s, int fd)
{
	struct buf in = BUF_INIT;
	char chunk[65536];
	const char *end = NULL, *length;
	size_t head, want = 0;

	while (end == NULL || in.n < head + want) {
		ssize_t n = scripted_read(s, fd, chunk, sizeof(chunk));

		if (n <= 0) {
			buf_fini(&in);
			return false;
		}
		buf_add(&in, chunk, (size_t)n);
		end = strstr(buf_cstr(&in), "\r\n\r\n");
		if (end == NULL)
			continue;
		head = (size_t)(end - (const char *)in.p) + 4;
		length = strcasestr(buf_cstr(&in), "\r\nContent-Length:");
		want = length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0;
	}
	pthread_mutex_lock(&s->lock);
	free(s->asked[s->n_asked % COUNT_OF(s->asked)]);
	s->asked[s->n_asked % COUNT_OF(s->asked)] = xstrndup((const char *)in.p, head);
	buf_reset(&s->body);
	buf_add(&s->body, in.p + head, in.n - head);
	pthread_mutex_unlock(&s->lock);
	buf_fini(&in);
	return true;
}

/* False when the connection is to be closed. */
static inline bool scripted_answer(struct scripted_http *s, int fd, const struct http_step *step)
{
	struct pollfd wake = { s->wake[0], POLLIN, 0 };
	const char *body = step->body ? step->body : "";
	struct buf out = BUF_INIT;
	bool is_whole;

	if (step->silent_ms > 0)
		poll(&wake, 1, (int)step->silent_ms);
	if (step->status == 0)
		return false;
	buf_printf(&out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s", step->status,
		   strlen(body) + (size_t)step->announce, step->headers ? step->headers : "", body);
	is_whole = write(fd, out.p, out.n) == (ssize_t)out.n && step->announce == 0;
	buf_fini(&out);
	return is_whole;
}

static inline void *scripted_thread(void *arg)
{
	static const struct http_step end = { 599, NULL, "the script is at its end", 0, 0 };
	struct scripted_http *s = arg;

	for (;;) {
		struct pollfd fds[] = { { s->listener, POLLIN, 0 }, { s->wake[0], POLLIN, 0 } };
		int fd;

		poll(fds, 2, -1);
		if (fds[1].revents != 0)
			return NULL;
		fd = accept(s->listener, NULL, NULL);
		while (fd >= 0 && scripted_request(s, fd)) {
			const struct http_step *step;

			pthread_mutex_lock(&s->lock);
			step = s->n_asked < s->n_steps ? &s->steps[s->n_asked] : &end;
			s->n_asked++;
			pthread_mutex_unlock(&s->lock);
			if (!scripted_answer(s, fd, step))
				break;
		}
		close(fd);
	}
}

/* Borrows steps until scripted_stop. */
static inline void scripted_start(struct scripted_http *s, const struct http_step *steps, size_t n)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(a);

	memset(s, 0, sizeof(*s));
	s->steps = steps;
	s->n_steps = n;
	pthread_mutex_init(&s->lock, NULL);
	s->listener = socket(AF_INET, SOCK_STREAM, 0);
	assert(bind(s->listener, (struct sockaddr *)&a, sizeof(a)) == 0);
	assert(listen(s->listener, 8) == 0 && pipe(s->wake) == 0);
	assert(getsockname(s->listener, (struct sockaddr *)&a, &len) == 0);
	snprintf(s->endpoint, sizeof(s->endpoint), "http://127.0.0.1:%u", ntohs(a.sin_port));
	assert(pthread_create(&s->thread, NULL, scripted_thread, s) == 0);
}

static inline size_t scripted_asked(struct scripted_http *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->n_asked;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static inline void scripted_stop(struct scripted_http *s)
{
	assert(write(s->wake[1], "x", 1) == 1);
	pthread_join(s->thread, NULL);
	close(s->listener);
	close(s->wake[0]);
	close(s->wake[1]);
	for (size_t i = 0; i < COUNT_OF(s->asked); i++)
		free(s->asked[i]);
	buf_fini(&s->body);
	pthread_mutex_destroy(&s->lock);
}

#endif
