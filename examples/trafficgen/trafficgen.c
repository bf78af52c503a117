// SPDX-License-Identifier: MIT
//go:build ignore
/*
 * The programs of the command. `generate` and `replay` send frames, `receive`
 * counts them at the far end of the command's own wire, and two programs on
 * tracepoints count lost frames. The line above keeps the go command from
 * compiling this file. After a change, run make with testdata/Makefile.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define STEPS 4 /* source and destination address, source and destination port */
#define LARGEST_OFFSET 127 /* of a field in the frame */

char _license[] SEC("license") = "Dual MIT/GPL";

/* A field that takes every value of a range in turn. */
struct step {
	__u32 first; /* value, in the byte order of the machine */
	__u32 count; /* of values */
	__u16 offset; /* in the frame */
	__u8 bytes; /* 2 or 4 */
	__u8 in_ip; /* counts for the checksum of the IPv4 header */
};

/* Set by the command before it loads the programs. */
const volatile struct step steps[STEPS] = {};
const volatile __u32 n_steps = 0;
/* Offsets of checksums, 0 for none, and their sums over all but the steps. */
const volatile __u32 ip_checksum = 0, ip_sum = 0;
const volatile __u32 l4_checksum = 0, l4_sum = 0;
const volatile __u32 redirect_to = 0; /* interface; 0 sends with XDP_TX */
/* The process whose frames the tracepoints count. */
const volatile __u32 tgid = 0;
const volatile __u64 pidns_dev = 0, pidns_ino = 0;

/* Frames of each CPU. */
struct counter {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct counter generated SEC(".maps"); /* the command sets where it begins */
struct counter received SEC(".maps");

/* Frames that were lost, by errno; LOST_FULL are those that a full ring refused. */
#define ERRNOS 128
#define LOST_FULL 0
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ERRNOS);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline int send(void)
{
	if (redirect_to)
		return bpf_redirect(redirect_to, 0);
	return XDP_TX;
}

/* Returns the checksum for a sum of 16-bit words. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Returns a pointer to a field in the frame, or 0 if it is not all in there. */
static __always_inline void *at(struct xdp_md *ctx, __u32 offset, __u32 bytes)
{
	void *p = (void *)(long)ctx->data + (offset & LARGEST_OFFSET);

	return p + bytes <= (void *)(long)ctx->data_end ? p : 0;
}

/*
 * Writes a field of 2 or 4 bytes in network byte order. Returns its share of a
 * checksum, or -1 if it is not all in the frame.
 */
static __always_inline __s64 put(struct xdp_md *ctx, __u32 offset, __u32 bytes, __u32 value)
{
	__u16 *short_field;
	__u32 *long_field;

	if (bytes == 2) {
		short_field = at(ctx, offset, 2);
		if (!short_field)
			return -1;
		*short_field = bpf_htons(value);
	} else {
		long_field = at(ctx, offset, 4);
		if (!long_field)
			return -1;
		*long_field = bpf_htonl(value);
	}
	return (value >> 16) + (value & 0xffff);
}

/*
 * Sends a frame with the next values of its fields: the first one steps with
 * each frame, the second one when the first one begins again, and so on. The
 * kernel uses the memory of frames again without restoring it, so everything
 * that differs from frame to frame is written each time.
 */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u64 ip = ip_sum, l4 = l4_sum, rest;
	__u32 key = 0, i;
	__s64 sum;
	__u64 *n;

	n = bpf_map_lookup_elem(&generated, &key);
	if (!n)
		return XDP_ABORTED;
	rest = *n;
	*n += 1;
#pragma unroll
	for (i = 0; i < STEPS; i++) {
		if (i >= n_steps)
			break;
		sum = put(ctx, steps[i].offset, steps[i].bytes, steps[i].first + rest % steps[i].count);
		if (sum < 0)
			return XDP_ABORTED;
		rest /= steps[i].count;
		l4 += sum;
		if (steps[i].in_ip)
			ip += sum;
	}
	if (ip_checksum && put(ctx, ip_checksum, 2, fold(ip)) < 0)
		return XDP_ABORTED;
	if (l4_checksum && put(ctx, l4_checksum, 2, fold(l4) ?: 0xffff) < 0)
		return XDP_ABORTED;
	return send();
}

/* Sends a frame of a capture as it is. */
SEC("xdp")
int replay(struct xdp_md *ctx)
{
	return send();
}

/* Counts the frames that arrive at the far end, to which nobody else sends. */
SEC("xdp")
int receive(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *n = bpf_map_lookup_elem(&received, &key);

	if (n)
		*n += 1;
	return XDP_DROP;
}

/* Reports whether the current thread is one of the command's. */
static __always_inline int ours(void)
{
	struct bpf_pidns_info ids = {};

	if (bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ids, sizeof(ids)))
		return 0;
	return ids.tgid == tgid;
}

static __always_inline void count_lost(__u32 errno, __u64 frames)
{
	__u64 *n = bpf_map_lookup_elem(&lost, &errno);

	if (n)
		*n += frames;
}

/* TP_PROTO(dev, xdp, tgt, err, map_type, map_id, index) */
SEC("raw_tp/xdp_redirect_err")
int redirect_err(struct bpf_raw_tracepoint_args *ctx)
{
	__s32 err = ctx->args[3];

	if (ours())
		count_lost(err < 0 && err > -ERRNOS ? -err : ERRNOS - 1, 1);
	return 0;
}

/* TP_PROTO(from_dev, to_dev, sent, drops, err) */
SEC("raw_tp/xdp_devmap_xmit")
int devmap_xmit(struct bpf_raw_tracepoint_args *ctx)
{
	__s32 drops = ctx->args[3], err = ctx->args[4];

	if (drops > 0 && ours())
		count_lost(err < 0 && err > -ERRNOS ? -err : LOST_FULL, drops);
	return 0;
}
