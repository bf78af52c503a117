/* SPDX-License-Identifier: MIT */
/*
 * The common parts of the test programs: a licence, maps of counters or values,
 * and short ways to increment, set and read their entries.
 *
 * Tests read results from explicit maps instead of global variables. So a test
 * can load a single program, without the others, and still find its results by
 * name.
 */
#ifndef TESTDATA_COMMON_H
#define TESTDATA_COMMON_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

typedef _Bool bool;
#define true 1
#define false 0

/* The kernel refuses some helpers to programs that are not GPL-compatible. */
char _license[] SEC("license") = "Dual MIT/GPL";

/* Defines an array map NAME with ENTRIES values of TYPE. Keys are __u32. */
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

/* Adds one to a __u64 of an ARRAY. Several CPUs may count at the same time. */
static __always_inline void count(void *map, __u32 key)
{
	__u64 *value = bpf_map_lookup_elem(map, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Adds one to this CPU's __u64 of a PERCPU_ARRAY, which needs no atomic. */
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

/* Returns the first __u32 of an ARRAY, in which a test passes a parameter. */
static __always_inline __u32 parameter(void *map)
{
	__u32 key = 0;
	__u32 *value = bpf_map_lookup_elem(map, &key);

	return value ? *value : 0;
}

#endif /* TESTDATA_COMMON_H */
