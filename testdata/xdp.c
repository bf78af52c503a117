// SPDX-License-Identifier: MIT
/*
 * XDP programs: a packet filter of the kind that people test, and small
 * programs that each do one thing that the kernel reports back (change the
 * metadata, the head or the tail, read the context, redirect, count).
 *
 * None is marked as supporting fragments, so they see only the first buffer of
 * a packet. The programs of xdp_frags.c are marked.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "common.h"

#define ETH_P_EXPERIMENT 0x88b5 /* IEEE 802 local experiments, of the tests */
#define VLAN_VID_MASK 0x0fff
#define VLAN_DEPTH 2 /* tags that the filter looks through */
#define VLAN_STRIPPED 100 /* VLAN whose tag the filter removes */

#define IP_MF 0x2000 /* more fragments follow */
#define IP_OFFSET 0x1fff
#define IP6_EXTENSIONS 3 /* extension headers that the filter looks through */
#define IP6F_MORE 0x0001
#define IP6F_OFFSET 0xfff8

#define PORT_ECHO 7
#define PORT_DISCARD 9
#define PORT_TELNET 23
#define PORT_VXLAN 4789

struct vlan_tag {
	__be16 tci;
	__be16 inner_proto; /* EtherType of what the tag encloses */
};

struct ip6_extension {
	__u8 nexthdr;
	__u8 length; /* in units of 8 bytes, the first not counted */
};

struct ip6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* Keys of `protocols`. */
enum {
	PROTOCOL_OTHER, /* neither IPv4 nor IPv6 */
	PROTOCOL_IPV4,
	PROTOCOL_IPV6,
	PROTOCOL_VLAN, /* tagged at least once */
	PROTOCOL_TCP,
	PROTOCOL_UDP,
	PROTOCOLS,
};

/* Frames that follow one another by less than BURST_GAP_NS. */
struct burst {
	__u64 last; /* when the last frame was */
	__u64 frames; /* of the present burst so far */
	__u64 longest;
};
#define BURST_GAP_NS 25000

PERCPU_ARRAY(verdicts, __u64, 5); /* keyed by xdp_action */
ARRAY(protocols, __u64, PROTOCOLS);

ARRAY(verdict, __u32, 1); /* in: what to return */
ARRAY(delta, __s32, 1); /* in: bytes to add to the tail */
ARRAY(target, __u32, 1); /* in: interface to redirect to */
ARRAY(seen, __u32, 3); /* out: what the context held */
ARRAY(runs, __u64, 1); /* out: calls */
PERCPU_ARRAY(frames, __u64, 1); /* out: calls, for each CPU */
ARRAY(maximum, __u32, 1); /* out: greatest value of the byte */
PERCPU_ARRAY(burst, struct burst, 1); /* out: the longest burst */

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} devmap SEC(".maps");

/* --- The filter ---------------------------------------------------------- */

/* A packet, as far as the filter has parsed it. */
struct packet {
	void *cursor; /* next byte to parse */
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip4; /* one of the two, or neither */
	struct ipv6hdr *ip6;
	__be16 proto; /* EtherType, inside of the VLAN tags */
	__u16 vlan; /* VLAN of the outermost tag, 0 if there is none */
	__u8 l4_proto;
	bool first; /* holds the transport header: is no later fragment */
	bool whole; /* is no fragment at all */
	__u32 l4_length; /* bytes after the IP headers, according to them */
};

/* Parses the Ethernet header and the VLAN tags. Returns false if they end early. */
static __always_inline bool parse_ethernet(struct packet *p)
{
	struct vlan_tag *tag;
	int depth;

	p->eth = p->cursor;
	if ((void *)(p->eth + 1) > p->end)
		return false;
	p->proto = p->eth->h_proto;
	p->cursor = p->eth + 1;

#pragma unroll
	for (depth = 0; depth < VLAN_DEPTH; depth++) {
		if (p->proto != bpf_htons(ETH_P_8021Q) &&
		    p->proto != bpf_htons(ETH_P_8021AD))
			break;

		tag = p->cursor;
		if ((void *)(tag + 1) > p->end)
			return false;
		if (depth == 0) {
			p->vlan = bpf_ntohs(tag->tci) & VLAN_VID_MASK;
			count(&protocols, PROTOCOL_VLAN);
		}
		p->proto = tag->inner_proto;
		p->cursor = tag + 1;
	}
	return true;
}

