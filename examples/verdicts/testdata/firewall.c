// SPDX-License-Identifier: MIT
/* A firewall that does what its maps say. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual MIT/GPL";

struct network {
	__u32 prefixlen;
	__be32 address;
};

struct service {
	union {
		__be32 address;
		__u8 bytes[4];
	};
	__u16 port; /* in network order, as in the packet */
	__u8 protocol;
	__u8 unused;
};

enum rule { RULE_PASS, RULE_DROP, RULE_ANSWER };

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network);
	__type(value, enum rule);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct service);
	__type(value, enum rule);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} protocols SEC(".maps"); /* 1: IP protocol to drop */

/* By destination, the ports to drop. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __be32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, 16);
		__type(key, __be16);
		__type(value, bool);
	});
} tenants SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

/* No kernel has maps of this type: only what is not used may be of it. */
struct {
	__uint(type, 999);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} unknown SEC(".maps");

const volatile __u32 longest = 65535; /* longer packets are dropped */

static __always_inline int answer(struct ethhdr *eth, struct iphdr *ip)
{
	__be32 address = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = address;
	return XDP_TX;
}

static __always_inline int obey(enum rule *rule, struct ethhdr *eth, struct iphdr *ip)
{
	switch (*rule) {
	case RULE_DROP:
		return XDP_DROP;
	case RULE_ANSWER:
		return answer(eth, ip);
	default:
		return XDP_PASS;
	}
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct network network = { .prefixlen = 32 };
	struct service service = {};
	enum rule *rule;
	__u32 protocol;
	__u64 *drop;
	void *ports;

	if (end - data > longest)
		return XDP_DROP;
	if ((void *)(udp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		goto out;

	network.address = ip->saddr;
	rule = bpf_map_lookup_elem(&networks, &network);
	if (rule)
		return obey(rule, eth, ip);

	service.address = ip->daddr;
	service.port = udp->dest;
	service.protocol = ip->protocol;
	rule = bpf_map_lookup_elem(&services, &service);
	if (rule)
		return obey(rule, eth, ip);

	protocol = ip->protocol;
	drop = bpf_map_lookup_elem(&protocols, &protocol);
	if (drop && *drop)
		return XDP_DROP;

	ports = bpf_map_lookup_elem(&tenants, &ip->daddr);
	if (ports && bpf_map_lookup_elem(ports, &udp->dest))
		return XDP_DROP;
out:
	bpf_tail_call(ctx, &next, 0);
	return XDP_PASS;
}

/* What the program array can hold. */
SEC("xdp")
int last(struct xdp_md *ctx)
{
	return XDP_REDIRECT;
}

/* The name of its section says nothing of its type. */
SEC("filter")
int old(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("kprobe/nothing")
int other(void *ctx)
{
	__u32 key = 0;

	return !bpf_map_lookup_elem(&unknown, &key);
}
