package faults

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// A checker is told what a client sees: the numbers of events, @ with that of a position,
// ~ with that of an event with the data of another, ^ with that of an event whose id has lost
// the blank at its end, open when it has a connection,
// anew when its page is loaded again, gap, and how the origin's connection begins.
func tell(c *checker, story string) {
	starts := map[string]origins.Start{
		"live": origins.StartsLive, "behind": origins.StartsBehind,
		"first": origins.StartsFirst, "backlog": origins.StartsBacklog,
	}
	event := func(id, data int) {
		c.event(eventsource.Event{ID: origins.ID(c.topic, id), Data: origins.Data(c.topic, data)})
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			panic(err)
		}
		return n
	}
	for word := range strings.FieldsSeq(story) {
		start, starts := starts[word]
		from, to, several := strings.Cut(word, "-")
		switch {
		case starts:
			c.reconnection(start.Retry())
		case word == "open":
			c.opened()
		case word == "anew":
			c.anew()
		case word == "gap":
			c.event(eventsource.Event{Type: gapEvent})
		case word[0] == '@':
			c.position(origins.ID(c.topic, number(word[1:])))
		case word[0] == '~':
			event(number(word[1:]), number(word[1:])+1)
		case word[0] == '^':
			n := number(word[1:])
			c.event(eventsource.Event{ID: strings.TrimRight(origins.ID(c.topic, n), " "), Data: origins.Data(c.topic, n)})
		case several:
			for n := number(from); n <= number(to); n++ {
				if origins.Dispatched(n) {
					event(n, n)
				} else {
					c.position(origins.ID(c.topic, n))
				}
			}
		default:
			event(number(word), number(word))
		}
	}
}

