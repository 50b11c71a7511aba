package jetstream

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	seed   = flag.Uint64("seed", 1, "of the first run of the model tests")
	runs   = flag.Int("runs", 300, "how many runs the model test of the order makes")
	worlds = flag.Int("worlds", 4, "how many runs the model test of the fleet makes")
)

// A shelf is a stream in memory that loses messages on their way, keeps a limited number,
// and may begin anew.
type shelf struct {
	messages []message
	first    int // the oldest that is kept
}

func (s *shelf) read(at int) (*message, int) {
	at = max(at, s.first)
	if at >= len(s.messages) {
		return nil, at
	}
	return &s.messages[at], at + 1
}

// A publishing is a holder in the model: it publishes the events from one number on.
type publishing struct {
	epoch epoch
	next  uint64 // index
	acked uint64 // what is stored without a hole
	at    int    // the next event that it publishes
}

// publish sends a message, which may not be stored.
func (p *publishing) publish(s *shelf, m message, stored bool) {
	m.epoch, m.index, m.acked = p.epoch, p.next, p.acked
	if stored {
		s.messages = append(s.messages, m)
		if p.acked == p.next {
			p.acked++
		}
	}
	p.next++
}

// event publishes the next event.
func (p *publishing) event(s *shelf, stored bool) {
	p.publish(s, message{kind: kindEvent, part: p.at}, stored)
	p.at++
}

// A reading is a reader in the model.
type reading struct {
	order  order
	at     int // in the shelf
	events []int
	gaps   []int // how many events it had when it found that some are missing
}

// step reads one message.
func (r *reading) step(s *shelf) bool {
	m, next := s.read(r.at)
	if m == nil {
		return false
	}
	counts, missed := r.order.take(m)
	if missed {
		r.gaps = append(r.gaps, len(r.events))
	}
	if counts && m.kind == kindEvent {
		r.events = append(r.events, m.part)
	}
	r.at = next
	return true
}

// catchUp reads all that there is.
func (r *reading) catchUp(s *shelf) *reading {
	for r.step(s) {
		continue
	}
	return r
}

// TestOrderModel lets holders publish numbered events through a stream that loses some, let
// stale holders go on, and checks what readers take for the events.
func TestOrderModel(t *testing.T) {
	t.Parallel()
	for n := range uint64(*runs) {
		s := *seed + n
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			model(t, rand.New(rand.NewPCG(s, 1)))
		})
	}
}

func model(t *testing.T, random *rand.Rand) {
	s := new(shelf)
	var (
		stale   []*publishing
		holder  *publishing
		lease   uint64
		term    uint64
		readers = []*reading{{}, {}, {}}
	)
	takeOver := func() {
		lease += 1 + random.Uint64N(3)
		if random.IntN(10) == 0 {
			term, lease = term+1, 1
		}
		holder = &publishing{epoch: epoch{term, lease}}
		holder.publish(s, message{kind: kindMarker}, true)
		if random.IntN(5) == 0 {
			return // it dies here
		}
		// It reads up to its marker, and the origin goes on behind the last event.
		r := new(reading).catchUp(s)
		holder.publish(s, message{kind: kindResumed, body: encodeResumed(r.order.before, nil)}, true)
		holder.at = 1
		if len(r.events) > 0 {
			holder.at = r.events[len(r.events)-1] + 1
		}
	}
	lead := func() {
		for takeOver(); holder.at == 0; takeOver() {
			continue
		}
	}
	lead()
	for range 200 {
		switch random.IntN(12) {
		case 0: // the holder is stopped, and another takes over
			stale = append(stale, holder)
			lead()
		case 1: // the stream loses some messages, and stores the next
			for range 1 + random.IntN(2) {
				holder.event(s, false)
			}
			for range random.IntN(4) {
				holder.event(s, true)
			}
			lead() // with what it has not got acknowledged
		case 2, 3: // stale holders go on for a while
			for _, p := range stale {
				p.event(s, random.IntN(3) > 0)
			}
		case 4: // a stale holder's marker was on its way
			if len(stale) > 0 {
				p := stale[random.IntN(len(stale))]
				s.messages = append(s.messages, message{kind: kindMarker, epoch: p.epoch})
			}
		case 5: // what was sent is stored twice
			s.messages = append(s.messages, s.messages[len(s.messages)-1])
		case 6:
			for range random.IntN(20) {
				readers[random.IntN(len(readers))].step(s)
			}
		default:
			holder.event(s, true)
		}
	}
	for i, r := range readers {
		r.catchUp(s)
		if len(r.gaps) > 0 {
			t.Errorf("reader %d has gaps, and nothing was discarded", i)
		}
		for j, n := range r.events {
			if n != j+1 {
				t.Fatalf("reader %d has event %d in the place of %d: %v", i, n, j+1, r.events)
			}
		}
		if last := r.events; len(last) > 0 && last[len(last)-1] != holder.at-1 {
			t.Errorf("reader %d has read up to event %d, and the holder has sent %d", i, last[len(last)-1], holder.at-1)
		}
	}

	// A reader that was away for longer than the stream keeps messages is told of what it
	// has missed, and never gets an event twice or too early.
	late := new(reading)
	for range random.IntN(len(s.messages)) {
		late.step(s)
	}
	missed := late.at
	s.first = cleanCut(s, late.at+random.IntN(len(s.messages)-late.at+1))
	for range 3 {
		holder.event(s, true)
	}
	lead()
	holder.event(s, true)
	late.catchUp(s)
	last := 0
	for i, n := range late.events {
		if n <= last || n > last+1 && !slices.Contains(late.gaps, i) && i > 0 {
			t.Fatalf("away at %d, event %d follows event %d, with gaps before %v of %v", missed, n, last, late.gaps, late.events)
		}
		last = n
	}
	if last != holder.at-1 {
		t.Errorf("the late reader has read up to event %d of %d", last, holder.at-1)
	}
}

// cleanCut returns the first place from at on behind which all messages up to the next marker
// count. A reader that begins elsewhere cannot know that some of them do not, which order
// documents.
func cleanCut(s *shelf, at int) int {
	var reader order
	var counted []bool
	for i := range s.messages {
		counts, _ := reader.take(&s.messages[i])
		counted = append(counted, counts)
	}
	for ; at < len(s.messages); at++ {
		clean := true
		for i := at; i < len(s.messages) && clean && (s.messages[i].kind != kindMarker || !counted[i]); i++ {
			clean = counted[i]
		}
		if clean {
			break
		}
	}
	return at
}
