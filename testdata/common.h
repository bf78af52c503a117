/* SPDX-License-Identifier: MIT */
/*
 * What every test program needs: a licence, a map of counters or values, and
 * short ways to bump, set and read one of its entries.
 *
 * Results that a test reads live in explicit maps rather than in global
 * variables, so that a test can load a single program and still find them
 * by name.
 */
#ifndef TESTDATA_COMMON_H
#define TESTDATA_COMMON_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

typedef _Bool bool;
#define true 1
#define false 0

/* Some helpers are refused to programs that are not GPL-compatible. */
char _license[] SEC("license") = "Dual MIT/GPL";

/* An array map named NAME with ENTRIES values of TYPE, keyed by __u32. */
#define ARRAY(NAME, TYPE, ENTRIES)				\
	struct {						\
		__uint(type, BPF_MAP_TYPE_ARRAY);		\
		__uint(max_entries, ENTRIES);			\
		__type(key, __u32);				\
		__type(value, TYPE);				\
	} NAME SEC(".maps")

/* The same with one value for each CPU. */
#define PERCPU_ARRAY(NAME, TYPE, ENTRIES)			\
	struct {						\
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);	\
		__uint(max_entries, ENTRIES);			\
		__type(key, __u32);				\
		__type(value, TYPE);				\
	} NAME SEC(".maps")

/* Adds one to a __u64 of an ARRAY, whichever CPUs count at the same time. */
static __always_inline void count(void *map, __u32 key)
{
	__u64 *value = bpf_map_lookup_elem(map, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Adds one to this CPU's __u64 of a PERCPU_ARRAY: needs no atomic. */
static __always_inline void count_percpu(void *map, __u32 key)
{
	__u64 *value = bpf_map_lookup_elem(map, &key);

	if (value)
		*value += 1;
}

/* Stores into a __u32 of an ARRAY. */
static __always_inline void store(void *map, __u32 key, __u32 value)
{
	__u32 *slot = bpf_map_lookup_elem(map, &key);

	if (slot)
		*slot = value;
}

/* Stores into a __u64 of an ARRAY. */
static __always_inline void store64(void *map, __u32 key, __u64 value)
{
	__u64 *slot = bpf_map_lookup_elem(map, &key);

	if (slot)
		*slot = value;
}

/* Reads the first __u32 of an ARRAY: how a test passes in a parameter. */
static __always_inline __u32 parameter(void *map)
{
	__u32 key = 0;
	__u32 *value = bpf_map_lookup_elem(map, &key);

	return value ? *value : 0;
}

#endif /* TESTDATA_COMMON_H */
