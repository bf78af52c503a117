package cover

import "slices"

// A graph is the flow graph of a function. Its nodes are numbered: the blocks
// first, with their own numbers, then critical edges if branches are wanted,
// and last the exit, which stands for all that happens after the function.
type graph struct {
	succs, preds [][]int
	edges        []edge // nodes from the number of blocks on
	nodes        map[edge]int
	exit         int
	idom, ipdom  []int // closest dominator and postdominator, or none
	depth        []int // loops that a node is in
	order        []int // place of a node in reverse postorder
}

// An edge is a way out of a block with two that leads to a block with several
// ways in: neither block tells whether it was taken.
type edge struct {
	block int  // that it leaves
	jump  bool // whether its last instruction jumps
}

// newGraph makes the graph of a function, with critical edges as nodes if
// branches are wanted.
func newGraph(f *function, branches bool) *graph {
	g := &graph{nodes: map[edge]int{}}
	ways := make([]int, len(f.blocks)) // into each block
	ways[0] = 1
	for _, b := range f.blocks {
		for _, to := range []int{b.next, b.jump} {
			if to != none {
				ways[to]++
			}
		}
	}
	for n := range f.blocks {
		if !branches || !f.decides(n) {
			continue
		}
		for _, e := range []edge{{n, false}, {n, true}} {
			if ways[f.target(e)] > 1 {
				g.nodes[e] = len(f.blocks) + len(g.edges)
				g.edges = append(g.edges, e)
			}
		}
	}

	g.exit = len(f.blocks) + len(g.edges)
	g.succs, g.preds = make([][]int, g.exit+1), make([][]int, g.exit+1)
	for n, b := range f.blocks {
		if b.next != none {
			g.connect(n, b.next, edge{n, false})
		}
		if b.jump != none {
			g.connect(n, b.jump, edge{n, true})
		}
		if b.leaves {
			g.link(n, g.exit)
		}
	}
	g.leaveLoops()
	g.order = reversePostorder(g.succs, 0)
	g.idom = dominators(g.succs, g.preds, 0)
	g.ipdom = dominators(g.preds, g.succs, g.exit)
	g.findLoops()
	return g
}

// connect links two blocks, through the node of their edge if it has one.
func (g *graph) connect(from, to int, e edge) {
	if over, ok := g.nodes[e]; ok {
		g.link(from, over)
		from = over
	}
	g.link(from, to)
}

// target returns the block that an edge leads to.
func (f *function) target(e edge) int {
	if e.jump {
		return f.blocks[e.block].jump
	}
	return f.blocks[e.block].next
}

func (g *graph) link(from, to int) {
	g.succs[from] = append(g.succs[from], to)
	g.preds[to] = append(g.preds[to], from)
}

// leaveLoops links what has no way to the exit to it, so that nothing is
// concluded from what should come after.
func (g *graph) leaveLoops() {
	leaves := make([]bool, g.exit+1)
	for _, n := range reachable(g.preds, g.exit) {
		leaves[n] = true
	}
	for n := range g.exit {
		if !leaves[n] {
			g.link(n, g.exit)
		}
	}
}

// reachable returns the nodes that can be reached from root, children first.
func reachable(succs [][]int, root int) []int {
	type visit struct{ node, next int }
	seen := make([]bool, len(succs))
	seen[root] = true
	stack := []visit{{root, 0}}
	var postorder []int
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == len(succs[top.node]) {
			postorder = append(postorder, top.node)
			stack = stack[:len(stack)-1]
			continue
		}
		to := succs[top.node][top.next]
		top.next++
		if !seen[to] {
			seen[to] = true
			stack = append(stack, visit{to, 0})
		}
	}
	return postorder
}

// reversePostorder returns the place of each node in this order, or none for
// those that cannot be reached.
func reversePostorder(succs [][]int, root int) []int {
	place := make([]int, len(succs))
	for n := range place {
		place[n] = none
	}
	postorder := reachable(succs, root)
	for i, n := range postorder {
		place[n] = len(postorder) - 1 - i
	}
	return place
}

// dominators returns the closest dominator of each node, none for the root and
// for what cannot be reached from it. The method is that of Cooper, Harvey and
// Kennedy, "A Simple, Fast Dominance Algorithm".
func dominators(succs, preds [][]int, root int) []int {
	place := reversePostorder(succs, root)
	nodes := reachable(succs, root)
	slices.Reverse(nodes)

	idom := make([]int, len(succs))
	for n := range idom {
		idom[n] = none
	}
	idom[root] = root
	for changed := true; changed; {
		changed = false
		for _, n := range nodes[1:] {
			closest := none
			for _, p := range preds[n] {
				switch {
				case idom[p] == none:
				case closest == none:
					closest = p
				default:
					closest = intersect(idom, place, closest, p)
				}
			}
			if idom[n] != closest {
				idom[n], changed = closest, true
			}
		}
	}
	idom[root] = none
	return idom
}

// intersect returns the closest node that dominates both a and b.
func intersect(idom, place []int, a, b int) int {
	for a != b {
		for place[a] > place[b] {
			a = idom[a]
		}
		for place[b] > place[a] {
			b = idom[b]
		}
	}
	return a
}

// node returns the node that runs when an edge is taken: its own, or the block
// that it leads to.
func (g *graph) node(f *function, e edge) int {
	if n, ok := g.nodes[e]; ok {
		return n
	}
	return f.target(e)
}

// block returns the block of a node: itself, or the one that its edge leads to.
func (g *graph) block(f *function, n int) int {
	if n < len(f.blocks) {
		return n
	}
	return f.target(g.edges[n-len(f.blocks)])
}

// dominates reports whether every way to b leads over a.
func (g *graph) dominates(a, b int) bool {
	for b != none && b != a {
		b = g.idom[b]
	}
	return b == a
}

// findLoops counts the natural loops that each node is in.
func (g *graph) findLoops() {
	g.depth = make([]int, len(g.succs))
	for header := range g.succs {
		inside := map[int]bool{header: true}
		var todo []int
		for _, p := range g.preds[header] {
			if g.order[p] >= g.order[header] && g.dominates(header, p) {
				todo = append(todo, p)
			}
		}
		if todo == nil {
			continue
		}
		for len(todo) > 0 {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if !inside[n] {
				inside[n] = true
				todo = append(todo, g.preds[n]...)
			}
		}
		for n := range inside {
			g.depth[n]++
		}
	}
}
