/* SPDX-License-Identifier: Apache-2.0
 *
 * replay.c - main() for a fuzz target built without libFuzzer: runs it over every file of the
 * folders and files named.
 */
#include "base/buf.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	struct buf b = BUF_INIT;
	FILE *f = fopen(path, "rb");
	uint8_t *to;
	size_t got;

	if (f == NULL) {
		perror(path);
		return -1;
	}
	do {
		to = buf_reserve(&b, 65536);
		got = fread(to, 1, 65536, f);
		b.n += got;
	} while (got > 0);
	fclose(f);
	LLVMFuzzerTestOneInput(b.p ? b.p : (const uint8_t *)"", b.n);
	buf_fini(&b);
	return 0;
}

static int replay_path(const char *path)
{
	struct dirent *e;
	struct stat st;
	DIR *d;
	int n = 0;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return replay_file(path);
	d = opendir(path);
	while (d != NULL && (e = readdir(d)) != NULL) {
		char name[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		if (replay_file(name) < 0)
			return -1;
		n++;
	}
	if (d != NULL)
		closedir(d);
	printf("%s: %d inputs\n", path, n);
	return n > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	int failed = argc < 2;

	for (int i = 1; i < argc; i++)
		failed |= replay_path(argv[i]) < 0;
	return failed;
}
