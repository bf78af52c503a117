// SPDX-License-Identifier: MIT
/*
 * Tracing programs on the functions that the kernel calls for their test runs,
 * and one on a tracepoint, which no test run fires.
 *
 * A test run does not call the program: it has to be attached.
 */
#include "common.h"

#include <bpf/bpf_tracing.h> /* needs the types that common.h includes */

ARRAY(runs, __u64, 3); /* out: calls of fentry, fexit, fmod_ret */

SEC("fentry/bpf_fentry_test1")
int BPF_PROG(fentry_test, int a)
{
	count(&runs, 0);
	return 0;
}

SEC("fexit/bpf_fentry_test1")
int BPF_PROG(fexit_test, int a, int result)
{
	count(&runs, 1);
	return 0;
}

/* Returns zero, so the function runs. Any other result would replace it. */
SEC("fmod_ret/bpf_modify_return_test")
int BPF_PROG(fmod_ret_test, int a, int *b, int result)
{
	count(&runs, 2);
	return 0;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(tp_btf_test, void *task, unsigned long clone_flags)
{
	return 0;
}