/* Parses the IPv4 header. Returns false if it ends early or contradicts itself. */
static __always_inline bool parse_ipv4(struct packet *p)
{
	struct iphdr *ip = p->cursor;
	__u32 header, total;
	__u16 fragment;

	if ((void *)(ip + 1) > p->end)
		return false;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header)
		return false;
	if ((void *)ip + header > p->end)
		return false;
	/* The frame may be longer than the packet (padding), not shorter. */
	if (total > p->end - (void *)ip)
		return false;

	fragment = bpf_ntohs(ip->frag_off);
	p->first = !(fragment & IP_OFFSET);
	p->whole = !(fragment & (IP_OFFSET | IP_MF));
	p->l4_proto = ip->protocol;
	p->l4_length = total - header;
	p->ip4 = ip;
	p->cursor = (void *)ip + header;
	return true;
}

/*
 * Parses the IPv6 header and the common extension headers. Returns false if
 * they end early. A longer chain of extension headers is not an error: the
 * packet then has a transport protocol that the filter does not know.
 */
static __always_inline bool parse_ipv6(struct packet *p)
{
	struct ipv6hdr *ip = p->cursor;
	struct ip6_extension *extension;
	struct ip6_fragment *fragment;
	__u16 offset;
	__u32 length;
	int i;

	if ((void *)(ip + 1) > p->end)
		return false;
	p->l4_length = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || p->l4_length > p->end - (void *)(ip + 1))
		return false;
	p->first = true;
	p->whole = true;
	p->l4_proto = ip->nexthdr;
	p->ip6 = ip;
	p->cursor = ip + 1;

#pragma unroll
	for (i = 0; i < IP6_EXTENSIONS; i++) {
		if (p->l4_proto == IPPROTO_FRAGMENT) {
			fragment = p->cursor;
			length = sizeof(*fragment);
			if ((void *)(fragment + 1) > p->end)
				return false;
			offset = bpf_ntohs(fragment->offset);
			p->first = !(offset & IP6F_OFFSET);
			p->whole = !(offset & (IP6F_OFFSET | IP6F_MORE));
			p->l4_proto = fragment->nexthdr;
		} else if (p->l4_proto == IPPROTO_HOPOPTS ||
			   p->l4_proto == IPPROTO_ROUTING ||
			   p->l4_proto == IPPROTO_DSTOPTS) {
			extension = p->cursor;
			if ((void *)(extension + 1) > p->end)
				return false;
			length = (extension->length + 1) * 8;
			if (p->cursor + length > p->end)
				return false;
			p->l4_proto = extension->nexthdr;
		} else {
			break;
		}
		if (length > p->l4_length)
			return false;
		p->l4_length -= length;
		p->cursor += length;
		if (!p->first)
			break; /* what follows is the middle of something */
	}
	return true;
}

/* Sends a UDP packet back. Checksums stay right, since sums are commutative. */
static __always_inline void reflect(struct packet *p, struct udphdr *udp)
{
	__u8 mac[ETH_ALEN];
	struct in6_addr address6;
	__be32 address4;
	__be16 port;

	__builtin_memcpy(mac, p->eth->h_source, ETH_ALEN);
	__builtin_memcpy(p->eth->h_source, p->eth->h_dest, ETH_ALEN);
	__builtin_memcpy(p->eth->h_dest, mac, ETH_ALEN);

	if (p->ip4) {
		address4 = p->ip4->saddr;
		p->ip4->saddr = p->ip4->daddr;
		p->ip4->daddr = address4;
	} else if (p->ip6) {
		address6 = p->ip6->saddr;
		p->ip6->saddr = p->ip6->daddr;
		p->ip6->daddr = address6;
	}

	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
}

