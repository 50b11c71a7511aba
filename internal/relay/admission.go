package relay

import (
	"context"
	"time"
)

// GatePatience is how long a gate may take to know whether a client may share. The client
// has come through the same front as the request that the source makes, so it would not
// wait without us.
const GatePatience = 2 * time.Second

// An Admission is what a client that has joined a topic gets to hear: one of these.
type Admission struct {
	Header   map[string][]string // of the origin's answer: it is admitted
	Refusal  *Outcome            // the origin's no
	Rejected Rejection
	Barred   error // what the gate has returned
	Gone     bool  // the client did not wait

	// Drained says, with RejectEnding, that the topic is over because its clients are led
	// elsewhere now.
	Drained bool
}

// Admit waits until it is known what a client gets. It is called once, first.
func (s *Reader) Admit(ctx context.Context) Admission {
	t := s.topic
	cfg := &t.relay.cfg
	timer := time.NewTimer(cfg.Wait)
	defer timer.Stop()
	front := time.NewTimer(min(cfg.Wait, GatePatience))
	defer front.Stop()
	expired, unled := false, false
	for {
		changed := t.change()
		adm, known := s.look(expired, unled)
		if known {
			return adm
		}
		switch e := t.ending.Load(); {
		case e == nil:
		case e.Reason == EndYielded:
			return Admission{Rejected: RejectTopics}
		default:
			return Admission{Rejected: RejectEnding, Drained: e.Reason == EndDrained}
		}
		if expired && cfg.Reject && !t.isHeld() {
			return Admission{Rejected: RejectUnavailable}
		}
		select {
		case <-changed:
		case <-timer.C:
			expired = true
		case <-front.C:
			unled = true
		case <-ctx.Done():
			return Admission{Gone: true}
		}
	}
}

// look returns what is known now of what a client gets: expired says that it has waited
// for as long as it may, unled that its gate should have known by now.
func (s *Reader) look(expired, unled bool) (adm Admission, known bool) {
	t := s.topic
	if no := t.refused(); no != nil {
		return Admission{Refusal: no}, true
	}
	if s.gate != nil {
		why, known := s.gate.Judge(t, expired, unled)
		if why != nil || !known {
			return Admission{Barred: why}, why != nil
		}
	}
	reject := t.relay.cfg.Reject
	t.mu.Lock()
	defer t.mu.Unlock()
	link, trusted := t.link.now(), t.trust.now().admits()
	if link == linkRefused {
		return Admission{Refusal: t.refusal}, true
	}
	known = trusted && (link == linkConnected || link == linkAway && !reject)
	held := link == linkConnected && !trusted // but not for long
	if known || expired && !reject && !s.patient && !held {
		t.admitted = true
		return Admission{Header: t.header}, true
	}
	return Admission{}, false
}

// isHeld reports whether those who come wait for the first event, but not for long.
func (t *Topic) isHeld() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.IsConnected() && !t.trust.now().admits()
}

// change returns what is closed when something of the topic has changed.
func (t *Topic) change() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}
