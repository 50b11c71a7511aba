package faults

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// journalBegins stands for the topic in the line of a journal that says that no stream is open:
// the origin begins, or has been killed.
const journalBegins = "begins"

// A timespan is one in which something was so.
type timespan struct{ from, to time.Time }

func (s timespan) length() time.Duration { return s.to.Sub(s.from) }

// without returns what of a timespan is in none of the others.
func (s timespan) without(others []timespan) (left []timespan) {
	left = []timespan{s}
	for _, o := range others {
		var next []timespan
		for _, l := range left {
			if !o.to.After(l.from) || !o.from.Before(l.to) {
				next = append(next, l)
				continue
			}
			if o.from.After(l.from) {
				next = append(next, timespan{l.from, o.from})
			}
			if o.to.Before(l.to) {
				next = append(next, timespan{o.to, l.to})
			}
		}
		left = next
	}
	return left
}

// An overlap is a time in which the origin had more than one stream of a topic.
type overlap struct {
	timespan
	topic string
	most  int
}

func (o overlap) String() string {
	return fmt.Sprintf("%s had up to %d connections to the origin for %s, until %s",
		o.topic, o.most, o.length().Round(time.Millisecond), o.to.Format("15:04:05.000"))
}

// overlaps reads the journal of an origin. What is open at its end ends now.
func overlaps(journal []byte, now time.Time) (found []overlap, err error) {
	open := make(map[string]*overlap)
	end := func(topic string, at time.Time) {
		if o := open[topic]; o != nil {
			o.to = at
			found = append(found, *o)
			delete(open, topic)
		}
	}
	for line := range bytes.Lines(journal) {
		var nanos int64
		var topic string
		var n int
		if _, err := fmt.Sscan(string(line), &nanos, &topic, &n); err != nil {
			return nil, fmt.Errorf("reading %q: %w", line, err)
		}
		at := time.Unix(0, nanos)
		switch {
		case topic == journalBegins:
			for topic := range open {
				end(topic, at)
			}
		case n < 2:
			end(topic, at)
		case open[topic] == nil:
			open[topic] = &overlap{timespan{from: at}, topic, n}
		default:
			open[topic].most = max(open[topic].most, n)
		}
	}
	for topic := range open {
		end(topic, now)
	}
	slices.SortFunc(found, func(a, b overlap) int { return a.from.Compare(b.from) })
	return found, nil
}

// unexcused returns the overlaps that have lasted for longer than allowed outside of the
// excuses, and the length of the longest that has not.
func unexcused(all []overlap, excuses []timespan, allowed time.Duration) (wrong []overlap, longest time.Duration) {
	for _, o := range all {
		for _, part := range o.without(excuses) {
			if part.length() > allowed {
				wrong = append(wrong, overlap{part, o.topic, o.most})
			} else {
				longest = max(longest, part.length())
			}
		}
	}
	return wrong, longest
}

func TestOverlaps(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	journal := ""
	line := func(s int, topic string, n int) { journal += fmt.Sprintln(at(s).UnixNano(), topic, n) }
	line(0, journalBegins, 0)
	line(1, "/a", 1)
	line(2, "/b", 1)
	line(3, "/a", 2)
	line(5, "/a", 3)
	line(8, "/a", 2)
	line(20, "/a", 1)
	line(30, "/b", 2)
	line(40, journalBegins, 0)
	line(41, "/a", 1)
	line(50, "/b", 2)
	all, err := overlaps([]byte(journal), at(60))
	if err != nil {
		t.Fatal(err)
	}
	want := []overlap{
		{timespan{at(3), at(20)}, "/a", 3},
		{timespan{at(30), at(40)}, "/b", 2},
		{timespan{at(50), at(60)}, "/b", 2},
	}
	if !slices.Equal(all, want) {
		t.Fatalf("the overlaps are %v, want %v", all, want)
	}
	wrong, longest := unexcused(all, []timespan{{at(0), at(6)}, {at(10), at(17)}, {at(39), at(55)}}, 5*time.Second)
	if want := []overlap{{timespan{at(30), at(39)}, "/b", 2}}; !slices.Equal(wrong, want) || longest != 5*time.Second {
		t.Errorf("without an excuse are %v, want %v; the longest of the others has %s", wrong, want, longest)
	}
}

// note writes into the journal that the origin has been killed.
func (o *origin) note() error {
	if o.config.Journal == "" {
		return nil
	}
	file, err := os.OpenFile(o.config.Journal, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, time.Now().UnixNano(), journalBegins, 0)
	return err
}
