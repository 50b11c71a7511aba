package relay

import (
	"time"
)

// refuse gives those who wait for the first answer the origin's no. It does nothing and
// reports false if subscribers were admitted before, whom a no does not end at once.
func (t *Topic) refuse(out *Outcome) bool {
	t.mu.Lock()
	if t.admitted || !t.link.is(linkOpening) {
		t.mu.Unlock()
		return false
	}
	if out.IsPersonal(t.relay.cfg.Guarded) {
		t.mu.Unlock()
		t.restrict(out)
		return true
	}
	t.takeNo(out)
	t.mu.Unlock()

	t.relay.observer.Refused(t, out)
	switch out.Verdict {
	case Elsewhere, NotStream:
		t.relay.detach(t, standingDetaches)
	default:
		t.relay.sortOutRefused(t)
		time.AfterFunc(RefusalMemory, func() { t.relay.detach(t, standingDetaches) })
	}
	return true
}

// restrict makes the clients of t pass or join again, and ends those that were
// accepted.
func (t *Topic) restrict(out *Outcome) {
	t.relay.observer.Restricted(t, out)
	t.relay.detach(t, standingDetaches) // before anybody joins again

	t.mu.Lock()
	t.takeNo(out)
	admitted, trust := t.admitted, t.trust.now()
	t.mu.Unlock()
	if !admitted {
		return
	}
	e := Ending{Reason: EndPersonal}
	if trust == trustShown || trust == trustRevoked {
		// They have a stream to lose: they need not hurry, nor come back at once.
		e.Over = t.relay.cfg.Spread
	}
	t.end(e)
}

// takeNo makes out the answer to those who wait. t.mu must be held.
func (t *Topic) takeNo(out *Outcome) {
	t.refusal = out
	t.linkOn(linkRefuses)
	t.signal()
}

// decide is called when the first event of a connection has told whether it
// begins a session.
func (t *Topic) decide(session bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if session {
		t.trustOn(trustSession)
	} else {
		t.trustOn(trustEventful)
	}
	t.signal()
}

// HandshakeTime is how long the clients of a new topic of a guarded relay wait
// for the first event, which tells whether it begins a session.
const HandshakeTime = 300 * time.Millisecond

// trustSilent trusts a stream that has not begun with an event.
func (t *Topic) trustSilent() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trust.is(trustPending) { // else an event has come at the same moment
		t.trustOn(trustSilence)
		t.signal()
	}
}

// hasAdmitted reports whether clients were accepted, whom a no does not end at once.
func (t *Topic) hasAdmitted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.admitted
}

// refused returns the origin's no to those who wait for its first answer, or nil.
func (t *Topic) refused() *Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusal
}
