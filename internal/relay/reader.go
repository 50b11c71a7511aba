package relay

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// A Reader is the seam to the right: what one client of a topic is told, in order. A
// carrier asks it for the next Step, does that, and says that it has:
//
//	adm := r.Admit(ctx)      // wait until the client may be told anything
//	r.Enter(carrier)
//	write(r.Begin())
//	for {
//		switch step := r.Next(); step.Kind {
//		case Send: write(step.Words, step.Bytes); r.Sent(step)
//		case Wait: wait for step.Wake or step.Timer
//		case End:  write(r.Farewell(step.Reason)) unless the reason is a failure
//		}
//	}
//	r.Ended(reason)
//	r.Close()                // in any case, also if it was not admitted
//
// One goroutine calls its methods. A carrier that can go on with nothing but a log and a
// cursor asks for HandOver, where it would wait: the client is a Subscriber alone then,
// until the carrier calls its Leave.
type Reader struct {
	*Subscriber

	gate    Gate
	patient bool
	carrier Carrier

	log    *hub.Log   // that it reads: the topic's or a catch-up's
	cursor hub.Cursor // of the next entry there
	beat   uint64     // heartbeats seen there

	wake <-chan struct{} // that it waits on, or waited on last

	// joined is where in the topic's log it begins if nothing better is found.
	joined hub.Cursor

	phase      life[phase, phaseEvent]
	resumeWith Claim     // the id that the client brought, or has come to
	leg        leg       // the catch-up that has ended with that id, if one has
	catchup    *catchup  // while it is phaseQueued or phaseFetching
	spoken     time.Time // when it was last written to, while it waits
	retry      []byte    // to be written in front of the first event: alone, it would be a block without data

	ending *Ending // the last seen
	endAt  time.Time
	reason EndReason   // why, at endAt
	timer  *time.Timer // makes Next worth calling again

	batches uint64 // delivered

	// Written by the reader alone, read by whoever asks (see Subscriber).
	events, bytes atomic.Uint64 // delivered
	start         atomic.Uint64 // the cursor at which there were no events yet
	deleted       atomic.Bool   // by an administrator, who also fires the timer
}

// A Carrier brings to a client what its reader tells it to.
type Carrier interface {
	// Hurry bounds the write that is under way, and those to come: the process exits.
	Hurry()

	// Cut ends the write that is under way, and those to come.
	Cut()
}

// A Step is what a carrier is to do next.
type Step struct {
	Kind StepKind

	// Words and Bytes are what is to be sent.
	Words, Bytes []byte

	// Wake and Timer tell when it is worth asking again.
	Wake  <-chan struct{}
	Timer <-chan time.Time

	// Reason is why the stream is over.
	Reason EndReason

	at     hub.Cursor
	batch  hub.Batch
	size   int  // of Bytes, as it is counted
	shared bool // Bytes are of the topic's log, or a heartbeat of it
}

// A StepKind tells what a Step is.
type StepKind int

const (
	Send StepKind = iota
	Wait
	End
)

// newReader returns the reader of a subscriber that has joined t where its log was at a
// cursor.
func newReader(t *Topic, v *Visit, joined hub.Cursor) *Reader {
	s := &Reader{
		Subscriber: newSubscriber(t, v.Address, v.Audience),
		gate:       v.Gate,
		patient:    v.Patient,
		timer:      time.NewTimer(time.Hour),
		log:        t.log,
		joined:     joined,
		resumeWith: v.Claim,
	}
	s.bystander = v.Claim.ID == "" || v.Claim.ID != t.opener.ID
	s.reader.Store(s)
	return s
}

// Enter begins to serve the client, which was admitted, over a carrier.
func (s *Reader) Enter(c Carrier) {
	s.carrier = c
	s.on(phaseEnters)
	s.topic.roster.enter(s.Subscriber)
	if d := s.topic.relay.cfg.StreamTimeout; d > 0 {
		s.endWithin(d-d/5, d/5, EndTimeout)
	}
}

// Ended says how the stream has ended, unless the client was handed over.
func (s *Reader) Ended(reason EndReason) { s.ended(reason, s.events.Load(), s.bytes.Load()) }

// IsExiting reports whether the process exits: whatever is written now is bounded.
func (s *Reader) IsExiting() bool {
	e := s.topic.ending.Load()
	return e != nil && e.Reason == EndExiting
}

// waits reports whether s may have to wait for a catch-up.
func (s *Reader) waits() bool { return s.phase.now().waits() }

// read returns what the log has at the cursor.
func (s *Reader) read() hub.Batch {
	batch := s.log.Read(s.cursor, s.wake)
	if batch.Wake != nil {
		s.wake = batch.Wake
	}
	if batch.Gap {
		batch.Bytes = s.words().Gap
	}
	return batch
}

// follow makes s read the topic's log, or that of its catch-up, from a cursor on.
func (s *Reader) follow(log *hub.Log, cursor hub.Cursor) {
	s.log, s.cursor = log, cursor
	s.start.Store(uint64(s.cursor) - s.events.Load()) // may wrap around
	if log == s.topic.log {
		s.on(phaseSettles)
	} else {
		s.on(phaseFetches)
	}
	s.beat = log.Look(cursor).Beat
}

// took accounts for a batch that was sent.
func (s *Reader) took(batch hub.Batch, size int) {
	s.beat = batch.Beat
	n := uint64(batch.Next - s.cursor)
	if n == 0 {
		return
	}
	s.cursor = batch.Next
	s.events.Add(n)
	s.bytes.Add(uint64(size)) //nolint:gosec // a length
	stats := s.topic.relay.stats
	stats.Delivered.Add(n)
	stats.DeliveredBytes.Add(uint64(size)) //nolint:gosec // a length
	s.sampleDelivery(batch)
}

// endWithin makes the stream end at a random moment within spread after base,
// unless it is to end earlier anyway.
func (s *Reader) endWithin(base, spread time.Duration, reason EndReason) {
	if spread > 0 {
		base += rand.N(spread)
	}
	at := time.Now().Add(base)
	if s.endAt.IsZero() || at.Before(s.endAt) {
		s.endAt, s.reason = at, reason
	}
}

func (s *Reader) isDue() bool {
	return !s.endAt.IsZero() && !time.Now().Before(s.endAt)
}

// DeliverySample is how many batches of a subscriber are told of one.
const DeliverySample = 16

// sampleDelivery tells how long it took to deliver a batch that was just written. What
// was there before the subscriber came is replayed, and late by its own wish.
func (s *Reader) sampleDelivery(batch hub.Batch) {
	s.batches++
	// Counting from different numbers, not all subscribers of a topic tell of the same
	// event.
	if (s.batches+s.number)%DeliverySample == 0 && !batch.Since.Before(s.started) {
		s.topic.relay.observer.Delivered(time.Since(batch.Since))
	}
}

// position returns the cursor of s, if it reads the topic's log. As each event takes it one
// further, others need to know no more than from where it reads.
func (s *Reader) position() (cursor uint64, ok bool) {
	return s.start.Load() + s.events.Load(), s.phase.is(phaseLive)
}

// on changes the phase of s, and counts those that are unsettled. It returns the phase
// before.
func (s *Reader) on(e phaseEvent) (from phase) {
	from, to := s.phase.on(e, &phases, s.topic.misfit)
	if n := count(to.isUnsettled()) - count(from.isUnsettled()); n != 0 {
		s.topic.unsettled.Add(n)
	}
	return from
}
