// SPDX-License-Identifier: MIT
/*
 * Raw tracepoint programs. A test run passes any arguments and can choose the
 * CPU; the tracepoint named in the section does not fire for it.
 */
#include "common.h"

ARRAY(seen64, __u64, 3); /* out: both arguments, CPU */

SEC("raw_tp/task_rename")
int raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	store64(&seen64, 0, ctx->args[0]);
	store64(&seen64, 1, ctx->args[1]);
	store64(&seen64, 2, bpf_get_smp_processor_id());
	return (int)(ctx->args[0] + ctx->args[1]);
}

/* Reads no argument, and so runs without any. */
SEC("raw_tp/task_rename")
int raw_tp_noargs(struct bpf_raw_tracepoint_args *ctx)
{
	return 7;
}