/*
 * Decrements the TTL, as a router does. The checksum of the header grows by as
 * much as the header's sum shrinks, with the carry added back in (RFC 1624).
 */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 check = ip->check;

	check += bpf_htons(0x0100); /* TTL is the high byte of its word */
	ip->check = check + (check >= 0xffff);
	ip->ttl--;
}

static __always_inline int filter_tcp(struct packet *p)
{
	struct tcphdr *tcp = p->cursor;
	__u32 header;

	if (p->l4_length < sizeof(*tcp) || (void *)(tcp + 1) > p->end)
		return XDP_ABORTED;
	header = tcp->doff * 4;
	if (header < sizeof(*tcp) || header > p->l4_length)
		return XDP_ABORTED;

	count(&protocols, PROTOCOL_TCP);
	return tcp->dest == bpf_htons(PORT_TELNET) ? XDP_DROP : XDP_PASS;
}

static __always_inline int filter_udp(struct packet *p)
{
	struct udphdr *udp = p->cursor;
	__u32 length;

	if (p->l4_length < sizeof(*udp) || (void *)(udp + 1) > p->end)
		return XDP_ABORTED;
	/*
	 * The first fragment is shorter than its datagram. The length of a
	 * jumbogram is 0.
	 */
	length = bpf_ntohs(udp->len);
	if (p->whole && length && length > p->l4_length)
		return XDP_ABORTED;
	if (length && length < sizeof(*udp))
		return XDP_ABORTED;

	count(&protocols, PROTOCOL_UDP);
	switch (bpf_ntohs(udp->dest)) {
	case PORT_ECHO:
		reflect(p, udp);
		return XDP_TX;
	case PORT_DISCARD:
		return XDP_DROP;
	case PORT_VXLAN:
		if (!p->ip4)
			return XDP_PASS;
		if (p->ip4->ttl <= 1)
			return XDP_DROP; /* has been forwarded often enough */
		decrement_ttl(p->ip4);
		return XDP_PASS;
	default:
		return XDP_PASS;
	}
}

static __always_inline int filter(struct packet *p)
{
	if (!parse_ethernet(p))
		return XDP_ABORTED;

	switch (bpf_ntohs(p->proto)) {
	case ETH_P_IP:
		if (!parse_ipv4(p))
			return XDP_ABORTED;
		count(&protocols, PROTOCOL_IPV4);
		break;
	case ETH_P_IPV6:
		if (!parse_ipv6(p))
			return XDP_ABORTED;
		count(&protocols, PROTOCOL_IPV6);
		break;
	default:
		count(&protocols, PROTOCOL_OTHER);
		return XDP_PASS;
	}

	/* Only the first fragment of a packet has ports. */
	if (p->first && p->l4_proto == IPPROTO_TCP)
		return filter_tcp(p);
	if (p->first && p->l4_proto == IPPROTO_UDP)
		return filter_udp(p);
	return XDP_PASS;
}

/* Removes the outermost VLAN tag by moving the addresses over it. */
static __always_inline int strip_vlan(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u8 addresses[2 * ETH_ALEN];

	if (data + sizeof(struct ethhdr) + sizeof(struct vlan_tag) > end)
		return XDP_ABORTED;
	__builtin_memcpy(addresses, data, sizeof(addresses));
	__builtin_memcpy(data + sizeof(struct vlan_tag), addresses,
			 sizeof(addresses));
	if (bpf_xdp_adjust_head(ctx, sizeof(struct vlan_tag)))
		return XDP_ABORTED;
	return XDP_PASS;
}

/*
 * The filter drops telnet and discard, answers echo, forwards VXLAN, and passes
 * everything else. It strips the tag of VLAN 100 from packets that it passes,
 * and aborts on packets that it cannot parse.
 */
