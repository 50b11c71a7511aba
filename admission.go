package ssefanout

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// joinAgainError tells a client, as an error, to join again: with these headers in
// its key, as the origin's answers vary by them, or as before, if there are none.
type joinAgainError []string

func (names joinAgainError) Error() string {
	return "joining again with a key that has " + strings.Join(names, ", ")
}

// maxJoins is how often a client joins that meets topics which are over.
const maxJoins = 3

// serve makes r a subscriber of the topic for req, as often as it must join again,
// and returns when its stream has ended. If nothing was written because r must pass
// one to one, the error is a passReason.
func (p *pool) serve(w http.ResponseWriter, r *http.Request, req *topicRequest, h *Handler) error {
	id := claimOf(r)
	a := arrival{handler: h, patient: p.needsOriginsWord(r)}
	if p.opts.wrapping {
		a.facts = h.factsOf(r)
		if passed := p.passing.recall(a.key(req.key())); passed != "" {
			return passed
		}
	}
	if !p.varying.empty() {
		if names, known := p.varying.recall(req.key()); known {
			req = req.varyingBy(names, r.Header)
		}
	}
	for joined := 1; ; {
		a.mayJoinAgain = joined < maxJoins
		err := p.subscribe(w, r, req, id, a)
		names, again := errors.AsType[joinAgainError](err)
		switch {
		case !again:
			return err
		case len(names) == 0:
			joined++
		default:
			req = req.varyingBy(names, r.Header) // with more names each time, of which there are maxLearned
		}
	}
}

// An admission is what a client that has joined a topic gets to hear.
type admission struct {
	header   http.Header // of the origin's answer
	refusal  *refusal    // the origin's no
	rejected rejection
	passed   passReason // its own request goes through one to one
	front    string     // why the site has not led its stranger here, or the fact that differs
	moved    bool       // the topic is over because the site leads elsewhere now: join again, through the newest configuration
	gone     bool       // the client did not wait
}

// An arrival is a client that has come to a topic, and what decides whether it may
// share it.
type arrival struct {
	handler *Handler
	facts   facts // wrapping form

	// patient clients cannot be held without the origin's word: they wait for it
	// as long as it takes.
	patient bool

	mayJoinAgain bool // should the topic turn out to be over
}

// key is a topic's key for the clients that come through the same handler with the same
// facts.
func (a *arrival) key(of string) string {
	var k keyBuilder
	k.addValues(a.facts)
	return a.handler.frontKey(string(k.b) + of)
}

// admit waits until it is known what a client gets.
func (t *topic) admit(ctx context.Context, a arrival) admission {
	opts := t.pool.opts
	timer := time.NewTimer(time.Duration(opts.Wait))
	defer timer.Stop()
	front := time.NewTimer(min(time.Duration(opts.Wait), frontPatience))
	defer front.Stop()
	expired, unled := false, false
	for {
		outdated := !t.pool.lineage.isNewest(a.handler)
		t.mu.Lock()
		changed := t.changed
		adm, known := t.admission(a, expired, unled, outdated)
		held := t.isConnected && !t.trusted // for its first event, but not for long
		t.mu.Unlock()
		switch adm.passed {
		case passFront:
			a.handler.frontFailed(t, adm.front)
		case passDiffers:
			t.pool.passing.remember(a.key(t.key), passDiffers, frontMemory)
			t.pool.explainDiffers(t, adm.front)
		default: // there is nothing to remember
		}
		if known {
			return adm
		}

		switch e := t.ending.Load(); {
		case e == nil:
		case e.Reason == endYielded:
			return admission{rejected: rejectTopics}
		default:
			return admission{rejected: rejectEnding, moved: e.Reason == endDrained && !outdated}
		}
		if expired && opts.reject && !held {
			return admission{rejected: rejectUnavailable}
		}
		select {
		case <-changed:
		case <-timer.C:
			expired = true
			t.seek(a.handler) // the new configuration's connection may have failed
		case <-front.C:
			unled = true
		case <-ctx.Done():
			return admission{gone: true}
		}
	}
}

// admission returns what is known now of what a client gets: expired says that it has
// waited for as long as it may, unled that the stranger should have been led here by
// now, and outdated that its configuration has been replaced. t.mu must be held.
func (t *topic) admission(a arrival, expired, unled, outdated bool) (adm admission, known bool) {
	opts := t.pool.opts
	if no := t.refusal; no != nil {
		if no.verdict == verdictElsewhere {
			return admission{passed: passFront, front: no.front}, true
		}
		return admission{refusal: no}, true
	}
	if opts.wrapping {
		why, own := t.homes.judge(a)
		switch {
		case why == passDiffers:
			return admission{passed: why, front: a.facts.differsFrom(own.facts)}, true
		case why != "":
			return admission{passed: why, front: "the stranger is led to another handler"}, true
		case own != nil:
		case len(t.homes) > 0 && outdated:
			return admission{rejected: rejectEnding}, true // it finds the new configuration
		case unled:
			return admission{passed: passFront, front: "the site has not answered the stranger in time"}, true
		default:
			return admission{}, false
		}
	}
	known = t.trusted && (t.isConnected || t.connects > 0 && !opts.reject)
	held := t.isConnected && !t.trusted // but not for long
	if known || expired && !opts.reject && !a.patient && !held {
		t.admitted = true
		return admission{header: t.header}, true
	}
	return admission{}, false
}
