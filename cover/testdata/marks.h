/* SPDX-License-Identifier: MIT */
/*
 * The common parts of the programs with marked lines. A mark at the end of a
 * line lists the runs that reach it, by the first byte of their packet. A line
 * that no run reaches is marked "none".
 */
#ifndef MARKS_H
#define MARKS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

typedef _Bool bool;

char _license[] SEC("license") = "Dual MIT/GPL";

/* The work of a line. The compiler cannot remove, move or merge it. */
#define DO(NUMBER) asm volatile("r0 = " #NUMBER ::: "r0")

/* Returns the first byte of the packet, which says what to do. */
static __always_inline __u8 command(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	if ((void *)(data + 1) > (void *)(long)ctx->data_end)
		return 0;
	return *data;
}

/* This function of a header is inlined into several programs. */
static __always_inline void shared(__u8 what)
{
	if (what == 3) {
		DO(300); /* run: 3 */
		return;
	}
	DO(301); /* run: 1 2 4 5 11 12 13 14 */
}

#endif /* MARKS_H */