// A checker sees what is wrong, and nothing that is not.
func TestChecker(t *testing.T) {
	const all = "1 finite endless memory offsets text oversized"
	for _, tt := range []struct {
		name, topics, story string
		want                tally
	}{
		{"in order", all, "open 1-40 41", tally{events: 41 - 2 - 1}},
		{"lost", all, "open 1-10 13", tally{lost: 2}},
		{"lost at a reconnection", all, "open 1-10 open 13", tally{lost: 2}},
		{"comes twice", all, "open 1-10 10", tally{repeated: 1}},
		{"comes twice after a reconnection", all, "open 1-10 open 10", tally{repeated: 1}},
		{"an older one", all, "open 1-10 7", tally{repeated: 1}},
		{"comes late", "1 offsets", "open 1-10 13 12", tally{lost: 2, disordered: 1}},
		{"another's data", all, "open 1-10 ~11 12", tally{corrupt: 1, lost: 1}},
		{"another id", "text", "open 1-10 ^11 12", tally{corrupt: 1, lost: 1}},
		{"goes on", all, "open 1-10 open 11-14", tally{}},
		{"goes on, told its position", all, "open 1-10 open @10 11-14", tally{}},
		{"a page that is loaded again", all, "open 1-10 anew open @20 21-24", tally{}},
		{"a gap is told, and there is none", "1 offsets text", "open 1-10 gap 11", tally{falseAlarms: 1}},
		{"a gap is told though the origin has the rest", "1 offsets text oversized", "open 1-10 gap 13", tally{lost: 2}},
		{"a gap is told of an id that is too long", "oversized", "open 1-11 gap 14", tally{gaps: 1, missed: 2}},
		{"a gap is told", "finite endless memory", "open 1-10 gap 13", tally{gaps: 1}},
		{"a gap is told of an id of several runs", "finite endless memory", "open 1-30 first 1-9 open gap 10", tally{gaps: 1, startOvers: 1}},

		{"the end, and a new run", "finite", "open 1-40 first 1-40 first 1", tally{startOvers: 2}},
		{"a break, and a new run", "finite endless memory", "open 1-30 first 1-4", tally{startOvers: 1}},
		{"several breaks, and a new run", "finite endless memory", "open 1-30 first first first 1-4", tally{startOvers: 1}},
		{"a new run that it came back to", "finite endless memory", "open 1-30 open 1-4", tally{startOvers: 1}},
		{"a run that it came to between two events", "finite endless memory", "open @20 34-36 first 1", tally{startOvers: 1}},
		{"a run that goes on, from its beginning, for one who came back", "memory", "open 1-30 open behind 1", tally{startOvers: 1, repeated: 1}},
		{"a new run that came at once", "memory", "open 1-30 backlog 1-4", tally{startOvers: 1}},
		{"a new run that is taken for a replay at once", "memory", "open 1-30 backlog 31", tally{taken: 1}},
		{"a new run that is taken for a replay for a moment", "finite endless memory", "open 1-8 first 9", tally{taken: 1}},
		{"a new run whose first events are lost", "finite endless memory", "open 1-30 first 31", tally{lost: 30 - 2}},
		{"a new run of which two events are lost", "finite endless memory", "open 1-30 first 3", tally{lost: 2}},
		{"a new run of which later events are lost", "finite endless memory", "open 1-30 first 1-3 7", tally{startOvers: 1, lost: 2}},
		{"a new run of which two events are lost to one who came back", "finite endless memory", "open 1-30 open first 3", tally{lost: 2}},
		{"a run that comes again", "finite endless memory", "open 1-30 first 1-4 1", tally{startOvers: 2, repeated: 1}},
		{"a run that goes on behind an id", "memory", "open 1-30 behind 31", tally{}},
		{"a run that goes on too late", "memory", "open 1-30 behind 34", tally{lost: 3}},
		{"a run that goes on, from its beginning", "memory", "open 1-30 behind 1", tally{startOvers: 1, repeated: 1}},
		{"a run that goes on with what happens next", "memory", "open 1-30 live 34", tally{lost: 3}},
		{"a run that goes on with what happens next, as was told", "memory", "open 1-30 gap live 34", tally{gaps: 1}},
	} {
		for name := range strings.FieldsSeq(tt.topics) {
			t.Run(fmt.Sprintf("%s/%s", tt.name, name), func(t *testing.T) {
				store := &origins.Numbered{Epoch: time.Now().Add(-time.Minute), Interval: time.Second, Lookback: time.Hour}
				c := &checker{store: store, topic: "/endpoint/" + name}
				tell(c, tt.story)
				got, wronged, story := c.report()
				events, longIDs := got.events, got.longIDs
				got.events, got.longIDs = tt.want.events, 0
				if got != tt.want {
					t.Errorf("found %s, want %s\n%s", got, tt.want, story)
				}
				if wronged != tt.want.wrong() {
					t.Errorf("wronged: %v", wronged)
				}
				if tt.want.events > 0 && events != tt.want.events {
					t.Errorf("%d events, want %d", events, tt.want.events)
				}
				if long := strings.Contains("offsets text oversized", name); long != (longIDs > 0) {
					t.Errorf("%d long ids", longIDs)
				}
			})
		}
	}
}

// An id leads back to its event, and no other text does.
func TestIDs(t *testing.T) {
	sizes := map[string][2]int{"1": {1, 7}, origins.Offsets: {1255, 1260}, origins.Text: {1025, 1200}, origins.Oversized: {60, 4300}}
	for name, size := range sizes {
		topic := "/endpoint/" + name
		for _, n := range []int{0, 3, 9, 10, 123456} {
			id := origins.ID(topic, n)
			if len(id) < size[0] || len(id) > size[1] {
				t.Errorf("the id of %s has %d bytes", topic, len(id))
			}
			for _, sent := range []string{id, strings.Trim(id, " ")} {
				if got, err := origins.Number(topic, sent); err != nil || got != n {
					t.Errorf("%q is of %d (%v), want %d", sent, got, err, n)
				}
			}
			if got, err := origins.Number(topic, id[:len(id)/2]+"x"); err == nil {
				t.Errorf("half of %q is of %d", id, got)
			}
		}
	}
}
