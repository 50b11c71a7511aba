package ssefanout

import (
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

const (
	// notStreamMemory is how long a key is known to be no event stream.
	notStreamMemory = time.Minute

	// passMemoryTime is how long a key is known to be answered for one client.
	passMemoryTime = time.Minute

	// sessionMemoryTime is how long a key is known to begin a session: what
	// speaks such a protocol does so for as long as it is deployed.
	sessionMemoryTime = time.Hour

	// learnedTime is how long it is known by which headers the answers to a key vary.
	// After that, the next client finds it out again.
	learnedTime = time.Hour
)

// Refused implements relay.Observer: it remembers what is no event stream.
func (p *pool) Refused(t *relay.Topic, out *relay.Outcome) {
	if out.Verdict != relay.NotStream {
		return
	}
	if out.Unhandled {
		p.ExplainNothingBehind(t)
	}
	p.passing.Remember(t.Key(), pass.NotStream, notStreamMemory)
}

// Restricted implements relay.Observer: it remembers what is not shared.
func (p *pool) Restricted(t *relay.Topic, out *relay.Outcome) {
	switch restricted := &out.Restriction; {
	case restricted.Pass == string(pass.Session):
		p.passing.Remember(t.Key(), pass.Session, sessionMemoryTime)
	case restricted.Pass != "":
		p.passing.Remember(t.Key(), pass.Reason(restricted.Pass), passMemoryTime)
	default:
		p.learn(upstreamOf(t).request, restricted.Vary)
	}
	if out.Verdict == relay.Personal {
		p.ExplainRestriction(t, &out.Restriction)
	}
}

// learn remembers that the answers to req vary by more headers. These join the key, and go
// to the origin, as if vary named them.
func (p *pool) learn(req *request.Shared, names []string) {
	p.varying.Update(req.Base(), learnedTime, func(known []string) []string {
		all := request.SortedNames(known, req.Learned, names)
		if len(all) > request.MaxLearned {
			return known
		}
		return all
	})
}

// joinAgainError tells a client, as an error, to join again: with these headers in
// its key, as the origin's answers vary by them, or as before, if there are none.
type joinAgainError []string

func (names joinAgainError) Error() string {
	return "joining again with a key that has " + strings.Join(names, ", ")
}

// restrictionError is what a client gets to hear that waits for a restricted answer.
func restrictionError(r *relay.Restriction) error {
	if r.Pass != "" {
		return pass.Reason(r.Pass)
	}
	return joinAgainError(r.Vary)
}
