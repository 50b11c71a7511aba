package ssefanout

import (
	"context"
	"net/http"
	"time"
)

// An admission is what a client that has joined a topic gets to hear.
type admission struct {
	header   http.Header // of the origin's answer
	refusal  *refusal    // the origin's no
	rejected rejection
	passed   passReason // its own request goes through one to one
	front    string     // why, if the site does not lead the stranger here
	moved    bool       // the topic is over because the site leads elsewhere now: join again
	gone     bool       // the client did not wait
}

// An arrival is a client that has come to a topic, and what decides whether it may
// share it.
type arrival struct {
	handler *Handler
	facts   facts // wrapping form
	newest  bool  // handler is of the newest configuration

	// patient clients cannot be held without the origin's word: they wait for it
	// as long as it takes.
	patient bool

	mayJoinAgain bool // should the topic turn out to be over
}

// admit waits until it is known what a client gets.
func (t *topic) admit(ctx context.Context, a arrival) admission {
	opts := t.pool.opts
	timer := time.NewTimer(time.Duration(opts.Wait))
	defer timer.Stop()
	expired := false
	for {
		t.mu.Lock()
		changed := t.changed
		adm, known := t.admission(a, expired)
		held := t.isConnected && !t.trusted // for its first event, but not for long
		t.mu.Unlock()
		switch {
		case adm.passed == passFront && a.newest:
			a.handler.frontFailed(t, adm.front)
		case adm.passed == passRefused:
			t.pool.passing.remember(a.handler.frontKey(t.key), passRefused, time.Duration(opts.Wait))
		}
		if known {
			return adm
		}

		switch e := t.ending.Load(); {
		case e == nil:
		case e.Reason == endYielded:
			return admission{rejected: rejectTopics}
		default:
			return admission{rejected: rejectEnding, moved: e.Reason == endDrained}
		}
		if expired && opts.reject && !held {
			return admission{rejected: rejectUnavailable}
		}
		select {
		case <-changed:
		case <-timer.C:
			expired = true
		case <-ctx.Done():
			return admission{gone: true}
		}
	}
}

// admission returns what is known now of what a client gets. t.mu must be held.
func (t *topic) admission(a arrival, expired bool) (adm admission, known bool) {
	opts := t.pool.opts
	if no := t.refusal; no != nil {
		if no.verdict == verdictElsewhere {
			return admission{passed: passFront, front: no.front}, true
		}
		return admission{refusal: no}, true
	}
	through := true // what comes is what the client's configuration would bring
	if opts.wrapping {
		switch why, settled := t.homes.judge(a); {
		case why != "":
			return admission{passed: why, front: "the stranger is led to another handler"}, true
		case settled:
			through = !t.isConnected || t.via.serves(a.handler)
			if expired && !through {
				// The old connection goes on, as the origin has not answered the new one.
				return admission{passed: passRefused}, true
			}
		case expired:
			return admission{passed: passFront, front: "the site has not answered the stranger in time"}, true
		default:
			return admission{}, false
		}
	}
	known = through && t.trusted && (t.isConnected || t.connects > 0 && !opts.reject)
	held := t.isConnected && !t.trusted // but not for long
	if known || expired && !opts.reject && !a.patient && !held {
		t.admitted = true
		return admission{header: t.header}, true
	}
	return admission{}, false
}
