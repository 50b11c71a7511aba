package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A Source is where the events of one topic come from: the seam to the left.
type Source interface {
	// Follow asks for the events after a position, gives them to the sink, and returns
	// when there are no more of them, or ctx has ended and the source was given some
	// time to notice. It is called for the shared connection of a topic and for each of
	// its catch-ups, several at once. It must not touch the sink after it has returned,
	// even if a request still runs. If ctx was cancelled with ErrIdle, it may go on until
	// the topic ends: another request would find the origin as silent.
	Follow(ctx context.Context, from Resumption, sink Sink) Outcome

	// Abandoned is how many requests Follow has left behind that go on at the origin.
	// Topic.SourceEnded is to be called when it gets less. It is called with a lock held,
	// and takes none.
	Abandoned() int

	// Moved reports whether the shared connection of the topic is not where a new one
	// would begin, and goes on there. Topic.Reroute makes the topic look.
	Moved() bool

	// LeftBehind reports whether the topic's readers were not led where a new
	// connection would begin: a no from there is for others.
	LeftBehind() bool
}

// A Sink takes what a Source brings, from one goroutine at a time. It never blocks.
type Sink interface {
	// Shared says whether this is the connection that feeds the topic's log.
	Shared() bool

	// Heard is called for every sign of life.
	Heard()

	// Accept is called once the source has turned out to be an event stream, before
	// anything else but Heard and what the source remembers: events of an earlier connection
	// are for those who resume, and admit nobody. What it returns, unless it is nil, is to be called
	// when no lock is held.
	Accept(o Opening) (tell func())

	// Event takes an event, whose bytes are the source's again when it returns.
	Event(e *sse.Event)

	// Note takes what is known of the origin besides events, in its place between them. It is
	// for a source that says itself what is news (see Opening.News).
	Note(n Note)

	// Decided is called when the first event that has data has shown whether it begins
	// a session.
	Decided(session bool)

	// Flush is called when the source has sent all it has for now.
	Flush()
}

// An Opening is what is known of a source that has begun.
type Opening struct {
	// Header is what of its header every reader gets.
	Header map[string][]string

	// Address is that of the origin, if it is known.
	Address string

	// Gap says that events are missing before what comes next, whatever the source was
	// asked with. A source that does not know leaves that to the topic.
	Gap bool

	// News says that the source gives no events to the sink that the topic has had already,
	// unless the origin has begun its stream anew: it has sifted them (see Topic.Sieve), and
	// tells by Note what it has found. Otherwise, the topic sifts them.
	News bool
}

// A Note is what a source that sifts the events itself tells of the origin.
type Note struct {
	// Opened says that a connection to the origin has begun here. Without it, a call of
	// Follow begins somewhere in the middle of one.
	Opened bool

	// Began is what the connection has begun with, besides its greeting, or nil.
	Began *RunStart

	// Run says that what comes next begins the origin's stream anew.
	Run bool

	// Gap says that events are missing before what comes next. What comes before Accept has
	// no other way to say so.
	Gap bool
}

// An Outcome is how a call of Follow ended.
type Outcome struct {
	Verdict Verdict

	// Status, Header and Body are an answer that is no event stream, as far as it is
	// shared.
	Status int
	Header map[string][]string
	Body   []byte

	// Restriction is what the answer says against sharing it.
	Restriction Restriction

	// Front says why the site has not led the request to the source.
	Front string

	// Unhandled says that nothing stands behind the source.
	Unhandled bool

	// Elsewhere says that the source has come to lead elsewhere than it led the readers.
	Elsewhere bool

	// FallsBack says that an answer of their own is to be had by those who wait.
	FallsBack bool

	// Again says that the source has come to where another connection begins, and is to be
	// followed again at once. It has nothing else to say.
	Again bool

	Err        error         // why it ended, nil for a clean end
	Address    string        // of the origin, if it is known
	RetryAfter time.Duration // what the origin asked for
}

// A Verdict is what an Outcome means for the topic.
type Verdict int

const (
	// Unavailable: no answer, a broken one, or one that says to try again. The origin is
	// asked for ever.
	Unavailable Verdict = iota
	// Stream: an event stream.
	Stream
	// Gone: 204, EventSource's polite stop.
	Gone
	// NotStream: a success of another type.
	NotStream
	// No: the origin refuses.
	No
	// Elsewhere: the site does not lead strangers to the handler.
	Elsewhere
	// Personal: an event stream that is not for all readers of its topic.
	Personal
)

func (v Verdict) String() string {
	return [...]string{"unavailable", "event stream", "gone", "not an event stream", "refused", "strangers are led elsewhere", "personal"}[v]
}

// A Restriction is what an answer of the origin says itself against sharing it
// with all clients of its topic. The zero value is none.
type Restriction struct {
	// Pass says that the answer is for one client, and why.
	Pass string

	// Differs is the item of Vary for which requests pass, if there is one.
	Differs string

	// Vary has the headers by which the answer varies and which the key has not:
	// the clients join again with these in their key.
	Vary []string
}

// Applies reports whether there is one.
func (r *Restriction) Applies() bool { return r.Pass != "" || len(r.Vary) > 0 }

// IsPersonal reports whether an outcome is not for all who wait for it. A no of a guarded
// source is for none of them anyway.
func (o *Outcome) IsPersonal(guarded bool) bool {
	switch o.Verdict {
	case Personal:
		return true
	case No, Gone:
		return !guarded && o.Restriction.Applies()
	default:
		return false
	}
}

// Explain says why a connection has ended: who reads this looks for what has happened.
func (o *Outcome) Explain() string {
	switch {
	case o.Err != nil:
		return o.Err.Error()
	case o.Verdict == Stream:
		return "the origin has ended the stream"
	}
	return fmt.Sprintf("the origin has answered with status %d: %s", o.Status, o.Verdict)
}

// blamesID reports whether the id that a request carried may be the reason for
// its answer. Gateways and balancers speak for an origin that is away, and that
// is nobody's fault.
func (o *Outcome) blamesID() bool {
	if o.Verdict == Elsewhere {
		return false // the site does not see the id
	}
	return o.Verdict != Stream && o.Verdict != Unavailable || o.Status == internalError
}

// internalError is the status of an origin that has failed, rather than of what speaks
// for it (RFC 9110, section 15.6.1).
const internalError = 500

// Why a context of Follow was cancelled, and why an Outcome has no answer.
var (
	// ErrIdle says that the source was silent for longer than Config.IdleTimeout.
	ErrIdle = errors.New("the origin was silent for longer than idle_timeout")

	// ErrClosing says that there is nothing left to ask, as the topic or the relay ends.
	ErrClosing = errors.New("the topic is closing")

	errSilentToID = errors.New("the origin has sent nothing for the last event id that a client brought, while others wait")
	errRerouted   = errors.New("the topic goes on through the new configuration")
)
