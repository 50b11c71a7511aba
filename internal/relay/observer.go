package relay

import "time"

// An Observer is told what happens in a relay. Its methods are called with no lock held, by
// the goroutines that what happens concerns, several at once; Connected, Lost and Closed of
// one topic come one after another. They must not block. Counters are in Stats.
type Observer interface {
	// Connected tells that the shared connection of a topic was accepted.
	Connected(t *Topic, c Connected)

	// Lost tells that the shared connection of a topic has ended, or could not be made,
	// and is tried again.
	Lost(t *Topic, l Lost)

	// Closed tells that a topic is not connected again.
	Closed(t *Topic, c Closed)

	// Stayed tells that a topic that was to go on elsewhere was refused there.
	Stayed(t *Topic, out *Outcome)

	// Drained tells that the readers of a topic are ended as they are led elsewhere now.
	Drained(t *Topic, out *Outcome)

	// Refused tells that those who wait for the first answer get a no, before anybody can
	// open another topic in the place of this one.
	Refused(t *Topic, out *Outcome)

	// Restricted tells, as early, that the answer says itself that it is not for all.
	Restricted(t *Topic, out *Outcome)

	// CaughtUp tells that a catch-up has ended.
	CaughtUp(t *Topic, c CaughtUp)

	// Dropped tells of logs of catch-ups that were dropped, as their readers are too slow
	// for all of them to be kept: how many, and the bound in bytes.
	Dropped(catchups uint64, bound int)

	// Yielded tells that a topic with readers has made room for another.
	Yielded(t *Topic)

	// Left tells that a subscriber has ended.
	Left(s *Subscriber, l Left)

	// Misfit tells that a state of a topic, of one of its catch-ups or of one of its readers was
	// to change in a way that is impossible, and has stayed as it was; how often that has
	// happened since Misfit told of this kind last; and the topic of the last time.
	Misfit(t *Topic, m Misfit, times uint64)

	// Delivered is told of some deliveries how long they took.
	Delivered(d time.Duration)

	// Retired tells that the relay is over, and has no topic and no connection.
	Retired()
}

// Connected is how a topic came to be connected.
type Connected struct {
	Address     string        // of the origin, if it is known
	LastEventID string        // that the origin was asked with
	Attempt     int           // from 1
	Without     time.Duration // for how long the topic had no connection
	Reloaded    bool          // another connection was replaced
}

// Lost is how a topic came to be without its connection.
type Lost struct {
	Outcome  *Outcome
	Accepted bool          // there was an event stream
	For      time.Duration // that the connection, or the state without one, has lasted
	Outage   time.Duration // since when attempts have failed in a row
	Attempts int           // that have failed in a row
	Delay    time.Duration // until the next one
	Events   int           // that the connection has brought
}

// Clean reports whether the origin has ended the stream as it should.
func (l *Lost) Clean() bool { return l.Outcome.Err == nil && l.Outcome.Verdict == Stream }

// Closed is how a topic came to its end.
type Closed struct {
	Reason  string
	Address string
	Status  int           // of the last answer, or 0
	For     time.Duration // that the last state has lasted
	Quiet   bool          // nobody but those who waited has noticed
}

// CaughtUp is what a catch-up has come to.
type CaughtUp struct {
	LastEventID string
	Events      int
	Resumed     bool
	Reason      error
	Took        time.Duration

	// Missing and Jumping are the cases that have decided whether it was spliced, if it
	// has come to that (see splice.go).
	Missing, Jumping string
}

// Left is what a subscriber has got.
type Left struct {
	Reason        EndReason
	Events, Bytes uint64
}
