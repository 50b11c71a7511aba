package quota

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// The order is kept for many addresses, too.
func TestRankingAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // to be repeated
	s := newSpares[int]()
	openers, topics := make([]*opener[int], 200), make([]*Entry[int], 2000)
	for i := range openers {
		openers[i] = new(opener[int])
	}
	of := make(map[*Entry[int]]*opener[int])
	for i := range topics {
		topics[i] = new(Entry[int])
		of[topics[i]] = openers[min(random.IntN(200), random.IntN(200))]
		of[topics[i]].topics++
		s.rerank(of[topics[i]])
	}
	for range 20000 {
		top := topics[random.IntN(len(topics))]
		o := of[top]
		s.set(top, o, kind(random.IntN(int(kinds))))
		if random.IntN(4) == 0 {
			o.topics += random.IntN(3) - 1
			s.rerank(o)
		}
		for which := range s.rankings {
			r := &s.rankings[which]
			first := s.most(which)
			if first == nil {
				continue
			}
			for _, o := range openers {
				if o.spare[r.kind()].Len() > 0 && r.holds(o) > r.holds(first) {
					t.Fatalf("ranking %d: %d before %d", which, r.holds(first), r.holds(o))
				}
			}
		}
	}
	idle := 0
	for _, top := range topics {
		if top.kind == spareLingering {
			idle++
		}
	}
	if s.idle != idle {
		t.Errorf("%d linger, and %d are counted", idle, s.idle)
	}
}

// At the limit, a newcomer costs no walk through the topics.
func BenchmarkRoomForANewcomer(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := newSpares[int]()
			openers := make([]*opener[int], n)
			for i := range openers {
				openers[i] = &opener[int]{topics: i % 7}
				s.set(new(Entry[int]), openers[i], spareLingering)
			}
			for b.Loop() {
				o := s.most(mostLingering)
				t := o.oldest(spareLingering)
				s.set(t, o, notSpare)
				o.topics--
				s.rerank(o)
				o.topics++
				s.set(t, o, spareLingering)
			}
		})
	}
}
