// SPDX-License-Identifier: MIT
/*
 * Filters of a control group. They see a packet from its network header on,
 * and read it directly. Before Linux 6.14 test runs give them nothing to read,
 * so these programs then refuse everything.
 */
#include <linux/in.h>
#include <linux/ip.h>

#include "common.h"

#define ECN_MASK 0x03
#define ECN_CONGESTION 0x03 /* a router on the way was congested */

#define REFUSE 0
#define ALLOW 1
#define ALLOW_CONGESTED 3 /* egress only: allow, and slow the sender down */

ARRAY(runs, __u64, 1); /* out: calls */

/* Returns the IPv4 header of a UDP packet, or a null pointer. */
static __always_inline struct iphdr *udp_over_ipv4(struct __sk_buff *skb)
{
	struct iphdr *ip = (void *)(long)skb->data;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 4 || ip->protocol != IPPROTO_UDP)
		return 0;
	return ip;
}

SEC("cgroup_skb/ingress")
int cgroup_ingress(struct __sk_buff *skb)
{
	count(&runs, 0);
	return udp_over_ipv4(skb) ? ALLOW : REFUSE;
}

SEC("cgroup_skb/egress")
int cgroup_egress(struct __sk_buff *skb)
{
	struct iphdr *ip = udp_over_ipv4(skb);

	count(&runs, 0);
	if (!ip)
		return REFUSE;
	return (ip->tos & ECN_MASK) == ECN_CONGESTION ? ALLOW_CONGESTED : ALLOW;
}
