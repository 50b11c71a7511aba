package faults

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A fault is one thing that goes wrong, at a time of the schedule and for a
// while.
type fault struct {
	at, lasts time.Duration
	kind      kind
	seed      uint64 // of what the fault decides itself
}

func (f *fault) String() string {
	s := f.kind.name
	if f.lasts > 0 {
		s += fmt.Sprintf(" for %s", f.lasts)
	}
	return s
}

// A kind of fault takes hold of one part: two that take hold of the same do not
// happen at once.
type kind struct {
	name   string
	part   part
	least  time.Duration // it lasts
	most   time.Duration
	weight int
}

type part string

const (
	partOrigin  part = "origin"
	partCaddy   part = "caddy"
	partLink    part = "link"
	partClients part = "clients"
)

// A no of the origin, which is true for those who ask it first, must meet no
// clients whom Caddy does not know: they would rightly be told to go.
const noFromOrigin = "the origin answers 404"

func kinds(netns bool) []kind {
	ms := time.Millisecond
	all := []kind{
		{"kill -9 of the origin", partOrigin, 0, 4000 * ms, 3},
		{"the origin hangs", partOrigin, 500 * ms, 7000 * ms, 2},
		{"the origin answers 503", partOrigin, 1000 * ms, 5000 * ms, 2},
		{noFromOrigin, partOrigin, 1000 * ms, 5000 * ms, 1},
		{"the origin ends its streams", partOrigin, 0, 0, 2},
		{"the origin ends its streams and starts over", partOrigin, 0, 0, 2},
		{"the origin is away for longer than its store reaches back", partOrigin, 16000 * ms, 18000 * ms, 1},
		{"kill -9 of Caddy", partCaddy, 0, 2000 * ms, 2},
		{"SIGTERM to Caddy", partCaddy, 0, 2000 * ms, 2},
		{"reload, unchanged", partCaddy, 0, 0, 3},
		{"reload, another part changed", partCaddy, 0, 0, 2},
		{"reload, handlers changed", partCaddy, 0, 0, 3},
		{"connections to the origin are reset", partLink, 0, 0, 3},
		{"connections to the origin are reset inside an event", partLink, 0, 0, 3},
		{"connections to the origin are half open", partLink, 500 * ms, 6000 * ms, 2},
		{"clients are cut", partClients, 0, 0, 6},
		{"clients are cut and stay away", partClients, 0, 0, 2},
		{"clients are loaded anew", partClients, 0, 0, 1},
		{"clients stop reading", partClients, 1000 * ms, 8000 * ms, 3},
	}
	if netns {
		all = append(all, kind{"packets to the origin are dropped", partLink, 500 * ms, 6000 * ms, 2})
	}
	return all
}

// plan makes the schedule: the same for the same seed, duration and kinds.
func plan(r *rand.Rand, duration time.Duration, kinds []kind) []fault {
	var faults []fault
	busy := make(map[part]time.Duration)
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for at := 3 * time.Second; at < duration; at += 200*time.Millisecond + upTo(r, 1600*time.Millisecond) {
		k := choose(r, kinds, total)
		f := fault{at: at, kind: k, seed: r.Uint64()}
		if k.most > 0 {
			f.lasts = (k.least + upTo(r, k.most-k.least)).Round(10 * time.Millisecond)
		}
		end := at + f.lasts + 200*time.Millisecond
		if busy[k.part] > at || k.name == noFromOrigin && busy[partCaddy] > at-10*time.Second {
			continue
		}
		if end > duration && f.lasts > 0 {
			continue
		}
		busy[k.part] = end
		if k.name == noFromOrigin {
			busy[partCaddy] = end + 3*time.Second
		}
		faults = append(faults, f)
	}
	slices.SortFunc(faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return faults
}

func choose(r *rand.Rand, kinds []kind, total int) kind {
	n := r.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	return kinds[0]
}

// restrict leaves the kinds that are named, if any are.
func restrict(kinds []kind, names string) []kind {
	if names == "" {
		return kinds
	}
	return slices.DeleteFunc(kinds, func(k kind) bool {
		return !slices.Contains(strings.Split(names, ";"), k.name)
	})
}

// upTo returns a random duration below d.
func upTo(r *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(d)))
}
