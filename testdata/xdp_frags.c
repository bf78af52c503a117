// SPDX-License-Identifier: MIT
/*
 * XDP programs that support packets of several buffers (5.18 and later).
 */
#include "common.h"

ARRAY(delta, __s32, 1); /* in: bytes to add to the tail */
ARRAY(seen, __u32, 2); /* out: length of the packet, of its first buffer */

SEC("xdp.frags")
int xdp_frags_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Shows the length of the first buffer, which a program can read directly. */
SEC("xdp.frags")
int xdp_frags_len(struct xdp_md *ctx)
{
	store(&seen, 0, bpf_xdp_get_buff_len(ctx));
	store(&seen, 1, (void *)(long)ctx->data_end - (void *)(long)ctx->data);
	return XDP_PASS;
}

/* Changes the last buffer, not the first. */
SEC("xdp.frags")
int xdp_frags_tail(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, parameter(&delta)) ? XDP_DROP : XDP_PASS;
}
