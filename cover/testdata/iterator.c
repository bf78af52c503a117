// SPDX-License-Identifier: MIT
/*
 * A program that loops over an iterator (Linux 6.4). Its lines are marked as
 * marks.h says.
 */
#include "marks.h"

struct bpf_iter_num {
	__u64 opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __attribute__((weak)) SEC(".ksyms");
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __attribute__((weak)) SEC(".ksyms");
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __attribute__((weak)) SEC(".ksyms");

SEC("xdp")
int iterator(struct xdp_md *ctx)
{
	__u8 what = command(ctx);
	struct bpf_iter_num it;
	int *i;

	bpf_iter_num_new(&it, 0, what == 31 ? 0 : 1000);
	while ((i = bpf_iter_num_next(&it))) {
		DO(1); /* run: 32 33 */
		if (*i == 700 && what == 33) {
			DO(2); /* run: 33 */
			break;
		}
		if (*i == 800)
			DO(3); /* run: 32 */
		if (*i == 2000)
			DO(4); /* run: none */
	}
	bpf_iter_num_destroy(&it);
	DO(5); /* run: 31 32 33 */
	return XDP_PASS;
}
