// SPDX-License-Identifier: MIT
//go:build ignore
/*
 * The two ends of the wire: one program makes the frames, the other counts
 * them. The line above keeps the go command from compiling this file: after a
 * change, use testdata/Makefile.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORT_DISCARD 9 /* where the frames go */
#define FIRST_PORT 49152 /* where they come from: all ephemeral ports in turn */
#define PORTS 16384

char _license[] SEC("license") = "Dual MIT/GPL";

/* What every frame begins with. The rest is padding. */
struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__be32 cpu; /* which has sent it */
	__be64 sequence; /* on that CPU */
} __attribute__((packed, aligned(2)));

/* Frames that each CPU has made, and those that each has received. */
struct counter {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct counter generated SEC(".maps");
struct counter received SEC(".maps");

static __always_inline struct frame *frame_of(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;

	return (void *)(f + 1) <= (void *)(long)ctx->data_end ? f : 0;
}

/*
 * Numbers a frame and sends it out of the interface that it seems to have come
 * in on. The kernel uses the memory of frames again without restoring it, so
 * everything that differs from frame to frame is written each time. There is
 * no UDP checksum to keep right: it is 0, which is none.
 */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *f = frame_of(ctx);
	__u32 key = 0;
	__u64 *n = bpf_map_lookup_elem(&generated, &key);

	if (!f || !n)
		return XDP_ABORTED;
	f->udp.source = bpf_htons(FIRST_PORT + *n % PORTS);
	f->cpu = bpf_htonl(bpf_get_smp_processor_id());
	f->sequence = bpf_cpu_to_be64(*n);
	*n += 1;
	return XDP_TX;
}

/* Counts the frames of `generate`, not what the stack sends by itself. */
SEC("xdp")
int receive(struct xdp_md *ctx)
{
	struct frame *f = frame_of(ctx);
	__u32 key = 0;
	__u64 *n = bpf_map_lookup_elem(&received, &key);

	if (f && n && f->eth.h_proto == bpf_htons(ETH_P_IP) &&
	    f->ip.version == 4 && f->ip.ihl == 5 &&
	    f->ip.protocol == IPPROTO_UDP &&
	    f->udp.dest == bpf_htons(PORT_DISCARD))
		*n += 1;
	return XDP_DROP;
}
