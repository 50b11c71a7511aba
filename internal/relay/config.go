package relay

import (
	"math"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// AllEvents is the Config.FirstEvents of readers that begin with all that there is.
const AllEvents = math.MaxInt

// Config is the settings of a relay. All are set: it has no defaults of its own.
type Config struct {
	// Guarded says that the source tells who may share a topic (see Visit.Gate), and that
	// a topic is new until it has shown that it begins no session.
	Guarded bool

	// Heartbeat is how long a topic is quiet before its readers get a heartbeat. Negative:
	// they get none.
	Heartbeat time.Duration

	// Words are what readers are told besides events, by audience.
	Words []Words

	// History bounds what a topic's log remembers.
	History hub.Limits

	// FirstEvents is how many events a reader without a position begins with.
	FirstEvents int

	// The greeting is the first GreetingEvents of each connection, or the newest event of
	// GreetingType. Both zero: there is none.
	GreetingEvents int
	GreetingType   string

	// Shared says that other nodes share the connections: no client's id opens one.
	Shared bool

	// AssignIDs gives ids to events that have none.
	AssignIDs bool

	// Catchups is how many connections of a topic may fetch what its log has no more.
	// Negative: none. CatchupTimeout is how long their first event may take.
	Catchups       int
	CatchupTimeout time.Duration

	// BacklogBytes is what catch-ups that are over, and still read, hold together; at
	// least twice what one can hold.
	BacklogBytes int

	// Compress is how topics are compressed for clients that accept gzip; nil: not at all.
	// CompressFrom is how many subscribers a topic has, the newcomer among them, from which
	// on newcomers get it compressed.
	Compress     *gzip.Settings
	CompressFrom int

	// Retry is the reconnection time that the operator has named; 0: the origin's word holds.
	Retry time.Duration

	// Linger is how long a topic without readers is kept; negative: not at all.
	// LingerTopics is how many are.
	Linger       time.Duration
	LingerTopics int

	// Wait is how long a reader waits for the origin's first answer, and Reject that it is
	// turned away then, and not held.
	Wait   time.Duration
	Reject bool

	// The origin is asked again after ReconnectMin, and at most ReconnectMax.
	ReconnectMin, ReconnectMax time.Duration

	// IdleTimeout is how long the origin may be silent; 0: without bound.
	IdleTimeout time.Duration

	// CloseOnEnd ends the readers when the origin has ended its stream.
	CloseOnEnd bool

	// MaxEventSize is that of the largest event, in bytes.
	MaxEventSize int64

	// Limits bound topics and subscribers.
	Limits quota.Limits

	// StreamTimeout is how long a reader may stay; 0: without bound.
	StreamTimeout time.Duration

	// Spread is over how long many readers end that end at once.
	Spread time.Duration
}

// Words are what an audience is told besides events.
type Words struct {
	Heartbeat, Gap []byte

	// Primer says that a stream begins with a block of its own, and may end with one.
	Primer bool

	// Position and GapPosition, if set, make an event of the position, alone and at a
	// gap: lines that stand behind its id. Otherwise it is a block without data.
	Position, GapPosition []byte

	// Retry says that the reconnection time stands in front of the first event if there
	// is no primer.
	Retry bool
}
