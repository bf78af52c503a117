package cover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// randomFunction returns a function with random jumps. It may not end, and the verifier
// might reject it.
func randomFunction(t *testing.T, rng *rand.Rand, size int) *function {
	t.Helper()
	label := func() string { return fmt.Sprint("l", rng.IntN(size)) }
	var insns asm.Instructions
	for i := range size {
		first := len(insns)
		for range rng.IntN(3) {
			insns = append(insns, asm.Mov.Reg(asm.Register(rng.IntN(6)), asm.Register(rng.IntN(10))))
		}
		switch rng.IntN(6) {
		case 0:
			insns = append(insns, asm.Ja.Label(label()))
		case 1:
			insns = append(insns, asm.Return())
		case 2:
			insns = append(insns, asm.FnTailCall.Call())
		case 3:
			insns = append(insns, asm.LoadAbs(0, asm.Byte))
		default:
			insns = append(insns, asm.JEq.Imm(asm.R1, 0, label()))
		}
		insns[first] = insns[first].WithSymbol(fmt.Sprint("l", i))
	}
	insns = append(insns, asm.Return())
	list, err := functions(insns)
	if err != nil {
		t.Fatal(err)
	}
	liveness(list)
	return list[0]
}

// walk walks through a graph from its start to its exit at random, and returns the
// nodes on its way. ok is false if it does not reach the exit.
func walk(rng *rand.Rand, g *graph) (visited []int, ok bool) {
	for n := 0; len(visited) < 1000; {
		if n == g.exit {
			return visited, true
		}
		visited = append(visited, n)
		n = g.succs[n][rng.IntN(len(g.succs[n]))]
	}
	return nil, false
}

// randomNodes returns a function that reports whether a node is wanted: every node, or
// some.
func randomNodes(rng *rand.Rand, g *graph) func(int) bool {
	wanted := make([]bool, g.exit)
	all := rng.IntN(2) == 0
	for n := range wanted {
		wanted[n] = all || rng.IntN(2) == 0
	}
	return func(n int) bool { return wanted[n] }
}

// TestChoose compares what the probes of random functions say with what ran.
func TestChoose(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	nodes, probes, unknown := 0, 0, 0
	for round := range 3000 {
		f := randomFunction(t, rng, 1+rng.IntN(25))
		g := newGraph(f, round%2 == 0)
		wanted := randomNodes(rng, g)
		p := choose(g, wanted, false)
		asked := make([]bool, len(p.known))
		for n := range g.exit {
			asked[p.class[n]] = asked[p.class[n]] || wanted(n)
			if g.order[n] != none {
				nodes++
			}
		}
		probes += len(p.probes)

		seen := make([]byte, len(p.probes))
		ran := make([]State, len(p.known))
		for range 1 + rng.IntN(3) {
			visited, _ := walk(rng, g)
			for _, n := range visited {
				ran[p.class[n]] = Reached
				for i, probe := range p.probes {
					if probe.node == n {
						seen[i] = 1
					}
				}
			}
		}
		for c, got := range p.states(seen) {
			if !asked[c] {
				continue
			}
			if got == Unknown {
				unknown++ // no register is dead at its nodes
			} else if got != ran[c] {
				t.Fatalf("round %d: class %d is %s, but was %s\n%v", round, c, got, ran[c], f.insns)
			}
		}
	}
	if probes > nodes*2/3 || unknown > nodes/50 {
		t.Errorf("%d probes for %d nodes, and %d unknown", probes, nodes, unknown)
	}
	t.Logf("%d nodes, %d probes, %d unknown", nodes, probes, unknown)
}

