// Package cover tells which lines, functions and branches of BPF programs ran:
// in tests, by BPF_PROG_RUN, or attached.
//
// # Use
//
// [Instrument] goes between a collection's spec and its load, however it is
// loaded:
//
//	spec, err := ebpf.LoadCollectionSpec("filter.o")
//	counters, err := cover.Instrument(spec, nil)
//	defer counters.Close()
//	coll, err := ebpf.NewCollection(spec)
//
// After that, [Counters.Profile] has what ran so far. Profiles merge, and are
// written for go tool cover, for lcov and for people. A test suite leaves those
// of all its processes in a folder:
//
//	PROGRUN_COVERDIR=/tmp/cover go test ./...
//	go run github.com/progrun/progrun/cover/bpfcover /tmp/cover
//
// Programs need line information: clang -g makes it, and llvm-strip -g keeps it.
// The kernel has to be Linux 5.2 or younger.
//
// # What a profile says
//
// A line was reached, or not reached, or is unknown. It was reached if it was
// in any program of any process: as part of a function that calls the one it
// stands in, too. It is unknown if a program that was left out has it, or where
// no probe finds room, and is then neither reached nor not reached in any
// report. Lines for which the compiler has made no code are missing, and so are
// those which its line information has lost: often "return XDP_DROP;", and calls
// of functions that became part of their callers. With [Options].Branches the
// profile tells of the conditions that lead there.
//
// # How it works
//
// A function is cut into blocks, which run from their first instruction to
// their last. A block begins at the start of the function, at what is jumped to,
// and after what may not go on: jumps, exits, tail calls, loads from a packet
// that may be too short, and calls that may throw. (flow.go)
//
// A probe sets a byte of an array map: it loads the address of the byte into a
// register and stores 1. The register is one that is dead there: nothing reads
// it before it is written again. What is dead follows from what each instruction
// reads and writes, from the last one backwards, in all functions until nothing
// changes. A call reads what its function does, and what the prototype says,
// since the verifier checks that. So a probe is two instructions, which need no
// stack, no look-up and no register to be saved, and which the verifier passes
// without another path to follow. (live.go)
//
// Not every block needs one. A block that all ways to another lead over runs
// whenever the other does, and so does one that all ways from the other lead
// over. Blocks for which both hold run together, and share a probe. And if all
// that may come right after a block implies it in that way, or all that may come
// right before it does, then it ran when one of them did. That leaves about half
// of the blocks. Those without a line need none either. A shared probe goes to the
// block in the fewest loops. (graph.go, dominators.go, probes.go)
//
// A probe goes before an instruction of its block: the first, unless all
// registers are live there. It takes over the instruction's symbol, function and
// line, and jumps are set anew. Where a block has two ways out and the next one
// has several ways in, neither tells which way was taken: for branches there is
// a probe on the way, which a jump reaches at the end of the function.
// (insert.go)
//
// A probe leaves the address in its register. Verifiers that look for the end of
// a loop over an iterator compare that too, dead or not. Within loops of such
// programs a probe takes a register that its block writes later on, or clears it.
//
// # What it costs
//
// The verifier has 10 to 20 % more instructions to follow, and a program that
// takes 30 ns takes two or three more. Where a program is then too much for the
// verifier, [Counters.Explain] says so, and [Options].Skip leaves it out. A
// function with jumps over almost 32,768 instructions has no room for probes
// either, and one with jumps to addresses in registers cannot have them.
package cover
