// SPDX-License-Identifier: MIT
/*
 * Programs that choose the socket that a packet is delivered to.
 */
#include <linux/in.h>

#include "common.h"

#define PORT_STEERED 7777
#define PORT_REFUSED 7778

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

ARRAY(seen, __u32, 14); /* out: fields of the context */
ARRAY(runs, __u64, 1); /* out: calls */

/*
 * Steers one TCP port to the socket of the test, and refuses the next port.
 *
 * A function cannot have the name of its section. The question mark makes the
 * two differ; otherwise it means "load only on demand".
 */
SEC("?sk_lookup")
int sk_lookup(struct bpf_sk_lookup *ctx)
{
	__u32 key = 0;
	struct bpf_sock *sk;
	long err;

	count(&runs, 0);
	if (ctx->local_port == PORT_REFUSED)
		return SK_DROP;
	if (ctx->protocol != IPPROTO_TCP || ctx->local_port != PORT_STEERED)
		return SK_PASS;

	sk = bpf_map_lookup_elem(&sockets, &key);
	if (!sk)
		return SK_PASS;
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return err ? SK_DROP : SK_PASS;
}

/*
 * Shows the context as a program reads it: addresses and the remote port in
 * network byte order, the local port in that of the host.
 */
SEC("?sk_lookup")
int sk_lookup_seen(struct bpf_sk_lookup *ctx)
{
	count(&runs, 0);
	store(&seen, 0, ctx->family);
	store(&seen, 1, ctx->protocol);
	store(&seen, 2, ctx->remote_ip4);
	store(&seen, 3, ctx->remote_ip6[0]);
	store(&seen, 4, ctx->remote_ip6[1]);
	store(&seen, 5, ctx->remote_ip6[2]);
	store(&seen, 6, ctx->remote_ip6[3]);
	store(&seen, 7, ctx->remote_port);
	store(&seen, 8, ctx->local_ip4);
	store(&seen, 9, ctx->local_ip6[0]);
	store(&seen, 10, ctx->local_ip6[1]);
	store(&seen, 11, ctx->local_ip6[2]);
	store(&seen, 12, ctx->local_ip6[3]);
	store(&seen, 13, ctx->local_port);
	return SK_PASS;
}
