// SPDX-License-Identifier: MIT
/*
 * Programs of the syscall type (5.14 and later): a test run is their only way
 * to run, and what they write to their context goes back to the caller.
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

/* Adds. Adding to nothing is an error here, to have a negative return value. */
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
