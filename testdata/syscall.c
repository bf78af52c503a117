// SPDX-License-Identifier: MIT
/*
 * Programs of the syscall type (5.14 and later). They run only in test runs.
 * The caller gets back what they write to their context.
 */
#include "common.h"

#define EIO 5

struct add_context {
	__u64 a;
	__u64 b;
	__u64 sum; /* out */
	__u32 calls; /* in and out */
	__u32 pad;
};

ARRAY(runs, __u64, 1); /* out: calls */

/* Adds b to a. If a is 0 it returns an error, which is a negative number. */
SEC("syscall")
int syscall_add(struct add_context *ctx)
{
	ctx->sum = ctx->a + ctx->b;
	ctx->calls++;
	return ctx->a == 0 ? -EIO : 0;
}

/* Reads no context, and so runs without one. */
SEC("syscall")
int syscall_noctx(void *ctx)
{
	count(&runs, 0);
	return 42;
}
