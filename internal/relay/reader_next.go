package relay

import (
	"errors"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

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
