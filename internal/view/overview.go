package view

import (
	"cmp"
	"slices"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An Overview is all that the page shows of the topics at one moment.
type Overview struct {
	Time            int64   `json:"time"` // Unix, in milliseconds
	TopicCount      int     `json:"topic_count"`
	Subscribers     int     `json:"subscribers"`
	EventsPerSecond float64 `json:"events_per_second"`

	// Down counts the topics that have subscribers, but no connection.
	Down int `json:"down"`

	// Topics are those with the most subscribers.
	Topics []Topic `json:"topics"`
}

// MaxTopics bounds the size of an overview. The admin API lists all.
const MaxTopics = 100

// A Watcher remembers what it has seen last, so that the rates that it tells
// are those of the time in between. A line over time that each second shows the
// average of the last ten would show neither a burst nor its end.
type Watcher struct {
	at       time.Time
	received map[*relay.Topic]uint64
}

// Look returns what is to be seen of topics now.
func (w *Watcher) Look(now time.Time, topics []*relay.Topic) Overview {
	received := make(map[*relay.Topic]uint64, len(topics))
	all := Overview{Time: now.UnixMilli(), Topics: make([]Topic, 0, len(topics))}
	for _, t := range topics {
		v := Of(t)
		received[t] = v.Received
		if before, ok := w.received[t]; ok {
			v.EventsPerSecond = float64(v.Received-before) / max(now.Sub(w.at).Seconds(), 0.001)
		}
		all.TopicCount++
		all.Subscribers += v.Subscribers + v.Waiting
		all.EventsPerSecond += v.EventsPerSecond
		if v.State == relay.StateReconnecting || v.State == relay.StateOpening && v.Upstream.Attempts > 0 {
			all.Down++
		}
		all.Topics = append(all.Topics, v)
	}
	w.at, w.received = now, received
	if len(all.Topics) > MaxTopics {
		slices.SortStableFunc(all.Topics, func(a, b Topic) int {
			return cmp.Compare(b.Subscribers+b.Waiting, a.Subscribers+a.Waiting)
		})
		all.Topics = all.Topics[:MaxTopics]
	}
	return all
}
