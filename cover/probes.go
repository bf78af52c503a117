package cover

import (
	"slices"

	"github.com/cilium/ebpf/asm"
)

// A plan says which nodes of a function's graph get probes, and how the states of other
// nodes follow from these.
type plan struct {
	*graph
	class  []int   // class of each node: the nodes of one run together
	known  [][]int // for each class, classes of which one runs if and only if it does, or nil
	probes []probe
}

// A probe is a place where a byte is set, and the dead register that it uses.
type probe struct {
	class    int
	node     int
	before   int // instruction, if the node is a block
	register asm.Register
	clears   bool // whether it clears the register after use
}

// choose plans the probes of a function, so that the states of the wanted nodes are
// known. If clears is set, probes in loops clear their registers.
//
// A node implies the nodes that dominate or postdominate it: when it runs, they run.
// Nodes that imply one another form a class, for which one probe is enough. A class
// needs no probe if one of its nodes dominates all its successors, or postdominates
// all its predecessors: these imply it, and one of them runs whenever it does.
func choose(g *graph, wanted func(node int) bool, clears bool) *plan {
	p := &plan{graph: g}
	var members [][]int
	p.class, members = components(g.exit, func(n int) []int {
		return slices.DeleteFunc([]int{g.idom[n], g.ipdom[n]}, func(n int) bool { return n == none || n == g.exit })
	})
	p.known = make([][]int, len(members))

	direct := make([]bool, len(members)) // classes with wanted nodes
	for c, nodes := range members {
		direct[c] = slices.ContainsFunc(nodes, wanted)
	}
	for c, nodes := range members {
		if !direct[c] || p.infer(c, members, direct) {
			continue
		}
		if probe := place(g, nodes); probe != nil {
			probe.class = c
			probe.clears = probe.clears && clears
			p.probes = append(p.probes, *probe)
		}
	}
	return p
}

// infer finds classes from which the state of class c follows without an additional
// probe, and reports whether there are any.
func (p *plan) infer(c int, members [][]int, direct []bool) bool {
	if p.known[c] != nil {
		return true
	}
	for _, rule := range p.rules(members[c]) {
		if !slices.ContainsFunc(rule, func(k int) bool { return !direct[k] && !p.infer(k, members, direct) }) {
			p.known[c] = rule
			return true
		}
	}
	return false
}

// rules returns sets of classes. The state of the class of nodes follows from each set.
func (p *plan) rules(nodes []int) (rules [][]int) {
	runs := func(n int) bool { return p.order[n] != none }
	if !slices.ContainsFunc(nodes, runs) {
		return [][]int{{}} // from the empty set follows that it never runs
	}
	for _, n := range nodes {
		if known := p.neighbours(n, p.succs[n], p.idom); known != nil {
			rules = append(rules, known)
		}
		if n == 0 {
			continue // the function's callers come before it
		}
		if known := p.neighbours(n, p.preds[n], p.ipdom); known != nil {
			rules = append(rules, known)
		}
	}
	return rules
}

// neighbours returns the classes of the nodes on one side of n, if they are of
// other classes and all imply it.
func (p *plan) neighbours(n int, side, implied []int) []int {
	var known []int
	for _, m := range side {
		if m == p.exit || implied[m] != n || p.class[m] == p.class[n] {
			return nil
		}
		if !slices.Contains(known, p.class[m]) {
			known = append(known, p.class[m])
		}
	}
	return known
}

// place returns a probe for one of the nodes. It prefers a place in the fewest loops,
// then a block to an edge, then the earliest. It returns nil if no node has a free
// register.
func place(g *graph, nodes []int) *probe {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b int) int {
		return slices.Compare(g.rank(a), g.rank(b))
	})
	for _, n := range nodes {
		if g.order[n] == none {
			continue // never runs
		}
		onEdge := n >= len(g.blocks)
		b := g.blocks[g.block(n)]
		for i := b.first; i < b.end; i++ {
			if r, written, ok := g.dead(i, b.end); ok {
				return &probe{node: n, before: i, register: r, clears: g.depth[n] > 0 && (onEdge || !written)}
			}
			if onEdge {
				break
			}
		}
	}
	return nil
}

// rank returns what makes a node a worse place for a probe, in order of importance.
func (g *graph) rank(n int) []int {
	onEdge := 0
	if n >= len(g.blocks) {
		onEdge = 1
	}
	return []int{g.depth[n], onEdge, g.order[n]}
}

// dead returns a register that is dead at an instruction, and whether its block
// writes it later. It prefers registers that the block writes, since the probe then
// leaves no trace after the block. Registers that a function has to save for its
// caller come last.
func (f *function) dead(i, end int) (r asm.Register, written, ok bool) {
	dead := ^f.live[i] & (1<<asm.R10 - 1)
	if dead == 0 {
		return 0, false, false
	}
	for ; i < end; i++ {
		if w := f.writes[i] & dead; w != 0 {
			return w.lowest(), true, true
		}
	}
	return dead.lowest(), false, true
}
