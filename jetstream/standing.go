package jetstream

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// What a node knows of the connection to the origin, which it may not have itself.

// inquire asks the holder whether there is a connection to the origin, if the stream has
// nothing any more that says so.
func (f *following) inquire() {
	if f.told || f.accepted {
		return
	}
	wait := f.fleet.store.settings.Lease / 2
	if quiet := time.Since(f.asked); quiet < wait {
		f.retry = time.After(wait - quiet)
		return
	}
	f.asked, f.retry = time.Now(), time.After(wait)
	m := message{kind: kindAsked, index: firstIndex, part: 1, parts: 1}
	if err := f.fleet.store.conn.PublishMsg(m.encode(f.subject)); err != nil {
		f.fleet.store.notice("asking the holder of the lease", f.subject, err)
	}
}

// end takes the outcome of the connection to the origin.
func (f *following) end(m *message) (out relay.Outcome, over bool, err error) {
	f.open, f.told = nil, true
	if f.lead != nil && f.lead.ready && f.lead.inner != nil && !f.lead.isAsking() {
		out = f.lead.inner.outcome
		f.lead.inner = nil
		f.hasEnded(&out)
		if out.Verdict == relay.Personal && f.accepted {
			f.sink.Decided(true)
		}
		f.concede(&out)
		return out, true, nil
	}
	if out, err = decodeOutcome(m.body); err != nil {
		return out, false, err
	}
	f.hasEnded(&out)
	if out.Verdict == relay.Personal && f.accepted {
		f.sink.Decided(true)
	}
	if !f.caughtUp {
		f.ended = &out
		return relay.Outcome{}, false, nil
	}
	return out, true, nil
}

// hasEnded notes how the origin has ended its last stream.
func (s *source) hasEnded(out *relay.Outcome) {
	if out.Verdict == relay.Stream {
		s.endedCleanly = out.Err == nil
	}
}

// concede leaves the lease to others if this node cannot reach the origin: another may.
func (f *following) concede(out *relay.Outcome) {
	if out.Verdict == relay.Unavailable && !f.accepted {
		f.lead.farewell()
		f.abdicate(errLeaseOver)
		f.contest.leave(f.fleet.store.settings.Lease / 4)
	}
}

// accept tells the topic that the origin has answered.
func (f *following) accept() {
	if f.open == nil || f.accepted {
		return
	}
	f.accepted = true
	o := relay.Opening{Header: f.open.Header, Address: f.open.Address, News: true}
	if !f.mayBridge() {
		o.Gap, f.gap = f.gap, false
	}
	if tell := f.sink.Accept(o); tell != nil {
		tell()
	}
}
