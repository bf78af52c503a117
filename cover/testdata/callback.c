// SPDX-License-Identifier: MIT
/*
 * A program with callbacks, which bpf_loop calls (Linux 5.17). Its lines are
 * marked as marks.h says.
 */
#include "marks.h"

static long each(__u32 index, void *context)
{
	__u8 *what = context;

	DO(1); /* run: 21 22 */
	if (index == 5 && *what == 22) {
		DO(2); /* run: 22 */
		return 1;
	}
	if (index == 7)
		DO(3); /* run: 21 */
	return 0;
}

static long never(__u32 index, void *context)
{
	DO(4); /* run: none */
	return 0;
}

SEC("xdp")
int callback(struct xdp_md *ctx)
{
	__u8 what = command(ctx);

	if (what != 20) {
		DO(10); /* run: 21 22 */
		bpf_loop(10, each, &what, 0);
	}
	if (what > 30) {
		DO(11); /* run: none */
		bpf_loop(10, never, &what, 0);
	}
	DO(12); /* run: 20 21 22 */
	return XDP_PASS;
}
