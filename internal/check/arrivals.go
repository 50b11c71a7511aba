package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

const stripWidth = 60

// strip draws when events came, from left to right: the higher, the more of them
// at once. A heartbeat alone is the lowest, and nothing a dot.
func strip(o *observation) string {
	total := o.over.Sub(o.begun)
	if total <= 0 || len(o.batches) == 0 {
		return ""
	}
	var events [stripWidth]int
	var bytes [stripWidth]bool
	for _, b := range o.batches {
		i := min(int(int64(stripWidth)*int64(b.from.Sub(o.begun))/int64(total)), stripWidth-1)
		events[i] += b.events
		bytes[i] = true
	}
	var s strings.Builder
	for i, n := range events {
		switch {
		case n > 0:
			height := 1 // of ▁▂▃▄▅▆▇█, from ▂ on, each twice as many as the one before
			for ; n > 1 && height < 7; n = (n + 1) / 2 {
				height++
			}
			s.WriteRune([]rune("▁▂▃▄▅▆▇█")[height])
		case bytes[i]:
			s.WriteRune('▁')
		default:
			s.WriteRune('·')
		}
	}
	return s.String()
}

// gapsOf returns the times between arrivals of events, in order of their length.
func gapsOf(batches []batch) []time.Duration {
	var all []time.Duration
	var last time.Time
	for _, b := range batches {
		if b.events == 0 {
			continue
		}
		if !last.IsZero() {
			all = append(all, b.from.Sub(last))
		}
		last = b.from
	}
	slices.Sort(all)
	return all
}

// gaps says how far apart batches of events were.
func gaps(batches []batch) string {
	all := gapsOf(batches)
	switch len(all) {
	case 0:
		return "all in the same moment"
	case 1:
		return terminal.Duration(all[0]) + " apart"
	}
	return fmt.Sprintf("%s to %s apart, mostly %s", terminal.Duration(all[0]), terminal.Duration(all[len(all)-1]), terminal.Duration(all[len(all)/2]))
}
