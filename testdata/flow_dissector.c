// SPDX-License-Identifier: MIT
/*
 * Flow dissectors find out to which flow a packet belongs, so that the kernel
 * can hash it. The kernel parses Ethernet before. It passes the offset of the
 * network header (nhoff) and its protocol (n_proto).
 *
 * A program sets both offsets, which count from skb->data: nhoff to that of
 * the network header, and thoff to that of the transport header.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>

#include "common.h"

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6F_OFFSET 0xfff8
#define IP6_FLOW_LABEL 0x000fffff

struct vlan_tag {
	__be16 tci;
	__be16 inner_proto;
};

struct ip6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* TCP and UDP headers both begin with these. */
struct ports {
	__be16 source;
	__be16 dest;
};

ARRAY(runs, __u64, 1); /* out: calls */

/*
 * Returns the header at an offset, or a null pointer. It reads the header in
 * place if it can, since the helper may have no skb to copy from, as in a test
 * run. It copies a header that is not in the linear part of an skb.
 */
static __always_inline void *header(struct __sk_buff *skb, __u64 offset,
				    __u32 size, void *copy)
{
	void *start = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	/*
	 * The barriers keep each value in one register. So the verifier sees
	 * that the program uses the value that it has checked.
	 */
	barrier_var(offset);
	if (offset > 0xffff - size)
		return 0; /* further than the verifier follows */
	start += offset;
	barrier_var(start);
	if (start + size <= end)
		return start;
	if (bpf_skb_load_bytes(skb, offset, copy, size))
		return 0;
	return copy;
}

/* Stores the ports, if the transport protocol has any. */
static __always_inline int dissect_transport(struct __sk_buff *skb,
					     struct bpf_flow_keys *keys)
{
	struct ports *ports, copy;

	if (keys->ip_proto != IPPROTO_TCP && keys->ip_proto != IPPROTO_UDP)
		return BPF_DROP;
	ports = header(skb, keys->thoff, sizeof(*ports), &copy);
	if (!ports)
		return BPF_DROP;
	keys->sport = ports->source;
	keys->dport = ports->dest;
	return BPF_OK;
}

/*
 * Decides about a fragment. Only the first one has ports. If all fragments of
 * a flow should have the same hash, it must not use them: the caller says
 * whether it wants them.
 */
static __always_inline bool wants_ports(struct bpf_flow_keys *keys, bool first)
{
	keys->is_frag = true;
	if (!first)
		return false;
	keys->is_first_frag = true;
	return keys->flags & BPF_FLOW_DISSECTOR_F_PARSE_1ST_FRAG;
}

static __always_inline int dissect_ipv4(struct __sk_buff *skb,
					struct bpf_flow_keys *keys)
{
	struct iphdr *ip, copy;
	__u16 fragment;

	ip = header(skb, keys->nhoff, sizeof(*ip), &copy);
	if (!ip || ip->version != 4 || ip->ihl < 5)
		return BPF_DROP;

	keys->addr_proto = ETH_P_IP;
	keys->ipv4_src = ip->saddr;
	keys->ipv4_dst = ip->daddr;
	keys->ip_proto = ip->protocol;
	keys->thoff = keys->nhoff + ip->ihl * 4;

	fragment = bpf_ntohs(ip->frag_off);
	if ((fragment & (IP_MF | IP_OFFSET)) &&
	    !wants_ports(keys, !(fragment & IP_OFFSET)))
		return BPF_OK;
	return dissect_transport(skb, keys);
}

static __always_inline int dissect_ipv6(struct __sk_buff *skb,
					struct bpf_flow_keys *keys)
{
	struct ip6_fragment *fragment, fragment_copy;
	struct ipv6hdr *ip, copy;

	ip = header(skb, keys->nhoff, sizeof(*ip), &copy);
	if (!ip || ip->version != 6)
		return BPF_DROP;

	keys->addr_proto = ETH_P_IPV6;
	__builtin_memcpy(keys->ipv6_src, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(keys->ipv6_dst, &ip->daddr, sizeof(ip->daddr));
	keys->ip_proto = ip->nexthdr;
	keys->thoff = keys->nhoff + sizeof(*ip);

	/* The label shares its word with the version and the traffic class. */
	keys->flow_label = *(__be32 *)ip & bpf_htonl(IP6_FLOW_LABEL);
	if (keys->flow_label &&
	    (keys->flags & BPF_FLOW_DISSECTOR_F_STOP_AT_FLOW_LABEL))
		return BPF_OK;

	if (ip->nexthdr == IPPROTO_FRAGMENT) {
		fragment = header(skb, keys->thoff, sizeof(*fragment),
				  &fragment_copy);
		if (!fragment)
			return BPF_DROP;
		keys->ip_proto = fragment->nexthdr;
		keys->thoff += sizeof(*fragment);
		if (!wants_ports(keys,
				 !(fragment->offset & bpf_htons(IP6F_OFFSET))))
			return BPF_OK;
	}
	return dissect_transport(skb, keys);
}

SEC("flow_dissector")
int flow_dissect(struct __sk_buff *skb)
{
	struct bpf_flow_keys *keys = skb->flow_keys;
	struct vlan_tag *tag, copy;

	count(&runs, 0);
	if (keys->n_proto == bpf_htons(ETH_P_8021Q) ||
	    keys->n_proto == bpf_htons(ETH_P_8021AD)) {
		tag = header(skb, keys->nhoff, sizeof(*tag), &copy);
		if (!tag)
			return BPF_DROP;
		keys->n_proto = tag->inner_proto;
		keys->nhoff += sizeof(*tag);
		keys->thoff = keys->nhoff;
	}

	switch (bpf_ntohs(keys->n_proto)) {
	case ETH_P_IP:
		return dissect_ipv4(skb, keys);
	case ETH_P_IPV6:
		return dissect_ipv6(skb, keys);
	default:
		return BPF_DROP;
	}
}

/* Leaves the packet to the kernel's own dissector. */
SEC("flow_dissector")
int flow_continue(struct __sk_buff *skb)
{
	count(&runs, 0);
	return BPF_FLOW_DISSECTOR_CONTINUE;
}