SEC("xdp")
int xdp_filter(struct xdp_md *ctx)
{
	struct packet p = {
		.cursor = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	int action = filter(&p);

	if (action == XDP_PASS && p.vlan == VLAN_STRIPPED)
		action = strip_vlan(ctx);
	count_percpu(&verdicts, action);
	return action;
}

/* --- Verdicts ------------------------------------------------------------ */

SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Returns the number that the test chose, whether or not it is an action. */
SEC("xdp")
int xdp_verdict(struct xdp_md *ctx)
{
	return parameter(&verdict);
}

SEC("xdp")
int xdp_count(struct xdp_md *ctx)
{
	count_percpu(&frames, 0);
	return parameter(&verdict);
}

/* Counts only frames of the tests, not those that the stack sends by itself. */
SEC("xdp")
int xdp_count_ours(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) <= (void *)(long)ctx->data_end &&
	    eth->h_proto == bpf_htons(ETH_P_EXPERIMENT))
		count_percpu(&frames, 0);
	return XDP_DROP;
}

SEC("xdp")
int xdp_drop(struct xdp_md *ctx)
{
	count_percpu(&frames, 0);
	return XDP_DROP;
}

SEC("xdp")
int xdp_tx(struct xdp_md *ctx)
{
	count_percpu(&frames, 0);
	return XDP_TX;
}

SEC("xdp")
int xdp_redirect(struct xdp_md *ctx)
{
	count_percpu(&frames, 0);
	return bpf_redirect(parameter(&target), 0);
}

/* With these flags an empty entry 0 makes the result XDP_ABORTED. */
SEC("xdp")
int xdp_redirect_map(struct xdp_md *ctx)
{
	count_percpu(&frames, 0);
	return bpf_redirect_map(&devmap, 0, 0);
}

/* --- The packet and its surroundings ------------------------------------- */

/*
 * Adds one to the first word of the metadata. If there is none, makes room for
 * two words and fills them in.
 */
SEC("xdp")
int xdp_meta(struct xdp_md *ctx)
{
	__u32 *meta = (void *)(long)ctx->data_meta;
	void *data = (void *)(long)ctx->data;

	if ((void *)(meta + 1) <= data) {
		*meta += 1;
		return XDP_PASS;
	}

	if (bpf_xdp_adjust_meta(ctx, -8))
		return XDP_ABORTED;
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	if ((void *)(meta + 2) > data)
		return XDP_ABORTED;
	meta[0] = 0x11111111;
	meta[1] = 0x22222222;
	return XDP_PASS;
}

/* Puts 16 bytes before the packet, and writes all of them. */
SEC("xdp")
int xdp_grow_head(struct xdp_md *ctx)
{
	void *data;

	if (bpf_xdp_adjust_head(ctx, -16))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	if (data + 16 > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memset(data, 0xab, 16);
	return XDP_PASS;
}

/* Cuts off two bytes, so that a test sees the effect of each of several runs. */
SEC("xdp")
int xdp_shrink_head(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 2) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int xdp_grow_tail(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, parameter(&delta)) ? XDP_DROP : XDP_PASS;
}

/* Shows the context of the run. */
SEC("xdp")
int xdp_ctx(struct xdp_md *ctx)
{
	store(&seen, 0, ctx->ingress_ifindex);
	store(&seen, 1, ctx->rx_queue_index);
	store(&seen, 2, (void *)(long)ctx->data_end - (void *)(long)ctx->data);
	count(&runs, 0);
	return XDP_PASS;
}

/*
 * Increments the first byte after the Ethernet header, and remembers the
 * largest value. If runs share the bytes of a packet, it exceeds the value that
 * the test wrote by more than one. The comparison is not atomic, since a test
 * looks only at a lower bound.
 */
SEC("xdp")
int xdp_increment(struct xdp_md *ctx)
{
	__u8 *byte = (void *)(long)ctx->data + ETH_HLEN;

	count_percpu(&frames, 0);
	if ((void *)(byte + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*byte += 1;
	if (*byte > parameter(&maximum))
		store(&maximum, 0, *byte);
	return parameter(&verdict);
}

/* Finds the longest burst of frames. */
SEC("xdp")
int xdp_burst(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;
	struct burst *b = bpf_map_lookup_elem(&burst, &key);

	count_percpu(&frames, 0);
	if (!b)
		return XDP_ABORTED;
	if (now - b->last > BURST_GAP_NS)
		b->frames = 0;
	b->last = now;
	b->frames += 1;
	if (b->frames > b->longest)
		b->longest = b->frames;
	return XDP_DROP;
}
