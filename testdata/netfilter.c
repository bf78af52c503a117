// SPDX-License-Identifier: MIT
/*
 * A netfilter hook (6.4 and later).
 */
#include "common.h"

#define NF_DROP 0
#define NF_ACCEPT 1
#define NFPROTO_IPV4 2
#define NF_INET_LOCAL_IN 1

/*
 * The fields of the kernel's structures that the program reads. The loader
 * finds their offsets when it loads the program.
 */
struct nf_hook_state {
	__u8 hook;
	__u8 pf;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned int len;
} __attribute__((preserve_access_index));

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
} __attribute__((preserve_access_index));

ARRAY(seen, __u32, 3); /* out: hook, protocol family, packet length */
ARRAY(runs, __u64, 1); /* out: calls */

/* Accepts IPv4, except on its way in to a socket. */
SEC("netfilter")
int netfilter_hook(struct bpf_nf_ctx *ctx)
{
	const struct nf_hook_state *state = ctx->state;

	count(&runs, 0);
	store(&seen, 0, state->hook);
	store(&seen, 1, state->pf);
	store(&seen, 2, ctx->skb->len);
	if (state->pf == NFPROTO_IPV4 && state->hook != NF_INET_LOCAL_IN)
		return NF_ACCEPT;
	return NF_DROP;
}
