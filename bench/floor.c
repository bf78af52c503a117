//go:build ignore
// SPDX-License-Identifier: MIT
/*
 * The floor below Go: BPF_PROG_RUN in a C loop. It reads jobs from its standard
 * input, makes the calls of each, and answers how many nanoseconds they took.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BPF_PROG_RUN 10
#define BPF_PROG_GET_FD_BY_ID 13

/* One job; data_size bytes of packet and ctx_size_in of context follow. */
struct job {
	uint32_t prog_id;
	uint32_t data_size_in, data_size_out;
	uint32_t ctx_size_in, ctx_size_out;
	uint32_t repeat, flags, batch_size;
	uint64_t calls;
};

/* The part of union bpf_attr that the command uses. */
struct attr {
	uint32_t prog_fd, retval, data_size_in, data_size_out;
	uint64_t data_in, data_out;
	uint32_t repeat, duration, ctx_size_in, ctx_size_out;
	uint64_t ctx_in, ctx_out;
	uint32_t flags, cpu, batch_size, pad;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Memory of that size, or a null pointer for none, as the kernel wants it. */
static void *buffer(uint32_t size)
{
	void *p;

	if (!size)
		return NULL;
	p = calloc(1, size);
	if (!p)
		fail("calloc");
	return p;
}

static void *input(uint32_t size)
{
	void *p = buffer(size);

	if (p && fread(p, size, 1, stdin) != 1)
		fail("read");
	return p;
}

static int open_program(uint32_t id)
{
	uint32_t attr[3] = { id };
	int fd = syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, attr, sizeof(attr));

	if (fd < 0)
		fail("open the program");
	return fd;
}

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Makes the calls; the kernel overwrites the sizes of outputs. */
static int64_t run(const struct job *job, struct attr *attr)
{
	int64_t begin = now();
	uint64_t i;

	for (i = 0; i < job->calls; i++) {
		attr->data_size_out = job->data_size_out;
		attr->ctx_size_out = job->ctx_size_out;
		if (syscall(SYS_bpf, BPF_PROG_RUN, attr, sizeof(*attr)))
			return -errno;
	}
	return now() - begin;
}

int main(void)
{
	struct job job;

	while (fread(&job, sizeof(job), 1, stdin) == 1) {
		void *data = input(job.data_size_in);
		void *ctx = input(job.ctx_size_in);
		void *out = buffer(job.data_size_out);
		void *ctx_out = buffer(job.ctx_size_out);
		struct attr attr = {
			.prog_fd = open_program(job.prog_id),
			.data_size_in = job.data_size_in,
			.data_in = (uintptr_t)data,
			.data_out = (uintptr_t)out,
			.repeat = job.repeat,
			.ctx_size_in = job.ctx_size_in,
			.ctx_in = (uintptr_t)ctx,
			.ctx_out = (uintptr_t)ctx_out,
			.flags = job.flags,
			.batch_size = job.batch_size,
		};
		int64_t took = run(&job, &attr);

		if (fwrite(&took, sizeof(took), 1, stdout) != 1 || fflush(stdout))
			fail("write");
		close(attr.prog_fd);
		free(data);
		free(ctx);
		free(out);
		free(ctx_out);
	}
	return 0;
}
