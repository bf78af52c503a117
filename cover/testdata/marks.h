/* SPDX-License-Identifier: MIT */
/*
 * What the programs with marked lines share. A mark at the end of a line lists
 * the runs that reach it: the value of the first byte of the packet that each is
 * given. A line that no run reaches is marked "none".
 */
#ifndef MARKS_H
#define MARKS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

typedef _Bool bool;

char _license[] SEC("license") = "Dual MIT/GPL";

/* What a line does: it cannot be left out, moved, or made one with another. */
#define DO(NUMBER) asm volatile("r0 = " #NUMBER ::: "r0")

/* Returns the first byte of the packet, which says what to do. */
static __always_inline __u8 command(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	if ((void *)(data + 1) > (void *)(long)ctx->data_end)
		return 0;
	return *data;
}

/* A function of a header, which several programs have as part of them. */
static __always_inline void shared(__u8 what)
{
	if (what == 3) {
		DO(300); /* run: 3 */
		return;
	}
	DO(301); /* run: 1 2 4 5 11 12 13 14 */
}

#endif /* MARKS_H */
