/* SPDX-License-Identifier: Apache-2.0
 *
 * syscall_faults.h - system calls that change files, one of which fails, is cut short, or is the
 * last thing the process does.
 *
 *   faults_arm(FAULT_ERRNO, ENOSPC, 17) ... the 17th call from here on fails
 *   faults_arm(FAULT_CRASH, 0, 17)      ... the process dies in its place, as by kill -9
 *
 * The functions below take the place of libc's in the whole test program, so every write, fsync,
 * rename, link, unlink and create of the code under test goes through them, on any thread. Header
 * only, because every test program is one file.
 */
#ifndef TESTS_UNIT_SYSCALL_FAULTS_H
#define TESTS_UNIT_SYSCALL_FAULTS_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault_mode { FAULT_NONE, FAULT_ERRNO, FAULT_SHORT, FAULT_CRASH };
enum { FAULT_CRASHED = 77 }; /* exit status */

static struct {
	_Atomic bool armed;
	_Atomic uint64_t calls;
	enum fault_mode mode;
	int error;
	uint64_t first, times; /* calls that fail: [first, first + times), from 1 */
} faults;

static inline void faults_arm(enum fault_mode mode, int error, uint64_t first, uint64_t times)
{
	atomic_store(&faults.calls, 0);
	faults.mode = mode;
	faults.error = error;
	faults.first = first;
	faults.times = times;
	atomic_store(&faults.armed, true);
}

static inline uint64_t faults_disarm(void)
{
	atomic_store(&faults.armed, false);
	return atomic_load(&faults.calls);
}

/* What becomes of this call: FAULT_NONE lets it through. */
static inline enum fault_mode faults_strike(void)
{
	uint64_t n;

	if (!atomic_load(&faults.armed))
		return FAULT_NONE;
	n = atomic_fetch_add(&faults.calls, 1) + 1;
	if (n < faults.first || n >= faults.first + faults.times)
		return FAULT_NONE;
	if (faults.mode == FAULT_CRASH)
		_exit(FAULT_CRASHED);
	errno = faults.error;
	return faults.mode;
}

#define FAULT_OR(call)                                                                             \
	do {                                                                                       \
		if (faults_strike() == FAULT_ERRNO)                                                \
			return -1;                                                                 \
		return call;                                                                       \
	} while (0)

ssize_t write(int fd, const void *p, size_t n)
{
	enum fault_mode m = fd > 2 ? faults_strike() : FAULT_NONE;

	if (m == FAULT_ERRNO)
		return -1;
	return syscall(SYS_write, fd, p, m == FAULT_SHORT && n > 1 ? n / 2 : n);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
	enum fault_mode m = faults_strike();

	if (m == FAULT_ERRNO)
		return -1;
	return syscall(SYS_pwrite64, fd, p, m == FAULT_SHORT && n > 1 ? n / 2 : n, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	enum fault_mode m = faults_strike();
	struct iovec half;

	if (m == FAULT_ERRNO)
		return -1;
	if (m == FAULT_SHORT) {
		half = (struct iovec){ iov->iov_base, (iov->iov_len + 1) / 2 };
		return syscall(SYS_pwritev, fd, &half, 1, off, 0);
	}
	return syscall(SYS_pwritev, fd, iov, n, off, 0);
}

int fsync(int fd)
{
	FAULT_OR((int)syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
	FAULT_OR((int)syscall(SYS_fdatasync, fd));
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	/* Not as much as asked for: in memory it would have to be made, again and again. */
	FAULT_OR((int)syscall(SYS_fallocate, fd, mode, off, len < 65536 ? len : 65536));
}

int ftruncate(int fd, off_t len)
{
	FAULT_OR((int)syscall(SYS_ftruncate, fd, len));
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if ((flags & O_CREAT) && faults_strike() == FAULT_ERRNO)
		return -1;
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
	FAULT_OR((int)syscall(SYS_mkdirat, dir, path, mode));
}

int mkdir(const char *path, mode_t mode)
{
	FAULT_OR((int)syscall(SYS_mkdir, path, mode));
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	FAULT_OR((int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags));
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	FAULT_OR((int)syscall(SYS_renameat, from_dir, from, to_dir, to));
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	FAULT_OR((int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags));
}

int unlinkat(int dir, const char *path, int flags)
{
	FAULT_OR((int)syscall(SYS_unlinkat, dir, path, flags));
}

int utimensat(int dir, const char *path, const struct timespec times[2], int flags)
{
	FAULT_OR((int)syscall(SYS_utimensat, dir, path, times, flags));
}

#endif
