// SPDX-License-Identifier: MIT
/*
 * Programs of routes (lightweight tunnels). They see a packet from its network
 * header on.
 *
 * A function cannot have the name of its section. The question mark makes the
 * two differ; otherwise it means "load only on demand".
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

#include "common.h"

ARRAY(runs, __u64, 1); /* out: calls */

/* Lets IPv4 pass, going by the first byte of the packet. */
static __always_inline int only_ipv4(struct __sk_buff *skb)
{
	__u8 *first = (void *)(long)skb->data;

	count(&runs, 0);
	if ((void *)(first + 1) > (void *)(long)skb->data_end)
		return BPF_DROP;
	return *first >> 4 == 4 ? BPF_OK : BPF_DROP;
}

SEC("?lwt_in")
int lwt_in(struct __sk_buff *skb)
{
	return only_ipv4(skb);
}

SEC("?lwt_out")
int lwt_out(struct __sk_buff *skb)
{
	return only_ipv4(skb);
}

/*
 * Puts a packet into another one (IP in IP) and has it routed again. The
 * kernel fills in the checksum of the outer header, but not its length.
 */
static __always_inline int push(struct __sk_buff *skb)
{
	struct iphdr outer = {
		.version = 4,
		.ihl = sizeof(outer) / 4,
		.tot_len = bpf_htons(sizeof(outer) + skb->len),
		.ttl = 64,
		.protocol = IPPROTO_IPIP,
		.saddr = bpf_htonl(0xc0000201), /* 192.0.2.1 */
		.daddr = bpf_htonl(0xc6336401), /* 198.51.100.1 */
	};

	count(&runs, 0);
	if (bpf_lwt_push_encap(skb, BPF_LWT_ENCAP_IP, &outer, sizeof(outer)))
		return BPF_DROP;
	return BPF_LWT_REROUTE;
}

/*
 * A test of this program crashes kernels without 972787479ee7 (7.1, and stable
 * releases of spring 2026; not in 5.10.262). On the way out the helper looks at
 * the route of the packet, and a test packet had none.
 */
SEC("lwt_xmit")
int lwt_push(struct __sk_buff *skb)
{
	return push(skb);
}

/* The same on the way in, where the helper needs no route. */
SEC("?lwt_in")
int lwt_in_push(struct __sk_buff *skb)
{
	return push(skb);
}

/* Adds an Ethernet header to a packet, and sends it out by itself. */
SEC("lwt_xmit")
int lwt_xmit_head(struct __sk_buff *skb)
{
	struct ethhdr *eth;

	count(&runs, 0);
	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return BPF_DROP;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return BPF_DROP;
	/* Locally administered addresses, which differ in their last byte. */
	__builtin_memcpy(eth->h_dest, "\x02\0\0\0\0\x02", ETH_ALEN);
	__builtin_memcpy(eth->h_source, "\x02\0\0\0\0\x01", ETH_ALEN);
	eth->h_proto = skb->protocol;
	return bpf_redirect(skb->ifindex, 0); /* BPF_REDIRECT */
}

/*
 * Reads the end of a segment of a segment routing path. Kernels after 5.10
 * load this program, but refuse to test it.
 */
SEC("?lwt_seg6local")
int lwt_seg6local(struct __sk_buff *skb)
{
	__u8 next;

	count(&runs, 0);
	/* In test runs of this type, if the kernel has them, direct access finds no data. */
	if (bpf_skb_load_bytes(skb, offsetof(struct ipv6hdr, nexthdr), &next, 1))
		return BPF_DROP;
	return next == IPPROTO_NONE ? BPF_DROP : BPF_OK;
}
