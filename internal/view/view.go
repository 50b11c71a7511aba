// Package view makes what operators get to see of topics and their subscribers, in JSON.
package view

import (
	"slices"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// Topics returns the topics of an id, or all for an empty one: those that
// newcomers would join before those that are ending, and by name. There are
// several of an id while one takes over from the other, and if handlers with
// different settings share the same thing.
func Topics(relays []*relay.Relay, id string) []*relay.Topic {
	var current, ending []*relay.Topic
	for _, r := range relays {
		joined, left := r.Topics()
		current, ending = append(current, joined...), append(ending, left...)
	}
	for _, topics := range []*[]*relay.Topic{&current, &ending} {
		*topics = slices.DeleteFunc(*topics, func(t *relay.Topic) bool { return id != "" && id != TopicID(t) })
		slices.SortFunc(*topics, func(a, b *relay.Topic) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return append(current, ending...)
}

// TopicID returns the end of a topic's name, which tells it from others at the same
// place.
func TopicID(t *relay.Topic) string {
	name := t.Name()
	return name[strings.LastIndexByte(name, ' ')+1:]
}

// A Topic is what an administrator sees of a topic. Times that have passed
// are in seconds.
type Topic struct {
	// ID is the end of Name.
	ID   string `json:"id"`
	Name string `json:"name"`

	// State is one of opening, connected, reconnecting, lingering (without
	// subscribers), refused (the origin has said no) and ending; Since is when
	// it, or the connection beneath it, began.
	State relay.State `json:"state"`
	Since time.Time   `json:"since"`

	// Subscribers are those that are served, and Waiting those that wait for
	// the origin's first answer.
	Subscribers int `json:"subscribers"`
	Waiting     int `json:"waiting"`

	LastEventID string   `json:"last_event_id"`
	Log         Log      `json:"log"`
	Upstream    Upstream `json:"upstream"`

	// Fleet is the part of this node in the topic; absent if the topic is in no fleet.
	Fleet *fleet.Part `json:"fleet,omitempty"`

	// Received counts what was taken into the log, and Delivered what was
	// written to subscribers, one event to two of them being two.
	Received        uint64  `json:"received"`
	Delivered       uint64  `json:"delivered"`
	DeliveredBytes  uint64  `json:"delivered_bytes"`
	EventsPerSecond float64 `json:"events_per_second"`
}

type Log struct {
	Events    int     `json:"events"`
	Bytes     int     `json:"bytes"`
	OldestAge float64 `json:"oldest_age"`
}

type Upstream struct {
	Address string `json:"address,omitempty"`

	// Attempts are those that have failed in a row, and Next is when the origin
	// is asked again.
	Attempts  int        `json:"attempts"`
	Next      *time.Time `json:"next,omitempty"`
	LastError string     `json:"last_error,omitempty"`
	Failed    *time.Time `json:"failed,omitempty"` // when that was
}

func Of(t *relay.Topic) Topic {
	seen := t.Snapshot()
	v := Topic{
		ID:              TopicID(t),
		Name:            t.Name(),
		State:           seen.State,
		Since:           seen.Since,
		Subscribers:     seen.Subscribers,
		Waiting:         seen.Waiting,
		LastEventID:     seen.Log.ID,
		Log:             Log{Events: seen.Log.Entries, Bytes: seen.Log.Bytes},
		Received:        seen.Log.Published,
		Delivered:       seen.Delivered,
		DeliveredBytes:  seen.DeliveredBytes,
		EventsPerSecond: seen.Log.Rate,
		Upstream: Upstream{
			Address:   seen.Upstream.Address,
			Attempts:  seen.Upstream.Attempts,
			LastError: seen.Upstream.LastError,
		},
	}
	if m, ok := t.Source().(member); ok {
		v.Fleet = m.Part()
	}
	if seen.Log.Entries > 0 {
		v.Log.OldestAge = time.Since(seen.Log.Oldest).Seconds()
	}
	if next := seen.Upstream.Next; time.Now().Before(next) {
		v.Upstream.Next = &next
	}
	if failed := seen.Upstream.Failed; !failed.IsZero() {
		v.Upstream.Failed = &failed
	}
	return v
}

// A member is a source of a topic that may be in a fleet.
type member interface {
	Part() *fleet.Part // nil if it is in none
}

// A Subscriber is what an administrator sees of a subscriber.
type Subscriber struct {
	Number  uint64    `json:"number"`
	Since   time.Time `json:"since"`
	Outcome string    `json:"outcome"`

	// Direct says that its connection was handed over to direct delivery.
	Direct bool `json:"direct"`

	// Lag is how many events of the topic are yet to be delivered; absent while
	// the subscriber gets what it has missed from a catch-up.
	Lag    *uint64 `json:"lag,omitempty"`
	Events uint64  `json:"events"`
	Bytes  uint64  `json:"bytes"`
}

func OfSubscriber(s relay.SubscriberSnapshot) Subscriber {
	v := Subscriber{
		Number:  s.Number,
		Since:   s.Started,
		Outcome: s.Outcome.String(),
		Direct:  s.Carried,
		Events:  s.Events,
		Bytes:   s.Bytes,
	}
	if s.Known {
		v.Lag = &s.Lag
	}
	return v
}
