package jetstream

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A renewal is a stream that was deleted while two nodes were apart at event 10, and that a third
// one, which has had nothing of the topic, has made anew. It asks the origin, which has had the
// events 11 to 15 by then.
type renewal struct {
	t        *testing.T
	origin   *origin
	nodes    []*node // that are apart
	clients  []*client
	newcomer *node
	fresh    *client // of the newcomer
}

// renew brings a renewal about. If they are to go on, the nodes that are apart reach the origin.
func renew(t *testing.T, o *origin, goOn bool, opts options) *renewal {
	t.Helper()
	s := startServer(t)
	r := &renewal{t: t, origin: o, nodes: []*node{newNode(t, s, o, "a", opts), newNode(t, s, o, "b", opts)}}
	for _, n := range r.nodes {
		r.clients = append(r.clients, newClient(n, ""))
		eventually(t, n.name+" is connected", n.isConnected)
	}
	o.send(10)
	for _, c := range r.clients {
		c.await("10")
	}
	for _, n := range r.nodes {
		o.forbid(n.name, !goOn)
		n.link.cut(true)
	}
	for _, n := range r.nodes {
		eventually(t, n.name+" is apart", n.isApart)
	}
	if err := js(t, s).DeleteStream(t.Context(), "FLEET"); err != nil {
		t.Fatal(err)
	}
	o.send(5)
	r.newcomer = newNode(t, s, o, "c", opts)
	r.fresh = newClient(r.newcomer, "")
	eventually(t, "the newcomer is connected", r.newcomer.isConnected)
	return r
}

// reunite lets the nodes come back that are apart.
func (r *renewal) reunite() {
	r.t.Helper()
	for _, n := range r.nodes {
		n.link.cut(false)
	}
	for _, n := range r.nodes {
		eventually(r.t, n.name+" is with the fleet", func() bool { return !n.isApart() && n.isConnected() })
	}
}

// all checks that all who had a position get all events up to one.
func (r *renewal) all(last int) {
	r.t.Helper()
	for _, c := range r.clients {
		c.await(fmt.Sprint(last)).sequence(1, last)
	}
}

// The next holder of a stream that was made anew may know of no position. What comes of the
// origin then does not follow on what other nodes have: they fetch what is between.
func TestWhatTheStreamHasNotIsFetched(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"of a topic with events": false, "of a silent topic": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			o.retries = true
			r := renew(t, o, false, options{})
			if silent {
				r.reunite()
			}
			o.send(5)
			r.fresh.await("20").sequence(16, 20)
			if !silent {
				r.reunite()
			}
			o.send(1)
			r.all(21)
			if fetched := o.fetches(); !slices.Contains(fetched, "c:10") {
				t.Errorf("the holder was not asked to fetch what follows 10, but these were fetched: %v", fetched)
			}
		})
	}
}

// An origin that ignores ids sends all that it has: what the topic has of that is not missing.
func TestFetchingFromAnOriginThatIgnoresIDs(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	r := renew(t, o, false, options{})
	o.send(5)
	r.fresh.await("20")
	o.ignore()
	r.reunite()
	o.send(1)
	r.all(21)
}

// The origin may be away for a moment just when something is to be fetched.
func TestFetchingWaitsForTheOrigin(t *testing.T) {
	t.Parallel()
	o := newOrigin()
	r := renew(t, o, false, options{})
	o.send(5)
	r.fresh.await("20")
	o.answer(&relay.Outcome{Verdict: relay.Unavailable, Status: 503})
	for _, n := range r.nodes {
		n.link.cut(false)
	}
	eventually(t, "the origin is asked twice in vain", func() bool {
		return len(slices.DeleteFunc(o.questions(), func(asked string) bool { return asked != "c:10" })) > 1
	})
	o.answer(nil)
	o.send(1)
	r.all(21)
}

// Nodes that are ahead of a stream that was made anew do not give out twice what it brings.
func TestNodesAreAheadOfAStreamMadeAnew(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]options{
		"their logs have where it begins": {},
		"their logs have lost that":       {engine: func(cfg *relay.Config) { cfg.History.Events = 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			r := renew(t, o, true, opts)
			o.send(5)
			r.fresh.await("20").sequence(16, 20)
			r.all(20)
			r.reunite()
			o.send(1)
			r.all(21)
		})
	}
}

// What the origin has no longer is a gap, and so is what must not be fetched.
func TestWhatCannotBeFetchedIsAGap(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]options{
		"forgotten":   {},
		"catchup off": {engine: func(cfg *relay.Config) { cfg.Catchups = -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin()
			if name == "forgotten" {
				o.forgot = 15
			}
			r := renew(t, o, false, opts)
			o.send(5)
			r.fresh.await("20")
			r.reunite()
			want := append(numbers(1, 10), "gap")
			for _, client := range r.clients {
				client.awaitAll(append(want, numbers(16, 20)...))
			}
			if fetched := o.fetches(); o.forgot == 0 && len(fetched) > 0 {
				t.Errorf("with catchup off, these were fetched: %v", fetched)
			}
		})
	}
}

// The origin has forgotten where the stream is, but not where a node is that was apart. The
// stream passes over that node, whose clients miss nothing, and are told of nothing.
func TestAStreamThatPassesOverANode(t *testing.T) {
	t.Parallel()
	for name, within := range map[string]bool{"it has what comes next": true, "it has not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, o := startServer(t), newOrigin()
			a, b := newNode(t, s, o, "a", options{}), newNode(t, s, o, "b", options{})
			first := newClient(a, "")
			eventually(t, "a is connected", a.isConnected)
			second := newClient(b, "")
			eventually(t, "b is connected", b.isConnected)
			o.send(10)
			first.await("10")
			second.await("10")
			b.link.cut(true)
			eventually(t, "b is apart", b.isApart)
			eventually(t, "b asks the origin", func() bool { return slices.Contains(o.askers(), "b") })
			o.forbid("a", true)
			eventually(t, "a has lost the origin", func() bool { return !slices.Contains(o.askers(), "a") })
			o.send(10)
			second.await("20")
			o.forget(15)
			o.forbid("b", !within)
			o.forbid("a", false)
			eventually(t, "a asks the origin", func() bool { return slices.Contains(o.askers(), "a") })
			o.send(1)
			first.awaitAll(append(append(numbers(1, 10), "gap"), "21"))
			b.link.cut(false)
			o.send(1)
			second.await("22").sequence(1, 22)
		})
	}
}

// A gap is told before a new run: the ids of one run say nothing of another.
func TestAGapInFrontOfANewRun(t *testing.T) {
	notes := &noting{}
	f := &following{source: &source{state: state{gap: true}}, sink: notes}
	f.dispatch(&read{message: &message{kind: kindRun}})
	if want := []relay.Note{{Gap: true}, {Run: true}}; !slices.Equal(notes.notes, want) {
		t.Errorf("the topic was told %+v, want %+v", notes.notes, want)
	}
}

// A noting sink keeps the notes that it is given.
type noting struct {
	relay.Sink
	notes []relay.Note
}

func (n *noting) Note(note relay.Note) { n.notes = append(n.notes, note) }

// numbers returns the events from one to another.
func numbers(from, to int) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}
