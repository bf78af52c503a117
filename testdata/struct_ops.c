// SPDX-License-Identifier: MIT
/*
 * Programs of bpf_dummy_ops, the only struct_ops whose programs can be tested.
 * It exists for tests alone, and cannot be registered. So load the programs
 * without the map that the loader makes of the variable dummy_ops.
 */
#include "common.h"

#include <bpf/bpf_tracing.h> /* needs the types that common.h includes */

/* These are the kernel's types. */
struct bpf_dummy_ops_state {
	int val;
} __attribute__((preserve_access_index));

struct bpf_dummy_ops {
	int (*test_1)(struct bpf_dummy_ops_state *state);
	int (*test_2)(struct bpf_dummy_ops_state *state, int a1,
		      unsigned short a2, char a3, unsigned long a4);
	int (*test_sleepable)(struct bpf_dummy_ops_state *state);
};

/*
 * Out: the state before test_2, and its arguments. They are in no map of their
 * own, since these programs may not call helpers, not even to look up a value.
 */
__u64 args[5];

/* Replaces the value of the state, if there is one, and returns the old value. */
SEC("struct_ops/test_1")
int BPF_PROG(test_1, struct bpf_dummy_ops_state *state)
{
	int before;

	if (!state)
		return 0xf2f3f4f5;
	before = state->val;
	state->val = 0x5a;
	return before;
}

/* Adds the first number to the state; returns the sum of all numbers. */
SEC("struct_ops/test_2")
int BPF_PROG(test_2, struct bpf_dummy_ops_state *state, int a1,
	     unsigned short a2, char a3, unsigned long a4)
{
	int before = state->val;

	args[0] = (__u32)before;
	args[1] = (__u32)a1;
	args[2] = a2;
	args[3] = (__u8)a3;
	args[4] = a4;
	state->val = before + a1;
	return a1 + a2 + (__u8)a3 + (int)a4;
}

/* The same as test_1 without a null pointer, in a sleepable program (6.2). */
SEC("struct_ops.s/test_sleepable")
int BPF_PROG(test_sleepable, struct bpf_dummy_ops_state *state)
{
	int before = state->val;

	state->val = 0x5a;
	return before;
}

/* Tells the loader which program is which member. */
SEC(".struct_ops.link")
struct bpf_dummy_ops dummy_ops = {
	.test_1 = (void *)test_1,
	.test_2 = (void *)test_2,
	.test_sleepable = (void *)test_sleepable,
};
