// SPDX-License-Identifier: MIT
/*
 * Programs whose lines are marked with the runs that reach them, as marks.h
 * says. Linux 5.10 can load them.
 */
#include "marks.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

/* This function is inlined into its callers, three times. */
static __always_inline int pick(__u8 what, __u8 wanted)
{
	if (what == wanted) {
		DO(1); /* run: 1 2 */
		return 1;
	}
	DO(2); /* run: 2 3 4 5 */
	return 0;
}

/* This function is not inlined. Clang removes the argument that it ignores. */
static __attribute__((noinline)) int subprogram(__u8 what, __u8 ignored)
{
	for (int i = 0; i < 4; i++) {
		if (what == 3 && i == 2)
			DO(10); /* run: 3 */
		if (what == 9)
			DO(11); /* run: none */
		DO(12); /* run: 3 4 5 */
	}
	if (what == 4)
		return -1; /* has no line of its own */
	DO(13); /* run: 3 5 */
	return 0;
}

/* This function is verified by itself. The verifier checks arguments of calls. */
__attribute__((noinline)) int global(struct xdp_md *ctx, int what)
{
	if (what == 5 && ctx->rx_queue_index == 0) {
		DO(20); /* run: 5 */
		return 1;
	}
	DO(21); /* run: 3 4 */
	return 0;
}

SEC("xdp")
int lines(struct xdp_md *ctx)
{
	__u8 what = command(ctx);
	int verdict = XDP_PASS;

	shared(what); /* what it does is marked where it stands */
	if (pick(what, 1) || pick(what, 2)) {
		DO(30); /* run: 1 2 */
		if (what == 2)
			verdict = XDP_DROP;
		DO(31); /* run: 1 2 */
		return verdict;
	}
	DO(32); /* run: 3 4 5 */
	if (subprogram(what, 7) < 0) {
		DO(33); /* run: 4 */
		verdict = XDP_TX;
	}
	if (global(ctx, what) && what > 100) {
		DO(34); /* run: none */
		verdict = XDP_ABORTED;
	}
	DO(35); /* run: 3 4 5 */
	switch (what) {
	case 3:
		DO(36); /* run: 3 */
		break;
	case 4:
		DO(37); /* run: 4 */
		break;
	case 6:
		DO(38); /* run: none */
		break;
	default:
		DO(39); /* run: 5 */
	}
	return verdict;
}

/* This program is called through the map, if the test has put it there. */
SEC("xdp")
int called(struct xdp_md *ctx)
{
	DO(50); /* run: 12 */
	return XDP_TX;
}

SEC("xdp")
int tail(struct xdp_md *ctx)
{
	__u8 what = command(ctx);

	shared(what); /* what it does is marked where it stands */
	if (what == 11) {
		DO(60); /* run: 11 */
		bpf_tail_call(ctx, &programs, 0); /* there is none */
		DO(61); /* run: 11 */
	} else if (what == 12) {
		DO(62); /* run: 12 */
		bpf_tail_call(ctx, &programs, 1);
		DO(63); /* run: none */
	}
	DO(64); /* run: 11 13 14 */
	if (what == 14)
		return XDP_DROP; /* has no line of its own */
	DO(65); /* run: 11 13 */
	return XDP_PASS;
}
