package ssefanout

import (
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// The origin's answers may vary by headers that clients bring and that vary does
// not name. The pool learns from the Vary of an answer which these are, and they
// join the key, and go to the origin, as if vary named them.

// learnedTime is how long it is known by which headers the answers to a key vary. After
// that, the next client finds it out again.
const learnedTime = time.Hour

// learn remembers that the answers to req vary by more headers.
func (p *pool) learn(req *request.Topic, names []string) {
	p.varying.update(req.Base(), learnedTime, func(known []string) []string {
		all := request.SortedNames(known, req.Learned, names)
		if len(all) > request.MaxLearned {
			return known
		}
		return all
	})
}
