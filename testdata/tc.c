// SPDX-License-Identifier: MIT
/*
 * Programs of the traffic control layer. They show the fields of __sk_buff,
 * change packets with helpers, and return verdicts. One is an action.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "common.h"

#define IP_OFFSET 0x1fff

ARRAY(verdict, __u32, 1); /* in: what to return */
ARRAY(delta, __s32, 1); /* in: bytes to add to the tail */
ARRAY(seen, __u32, 12); /* out: fields of the context */
ARRAY(runs, __u64, 1); /* out: calls */

/*
 * Changes every field that a program can write and a test run returns, if the
 * mark is 7. If the mark is 9, it leaves the packet to the next program.
 */
SEC("tc")
int tc_mark(struct __sk_buff *skb)
{
	count(&runs, 0);
	switch (skb->mark) {
	case 7:
		skb->mark = 8;
		skb->priority = 99;
		skb->cb[0] += 1;
		skb->cb[1] += 1;
		skb->cb[2] += 1;
		skb->cb[3] += 1;
		skb->cb[4] += 1;
		skb->tstamp += 1000;
		return TC_ACT_SHOT;
	case 9:
		return TC_ACT_UNSPEC;
	default:
		return TC_ACT_OK;
	}
}

/* Shows the fields that a program reads, even those that do not come back. */
SEC("tc")
int tc_fields(struct __sk_buff *skb)
{
	store(&seen, 0, skb->len);
	store(&seen, 1, skb->ifindex);
	store(&seen, 2, skb->ingress_ifindex);
	store(&seen, 3, skb->priority);
	store(&seen, 4, skb->mark);
	store(&seen, 5, skb->wire_len);
	store(&seen, 6, skb->gso_segs);
	store(&seen, 7, skb->gso_size);
	store(&seen, 8, skb->pkt_type);
	store(&seen, 9, skb->protocol); /* network byte order */
	store(&seen, 10, skb->queue_mapping);
	store(&seen, 11, skb->hash);
	return TC_ACT_OK;
}

/*
 * Sends IPv4 to 192.0.2.99. The address is part of the sum of the IP header,
 * and by the pseudo header also of the sums of TCP and UDP.
 */
SEC("tc")
int tc_rewrite(struct __sk_buff *skb)
{
	const __be32 new = bpf_htonl(0xc0000263);
	__u64 flags = BPF_F_PSEUDO_HDR | sizeof(new);
	struct iphdr ip;
	__u32 transport, sum = 0;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TC_ACT_PIPE;

	transport = ETH_HLEN + ip.ihl * 4;
	if (ip.protocol == IPPROTO_TCP) {
		sum = transport + offsetof(struct tcphdr, check);
	} else if (ip.protocol == IPPROTO_UDP) {
		sum = transport + offsetof(struct udphdr, check);
		flags |= BPF_F_MARK_MANGLED_0; /* 0 is "no checksum": keep it */
	}
	if (ip.frag_off & bpf_htons(IP_OFFSET))
		sum = 0; /* no transport header in a later fragment */

	if (sum && bpf_l4_csum_replace(skb, sum, ip.daddr, new, flags))
		return TC_ACT_SHOT;
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check),
				ip.daddr, new, sizeof(new)))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr),
				&new, sizeof(new), 0))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

/*
 * The tag goes into the skb, from where an interface would take it. It is not
 * among the bytes of the packet until the program pushes a second one.
 */
SEC("tc")
int tc_vlan(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 100) ?
		TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int tc_tail(struct __sk_buff *skb)
{
	return bpf_skb_change_tail(skb, skb->len + parameter(&delta), 0) ?
		TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int tc_verdict(struct __sk_buff *skb)
{
	return parameter(&verdict);
}

/* Shows the length of the linear part, which a program can read directly. */
SEC("tc")
int tc_linear(struct __sk_buff *skb)
{
	store(&seen, 0, (void *)(long)skb->data_end - (void *)(long)skb->data);
	store(&seen, 1, skb->len);
	return TC_ACT_OK;
}

/*
 * Changes a byte by direct access, which the kernel does not notice. A sum over
 * the packet from before (CHECKSUM_COMPLETE) is then wrong.
 */
SEC("tc")
int tc_store_csum_bad(struct __sk_buff *skb)
{
	__u8 *byte = (void *)(long)skb->data + 40;

	if ((void *)(byte + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	*byte ^= 0xff;
	return TC_ACT_OK;
}

SEC("action")
int act_verdict(struct __sk_buff *skb)
{
	return parameter(&verdict);
}
