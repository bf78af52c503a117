package cover

import "slices"

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

// dominators returns the closest dominator of each node, and its place in reverse
// postorder. Both are none for nodes that the root does not reach, and the dominator is
// none for the root. The method is that of Cooper, Harvey and Kennedy, "A Simple, Fast
// Dominance Algorithm".
func dominators(succs, preds [][]int, root int) (idom, order []int) {
	idom = slices.Repeat([]int{none}, len(succs))
	order = slices.Clone(idom)
	nodes := reachable(succs, root)
	slices.Reverse(nodes)
	for i, n := range nodes {
		order[n] = i
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
					closest = intersect(idom, order, closest, p)
				}
			}
			if idom[n] != closest {
				idom[n], changed = closest, true
			}
		}
	}
	idom[root] = none
	return idom, order
}

// intersect returns the closest node that dominates both a and b.
func intersect(idom, order []int, a, b int) int {
	for a != b {
		for order[a] > order[b] {
			a = idom[a]
		}
		for order[b] > order[a] {
			b = idom[b]
		}
	}
	return a
}

// dominates reports whether every way to b leads through a.
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

// components returns the strongly connected components of a graph of n nodes, by
// Tarjan's algorithm: the component of each node, and the nodes of each component.
func components(n int, succs func(int) []int) (component []int, members [][]int) {
	component = make([]int, n)
	index, low := make([]int, n), make([]int, n) // index counts from 1
	var stack []int
	visited := 0
	var visit func(int)
	visit = func(v int) {
		visited++
		index[v], low[v] = visited, visited
		component[v] = none
		stack = append(stack, v)
		for _, w := range succs(v) {
			if index[w] == 0 {
				visit(w)
			}
			if component[w] == none {
				low[v] = min(low[v], low[w])
			}
		}
		if low[v] != index[v] {
			return
		}
		first := slices.Index(stack, v)
		members = append(members, slices.Clone(stack[first:]))
		for _, w := range stack[first:] {
			component[w] = len(members) - 1
		}
		stack = stack[:first]
	}
	for v := range n {
		if index[v] == 0 {
			visit(v)
		}
	}
	return component, members
}