// TestInsert runs random functions with and without probes in an interpreter. Each
// instruction must read the same values, and the probes must say which blocks and edges
// ran.
func TestInsert(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 3000 {
		f := randomFunction(t, rng, 1+rng.IntN(25))
		g := newGraph(f, round%2 == 0)
		p := choose(g, randomNodes(rng, g), round%3 == 0)
		insns, err := insert(p, someMap{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		instrumented, err := newFunction(insns, false)
		if err != nil {
			t.Fatal(err)
		}
		seed := rng.Uint64()
		plain := interpret(t, f, rand.New(rand.NewPCG(seed, 0)))
		probed := interpret(t, instrumented, rand.New(rand.NewPCG(seed, 0)))
		if !slices.Equal(plain.trace, probed.trace) {
			t.Fatalf("round %d: ran\n%v\nbut with probes\n%v\n%v\n%v", round, plain.trace, probed.trace, f.insns, insns)
		}
		if !plain.ended {
			continue
		}
		seen := make([]byte, len(p.probes))
		for n := range probed.probes {
			seen[n] = 1
		}
		ran := make([]State, len(p.known))
		for n, b := range f.blocks {
			if plain.ran[b.first] {
				ran[p.class[n]] = Reached
			}
		}
		for n, e := range p.edges {
			if plain.taken[e] {
				ran[p.class[len(f.blocks)+n]] = Reached
			}
		}
		for c, got := range p.states(seen) {
			if got != Unknown && got != ran[c] { // an unknown state is right too
				t.Fatalf("round %d: class %d is %s, but was %s\n%v\n%v", round, c, got, ran[c], f.insns, insns)
			}
		}
	}
}

// someMap takes the place of a map, since nothing is loaded.
type someMap struct{}

func (someMap) FD() int { return 1 }

// A trip records a run of a function.
type trip struct {
	trace  []string      // what each instruction read, without probes and jumps
	ran    map[int]bool  // instructions
	taken  map[edge]bool // ways that conditions took
	probes map[int]bool
	ended  bool
}

// interpret runs a function of randomFunction. Conditions are random.
func interpret(t *testing.T, f *function, rng *rand.Rand) trip {
	t.Helper()
	targets, err := f.targets()
	if err != nil {
		t.Fatal(err)
	}
	const poison = 1000
	trip := trip{ran: map[int]bool{}, taken: map[edge]bool{}, probes: map[int]bool{}}
	value := [10]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	steps := 0
	for i := 0; len(trip.trace) < 500 && steps < 10000; i++ {
		steps++
		ins := &f.insns[i]
		trip.ran[i] = true
		switch op := ins.OpCode; {
		case ins.IsLoadFromMap():
			trip.probes[int(uint64(ins.Constant)>>32)] = true
			value[ins.Dst] = poison
		case op.Class() == asm.StClass:
		case op.ALUOp() == asm.Mov && op.Source() == asm.ImmSource: // a probe clears its register
			value[ins.Dst] = poison
		case op.ALUOp() == asm.Mov:
			trip.trace = append(trip.trace, fmt.Sprint("mov ", ins.Dst, value[ins.Src]))
			value[ins.Dst] = value[ins.Src]
		case op.JumpOp() == asm.Exit:
			trip.trace = append(trip.trace, fmt.Sprint("exit ", value[0]))
			trip.ended = true
			return trip
		case op.JumpOp() == asm.Ja:
			i = targets[i] - 1
		case op.JumpOp() == asm.JEq:
			trip.trace = append(trip.trace, fmt.Sprint("if ", value[ins.Dst]))
			b := slices.IndexFunc(f.blocks, func(b block) bool { return b.end == i+1 })
			jump := rng.IntN(2) == 0
			trip.taken[edge{b, jump}] = true
			if jump {
				i = targets[i] - 1
			}
		default: // a tail call, or a load from the packet
			read := value[1:4]
			if op.JumpOp() != asm.Call {
				read = value[6:7]
			}
			trip.trace = append(trip.trace, fmt.Sprint("call ", read))
			if rng.IntN(4) == 0 {
				trip.ended = true
				return trip
			}
			copy(value[1:6], []int{51, 52, 53, 54, 55})
			value[0] = 50
		}
	}
	return trip
}

// TestRefusals checks the errors for programs that cannot have probes.
func TestRefusals(t *testing.T) {
	long := asm.Instructions{asm.JEq.Imm(asm.R1, 0, "end")}
	for range 12000 {
		long = append(long, asm.JEq.Imm(asm.R2, 0, "next"), asm.Mov.Imm(asm.R0, 0), asm.Mov.Imm(asm.R3, 0))
		long[len(long)-3].Offset = 1
		long[len(long)-3] = long[len(long)-3].WithReference("")
	}
	long = long[:32000]
	long = append(long, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	list, err := functions(long)
	if err != nil {
		t.Fatal(err)
	}
	liveness(list)
	g := newGraph(list[0], false)
	_, err = insert(choose(g, func(int) bool { return true }, false), someMap{}, 0)
	if !errors.Is(err, errFar) {
		t.Errorf("far jump: got %v", err)
	}

	indirect := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja).SetSource(asm.RegSource)}
	_, err = functions(asm.Instructions{indirect, asm.Return()})
	if err == nil || !strings.Contains(err.Error(), "address in a register") {
		t.Errorf("indirect jump: got %v", err)
	}
	_, err = functions(asm.Instructions{{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 7}, asm.Return()})
	if err == nil || !strings.Contains(err.Error(), "out of its function") {
		t.Errorf("stray jump: got %v", err)
	}
}
