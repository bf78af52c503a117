package cover

// A graph is the flow graph of a function. Its nodes are numbers: first the blocks,
// with their own numbers, then the critical edges if branches are wanted, and last
// the exit, which stands for all that happens after the function.
type graph struct {
	*function
	succs, preds [][]int
	edges        []edge // their nodes follow those of the blocks
	nodes        map[edge]int
	exit         int
	idom, ipdom  []int // closest dominator and postdominator, or none
	depth        []int // number of loops that a node is in
	order        []int // place of a node in reverse postorder
}

// An edge is a critical edge: it leaves a block with two ways out, and enters a
// block with several ways in. So neither block tells whether it was taken.
type edge struct {
	block int  // block that it leaves
	jump  bool // whether the block's last instruction jumps
}

// newGraph returns the graph of a function, with critical edges as nodes if branches
// is set.
func newGraph(f *function, branches bool) *graph {
	g := &graph{function: f, nodes: map[edge]int{}}
	if branches {
		g.addEdges()
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
	g.idom, g.order = dominators(g.succs, g.preds, 0)
	g.ipdom, _ = dominators(g.preds, g.succs, g.exit)
	g.findLoops()
	return g
}

// addEdges adds nodes for the critical edges.
func (g *graph) addEdges() {
	ways := make([]int, len(g.blocks)) // number of ways into each block
	ways[0] = 1                        // the call of the function
	for _, b := range g.blocks {
		for _, to := range []int{b.next, b.jump} {
			if to != none {
				ways[to]++
			}
		}
	}
	for n := range g.blocks {
		if !g.decides(n) {
			continue
		}
		for _, e := range []edge{{n, false}, {n, true}} {
			if ways[g.target(e)] > 1 {
				g.nodes[e] = len(g.blocks) + len(g.edges)
				g.edges = append(g.edges, e)
			}
		}
	}
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

// leaveLoops links nodes that cannot reach the exit to it, so that nothing is
// concluded from what would come after them.
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

// node returns the node that runs when an edge is taken: its own, or the block
// that it leads to.
func (g *graph) node(e edge) int {
	if n, ok := g.nodes[e]; ok {
		return n
	}
	return g.target(e)
}

// block returns the block of a node: itself, or the one that its edge leads to.
func (g *graph) block(n int) int {
	if n < len(g.blocks) {
		return n
	}
	return g.target(g.edges[n-len(g.blocks)])
}
