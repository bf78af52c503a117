// Package cover reports which lines, functions and branches of BPF programs ran,
// whether by BPF_PROG_RUN or because they were attached.
//
// # Use
//
// Call [Instrument] on a collection's spec before the collection is loaded, in
// whatever way:
//
//	spec, err := ebpf.LoadCollectionSpec("filter.o")
//	counters, err := cover.Instrument(spec, nil)
//	defer counters.Close()
//	coll, err := ebpf.NewCollection(spec)
//
// [Counters.Profile] then returns what has run so far. Profiles can be merged, and
// written for go tool cover, for lcov and for people. The processes of a test suite
// leave their profiles in a folder:
//
//	PROGRUN_COVERDIR=/tmp/cover go test -count=1 ./...
//	go run github.com/progrun/progrun/cover/bpfcover /tmp/cover
//
// Without -count=1, go test may take results from its cache. Such tests do not run, and
// leave no profile.
//
// Programs need line information: clang -g writes it, and llvm-strip -g keeps it.
// The package needs Linux 5.2 or later.
//
// # What a profile says
//
// A line is reached, not reached, or unknown. It is reached if it ran in any
// program of any process, even where its function was inlined. It is unknown if it
// is part of a program that was left out, or if there was no room for a probe.
// Reports count it as neither reached nor not reached. Lines without code are
// missing, as are lines that the compiler's line information has lost: often
// "return XDP_DROP;", and calls of inlined functions. With [Options].Branches the
// profile covers the conditions that lead to these.
//
// The compiler may have merged a part of a line's code into that of another line. If
// only this part ran, the line is reported as not reached, although the lines after it
// are reached.
//
// # How it works
//
// A function is divided into blocks, which run from their first instruction to
// their last. A block begins at the start of the function, at the target of a jump,
// and after an instruction that may leave the function or jump: jumps, exits, tail
// calls, loads from a packet that may be too short, and calls that may throw.
// (flow.go)
//
// A probe sets a byte of an array map: it loads the address of the byte into a
// register and stores 1. The register is dead at that point: nothing reads it before
// it is written again. The package finds dead registers from what each instruction
// reads and writes. It goes backwards through all functions until nothing changes. A
// call reads what its function reads, and also the arguments of the function's
// prototype, since the verifier checks these. So a probe is two instructions. They
// need no stack, no look-up and no saved register, and give the verifier no further
// path to follow. (live.go)
//
// Not every block needs a probe. If all paths to block B, or all paths from it, lead
// through block A, then B implies A: A runs whenever B does. Blocks that imply each
// other share a probe. And if all successors of a block imply it, or all its
// predecessors do, then the block ran if one of them did. That leaves about half of
// the blocks. Blocks without a line need no probe either. A shared probe goes into the
// block that is in the fewest loops. (graph.go, dominators.go, probes.go)
//
// A probe goes before the first instruction of its block at which some register is
// dead. It takes over the instruction's symbol, function and line, and the offsets
// of jumps are updated. If a block has two ways out, and the next block several ways
// in, then neither block tells which way was taken. For branches such a way gets a
// probe of its own, at the end of the function, to which the jump is redirected.
// (insert.go)
//
// A probe leaves the address in its register. To find the end of a loop over an
// iterator, some verifiers compare all registers, even dead ones. In loops of such
// programs a probe uses a register that its block writes later, or clears it.
//
// # What it costs
//
// The verifier follows 10 to 20 % more instructions, and a program that takes 30 ns
// takes two or three nanoseconds more. If a program becomes too complex for the
// verifier, [Counters.Explain] says so, and [Options].Skip leaves the program out. A
// function with jumps over almost 32,768 instructions has no room for probes, and
// one with jumps to addresses in registers cannot have them.
package cover
