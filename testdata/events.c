// SPDX-License-Identifier: MIT
/*
 * Programs that write records, to a ring buffer and to a perf event array, and
 * count them for each CPU.
 *
 * The parameter says how many records a run writes.
 */
#include "common.h"

/* With the size before it no multiple of 8: perf event arrays add padding. */
struct event {
	__u64 number;	/* from 0 in each run */
	__u32 type;	/* enum bpf_prog_type */
	__u32 filler;
};

struct counts {
	__u64 records;
	__u32 by_type[4];
	__s64 less;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);	/* a multiple of any page */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

PERCPU_ARRAY(total, __u64, 1);
PERCPU_ARRAY(total32, __u32, 1);
ARRAY(how_many, __u32, 1);

#define MOST 256

static __always_inline void tally(__u32 type, __u32 n)
{
	struct counts none = {}, *c;
	__u32 key = 7, zero = 0, *t;
	__u64 *t64;

	bpf_map_update_elem(&counts, &key, &none, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&counts, &key);
	if (c) {
		c->records += n;
		c->by_type[type & 3] += n;
		c->less -= n;
	}
	t64 = bpf_map_lookup_elem(&total, &zero);
	if (t64)
		*t64 += n;
	t = bpf_map_lookup_elem(&total32, &zero);
	if (t)
		*t += n;
}

/* WRITE writes the record e. */
#define WRITER(SECTION, NAME, CTX, TYPE, RESULT, WRITE)			\
	SEC(SECTION)							\
	int NAME(CTX *ctx)						\
	{								\
		__u32 n = parameter(&how_many), i;			\
		struct event event = { .type = TYPE }, *e = &event;	\
									\
		for (i = 0; i < MOST && i < n; i++) {			\
			event.number = i;				\
			WRITE;						\
		}							\
		tally(TYPE, i);						\
		return RESULT;						\
	}

#define TO_RING(FLAGS) bpf_ringbuf_output(&ring, e, sizeof(*e), FLAGS)
#define TO_PERF bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, e, sizeof(*e))

WRITER("xdp", xdp_ring, struct xdp_md, BPF_PROG_TYPE_XDP, XDP_PASS, TO_RING(0))
WRITER("xdp", xdp_ring_quiet, struct xdp_md, BPF_PROG_TYPE_XDP, XDP_PASS, TO_RING(BPF_RB_NO_WAKEUP))
WRITER("xdp", xdp_perf, struct xdp_md, BPF_PROG_TYPE_XDP, XDP_PASS, TO_PERF)
WRITER("tc", tc_ring, struct __sk_buff, BPF_PROG_TYPE_SCHED_CLS, 0, TO_RING(0))
WRITER("tc", tc_perf, struct __sk_buff, BPF_PROG_TYPE_SCHED_CLS, 0, TO_PERF)
WRITER("socket", socket_ring, struct __sk_buff, BPF_PROG_TYPE_SOCKET_FILTER, 0, TO_RING(0))
WRITER("socket", socket_perf, struct __sk_buff, BPF_PROG_TYPE_SOCKET_FILTER, 0, TO_PERF)
WRITER("syscall", syscall_ring, void, BPF_PROG_TYPE_SYSCALL, 0, TO_RING(0))
