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
	gone     bool // the client did not wait
}

// admit waits until it is known what a client gets. A client that cannot be
// held without the origin's word is patient: it waits for as long as it takes.
func (t *topic) admit(ctx context.Context, patient bool) admission {
	opts := t.pool.opts
	timer := time.NewTimer(time.Duration(opts.Wait))
	defer timer.Stop()
	expired := false
	for {
		t.mu.Lock()
		changed := t.changed
		known := t.isConnected || t.connects > 0 && !opts.reject
		held := t.isConnected && !t.trusted // but not for long
		switch {
		case t.refusal != nil:
			defer t.mu.Unlock()
			return admission{refusal: t.refusal}
		case known && t.trusted, expired && !opts.reject && !patient && !held:
			t.admitted = true
			defer t.mu.Unlock()
			return admission{header: t.header}
		}
		t.mu.Unlock()

		if t.ending.Load() != nil {
			return admission{rejected: rejectEnding}
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
