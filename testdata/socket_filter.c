// SPDX-License-Identifier: MIT
/*
 * A socket filter: returns how many bytes of a packet the socket gets to see.
 *
 * In a test run the packet begins with its network header, since the kernel
 * removes the Ethernet header. Socket filters have no direct access to packets.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "common.h"

#define IP_OFFSET 0x1fff
#define PORT_DNS 53

#define KEEP_ALL 0xffffffff
#define KEEP_HEADERS 42
#define KEEP_NONE 0

ARRAY(runs, __u64, 1); /* out: calls */

/* Keeps DNS over IPv4, the beginning of all other UDP, and nothing else. */
SEC("socket")
int socket_filter(struct __sk_buff *skb)
{
	struct ipv6hdr ip6;
	struct iphdr ip;
	struct udphdr udp;

	count(&runs, 0);
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, 0, &ip6, sizeof(ip6)) ||
		    ip6.version != 6 || ip6.nexthdr != IPPROTO_UDP)
			return KEEP_NONE;
		return KEEP_HEADERS;
	}

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) ||
	    ip.version != 4 || ip.ihl < 5 || ip.protocol != IPPROTO_UDP)
		return KEEP_NONE;
	if (ip.frag_off & bpf_htons(IP_OFFSET))
		return KEEP_HEADERS; /* a later fragment: no port to look at */
	if (bpf_skb_load_bytes(skb, ip.ihl * 4, &udp, sizeof(udp)))
		return KEEP_NONE;
	return udp.dest == bpf_htons(PORT_DNS) ? KEEP_ALL : KEEP_HEADERS;
}
