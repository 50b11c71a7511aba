package relay

import (
	"errors"
	"math/rand/v2"
	"strconv"
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

// Close is called last, also for a client that was not admitted. It leaves the topic
// unless the client was handed over.
func (s *Reader) Close() {
	was := s.on(phaseCloses)
	s.leaveCatchup()
	s.timer.Stop()
	switch was {
	case phaseCarried, phaseClosed:
		return
	case phaseJoined:
	default:
		s.topic.roster.leave(s.Subscriber)
	}
	s.topic.relay.leave(s.topic, s.address)
}

// Next returns what is to be done next.
func (s *Reader) Next() Step {
	t := s.topic
	for {
		if e := t.ending.Load(); e != s.ending {
			s.ending = e
			s.endWithin(0, e.Over, e.Reason)
		}
		if s.deleted.Load() {
			s.endWithin(0, 0, EndDeleted)
		}
		due := s.isDue()
		if due && (s.ending == nil || !s.ending.Drain) {
			return Step{Kind: End, Reason: s.reason}
		}

		out, batch := s.next()
		switch {
		case batch.Lagged:
			s.reason = EndSlow
			return Step{Kind: End, Reason: s.reason}
		case len(out) > 0:
			step := Step{Kind: Send, Bytes: out, at: s.cursor, batch: batch, size: len(batch.Bytes)}
			step.shared = s.phase.is(phaseLive) && (batch.Next != s.cursor || batch.Beat != s.beat)
			if batch.Next != s.cursor && !batch.Gap {
				step.Words, s.retry = s.retry, nil
			}
			return step
		case due:
			return Step{Kind: End, Reason: s.reason}
		case t.ending.Load() != s.ending:
			continue // it came before the wake-up to wait for was taken
		}

		if !s.endAt.IsZero() {
			s.timer.Reset(time.Until(s.endAt))
		}
		if s.deleted.Load() {
			continue // it came before the timer was set
		}
		return Step{Kind: Wait, Wake: batch.Wake, Timer: s.timer.C}
	}
}

// Sent says that a step was done.
func (s *Reader) Sent(step Step) {
	if s.waits() {
		s.spoken = time.Now()
	}
	s.took(step.batch, step.size)
}

// Ended says how the stream has ended, unless the client was handed over.
func (s *Reader) Ended(reason EndReason) { s.ended(reason, s.events.Load(), s.bytes.Load()) }

// IsExiting reports whether the process exits: whatever is written now is bounded.
func (s *Reader) IsExiting() bool {
	e := s.topic.ending.Load()
	return e != nil && e.Reason == EndExiting
}

// next returns what is to be sent now, and the batch of the log that it is of.
// If there is nothing to send, the batch tells when to look again.
func (s *Reader) next() ([]byte, hub.Batch) {
	batch := hub.Batch{Next: s.cursor}
	if s.phase.now().isUnsettled() {
		// Look for a change before waiting for one.
		batch.Wake, batch.Beat = s.topic.log.Watch(s.wake)
		s.wake = batch.Wake
		if id, how := s.settle(); how == Gap {
			return s.gapNotice(id)
		}
	}
	if !s.phase.now().isUnsettled() {
		batch = s.read()
	}
	if s.phase.is(phaseFetching) && len(batch.Bytes) == 0 && !batch.Lagged {
		if over, spliced, at, why := s.catchup.result(); over {
			batch = s.read()
			switch {
			case len(batch.Bytes) > 0, batch.Lagged:
			case errors.Is(why, ErrClosing):
				s.comeBack()
				return nil, batch
			case goesOn(why):
				s.comeAgain()
				return s.next()
			default:
				return s.endCatchup(spliced, at)
			}
		}
	}
	if len(batch.Bytes) == 0 && s.isToBeat(&batch) && !batch.Lagged {
		s.topic.relay.stats.Heartbeats.Add(1)
		return s.words().Heartbeat, batch
	}
	return batch.Bytes, batch
}

// isToBeat reports whether s gets a heartbeat: that of the topic, or one of its own, but
// not both at once.
func (s *Reader) isToBeat(batch *hub.Batch) bool {
	if batch.Beat != s.beat && s.waits() && time.Since(s.spoken) < s.topic.relay.cfg.Heartbeat/8 {
		s.beat = batch.Beat
	}
	return batch.Beat != s.beat || s.isLeftOut()
}

// isLeftOut reports whether s needs a heartbeat of its own, because it waits while
// others get events: only a topic that is quiet has a beat for all.
func (s *Reader) isLeftOut() bool {
	if !s.waits() {
		return false
	}
	interval := s.topic.relay.cfg.Heartbeat
	return interval > 0 && time.Since(s.spoken) >= interval
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

// AppendRetryField appends a field that sets the client's reconnection time.
func AppendRetryField(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n')
}

// reconnectionTime is what clients are told: the operator's word, else the
// origin's, else what browsers do by themselves.
func (t *Topic) reconnectionTime() time.Duration {
	if d, said := t.saidRetry(); said {
		return d
	}
	return DefaultRetry
}

// DefaultRetry is what an EventSource is told as its reconnection time if nobody has
// named one: about what browsers do by themselves (WHATWG HTML, section 9.2.2, leaves it
// to them, "probably in the region of a few seconds").
const DefaultRetry = 3 * time.Second

// saidRetry returns the reconnection time that the operator or the origin has named.
func (t *Topic) saidRetry() (d time.Duration, said bool) {
	if d = t.relay.cfg.Retry; d > 0 {
		return d, true
	}
	d = time.Duration(t.follower.retry.Load())
	return d, d >= 0
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
